"""What transformers lacks."""
