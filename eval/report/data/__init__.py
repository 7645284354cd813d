"""The page about a run's rows."""
