"""One training: its options, its step, and what is kept of it."""
