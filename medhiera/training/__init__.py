"""The Trainer and what stands beside it."""
