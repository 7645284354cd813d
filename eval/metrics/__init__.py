"""Pure functions of predictions and references, one file per family of metrics."""
