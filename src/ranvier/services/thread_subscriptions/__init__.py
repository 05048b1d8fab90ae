"""Threads that users follow (MSC4306, MSC4308)."""
