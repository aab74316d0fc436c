"""Built data → batches."""
