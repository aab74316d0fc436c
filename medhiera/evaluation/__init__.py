"""What a model said of a split → numbers, tables and figures."""
