"""Which images of the subset an epoch sees, chosen while training."""
