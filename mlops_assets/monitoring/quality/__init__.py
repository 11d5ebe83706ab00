"""Whether the answers are still good: by what people say of them and by labels that people gave."""
