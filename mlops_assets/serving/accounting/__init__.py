"""Budgets, and the ledger of what was used."""
