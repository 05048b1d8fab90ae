"""Endpoints and pages of the OAuth 2.0 authorization server (docs/adr/0010)."""
