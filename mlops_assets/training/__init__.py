"""The base model and its fine-tuned adapter."""
