"""What production was asked and answered: read, kept as Parquet, and shown as traces."""
