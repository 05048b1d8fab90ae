"""Sync v3 in front of another homeserver: what it says is stored here, and told from here."""
