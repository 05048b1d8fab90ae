"""Ranvier, a Matrix homeserver. The floors and who may import whom: ARCHITECTURE.md."""

__version__ = "0.1.0"
