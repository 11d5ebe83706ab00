"""Takes a release to its users step by step, and back: evidence, decisions, ledger rows."""
