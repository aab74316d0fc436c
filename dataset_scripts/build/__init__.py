"""Raw records → built data: the builder, its log, its reports, Parquet, the dataset card."""
