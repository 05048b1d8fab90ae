"""Devices of local users: names, when they were last seen, and how they go."""
