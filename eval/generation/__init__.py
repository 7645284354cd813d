"""A batch -> answers."""
