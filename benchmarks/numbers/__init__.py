"""Every number of README and docs: its command, what it gave, and the files that can move it."""
