"""The endpoints that other homeservers call: a module for each YAML of the server-server API."""
