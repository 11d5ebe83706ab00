"""Engines, the gateway, and the release of what was approved, step by step."""
