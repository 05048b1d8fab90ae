"""What calls need of a server: relays, media servers, and the tokens for them."""
