"""What transformers lacks, and loading what it has."""
