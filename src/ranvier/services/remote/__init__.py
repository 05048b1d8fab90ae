"""Other servers: where they are, their keys, what we ask of them, and how they are doing."""
