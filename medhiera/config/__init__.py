"""The recipe: its fields, how it is read, what it refuses."""
