"""What the candidate can do, beside its base, the champion and plain baselines."""
