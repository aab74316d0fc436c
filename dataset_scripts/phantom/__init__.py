"""A synthetic cohort in the four sources' layouts, for tests and the demo."""
