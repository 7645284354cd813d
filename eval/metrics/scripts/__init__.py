"""The metrics for `evaluate.load`, which copies a script elsewhere: its imports are absolute."""
