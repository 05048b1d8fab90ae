"""What spans several services: profiles shown in rooms, accounts that are closed."""
