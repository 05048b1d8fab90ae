"""Simplified sliding sync (MSC4186): docs/adr/0007-sliding-sync.md."""
