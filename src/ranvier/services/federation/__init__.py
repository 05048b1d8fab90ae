"""What this server and others owe each other: answers, handshakes, transactions."""
