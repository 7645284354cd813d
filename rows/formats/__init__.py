"""One file per format that `datasets` does not read as it is."""
