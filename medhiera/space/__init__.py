"""A page to try a stage's folder on: app.py is the page, the other files are what it does."""
