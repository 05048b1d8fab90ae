"""The client-server API, a module for each part of the specification's table of contents."""
