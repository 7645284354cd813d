"""A dataset -> usable rows, splits, groups; the others are refused by name."""
