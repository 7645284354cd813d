"""Drawn datasets in the real formats."""
