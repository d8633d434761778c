"""What the answers of a model are worth: numbers, and a page to look at."""
