"""Configuration, composition, lifecycle and the command line. Knows everything, is known by nobody."""
