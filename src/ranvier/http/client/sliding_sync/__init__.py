"""The two forms of simplified sliding sync, around one engine (`services.sliding`)."""
