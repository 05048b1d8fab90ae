"""Ranvier, a Matrix homeserver. The floors and who may import whom: ARCHITECTURE.md."""

from importlib.metadata import version

__version__ = version("ranvier")
