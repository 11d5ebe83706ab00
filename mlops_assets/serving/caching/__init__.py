"""Answers that are given again: to the same question, and to one that means the same."""
