"""Events that users want sent later (MSC4140)."""
