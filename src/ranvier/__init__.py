"""Ranvier, a Matrix homeserver. The floors and who may import whom: ARCHITECTURE.md."""
