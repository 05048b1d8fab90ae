"""Signing in through other identity providers."""
