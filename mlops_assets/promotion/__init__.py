"""The registry, and the decision what the champion is."""
