"""A stage's record, its card, and its way to the Hub."""
