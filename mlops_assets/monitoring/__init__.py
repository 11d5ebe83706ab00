"""What production was asked, and whether it still resembles the training data."""
