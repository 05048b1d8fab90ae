"""This server as its own OAuth 2.0 authorization server (docs/adr/0010)."""
