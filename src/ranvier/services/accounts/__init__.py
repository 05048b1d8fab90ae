"""Accounts: who may use this server, and how they show it."""
