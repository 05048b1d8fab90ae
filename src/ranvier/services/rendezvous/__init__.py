"""Where two devices of a person meet."""
