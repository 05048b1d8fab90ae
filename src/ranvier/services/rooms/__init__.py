"""Rooms: what happens in them, who is in them, how they are found."""
