"""What a homeserver does. Services own the transactions; ranks and who may call whom: ARCHITECTURE.md."""
