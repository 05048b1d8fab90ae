"""Authorization: which events a room admits. Start reading at `check`."""
