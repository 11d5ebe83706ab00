"""Data: where it comes from, what of it is fit to learn from, and how it is split."""
