"""A synthetic cohort in the sources' layouts, for tests and the demo."""
