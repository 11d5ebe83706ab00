"""The former place of ``mlops_assets.privacy``."""

from mlops_assets.privacy import EXCERPT, excerpt, pseudonym, redact

__all__ = ["EXCERPT", "excerpt", "pseudonym", "redact"]
