"""Whether a run fits a card and how long it takes, counted without weights and without a GPU."""
