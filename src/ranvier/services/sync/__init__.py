"""What clients are told: everything that changed for one of them since it asked last."""
