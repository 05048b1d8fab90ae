"""Protocols of the past, adapters at the rim: each is off by default, and nothing below knows of them."""
