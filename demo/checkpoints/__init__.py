"""Small random checkpoints of the real architectures."""
