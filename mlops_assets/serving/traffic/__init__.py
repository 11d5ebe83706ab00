"""Who gets which release: buckets, flags, the shadow, experiments."""
