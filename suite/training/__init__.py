"""One training: its options, its recipe, its step, and what is kept of it."""
