"""The content repository of the client-server API, past and present, and its administration."""
