"""Accounts: registration, login, devices, profiles, and what users keep here."""

from ranvier.app.compose.foundation import Composed, Foundation


def compose_accounts(foundation: Foundation) -> Composed:
    return Composed()
