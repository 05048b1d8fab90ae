"""Media: how files come in, are shown and go. docs/adr/0005-media.md has the whole picture."""
