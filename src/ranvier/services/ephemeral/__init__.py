"""What is true for a while: receipts, typing, presence."""
