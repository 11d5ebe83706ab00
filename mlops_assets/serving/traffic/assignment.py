"""Who takes part in which experiment, and with which variant: hashes, nothing is stored.

Whether a user takes part and which variant it is given are two independent draws, each with the
experiment's own salt: a growing share keeps its users, half of every share gets each variant, and
no experiment has to do with another or with a canary. A user is in one experiment at most, because
each decides which release answers: the one that began first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_assets.serving.traffic.bucketing import bucket
from mlops_assets.serving.traffic.flags import Flags

A, B = "a", "b"
"""The variants: what there is, and what is to be tried."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A running experiment, as a request needs it."""

    name: str
    salt: str
    share: float
    """Of the eligible users, who take part."""
    releases: Mapping[str, str]
    """Digest of the bundle of each variant."""
    flag: str = ""
    """Who is eligible; empty for everybody."""

    def variant(self, user: str) -> str | None:
        """The user's variant; None for who takes no part."""
        if bucket(user, f"{self.salt}/share") >= self.share:
            return None
        return A if bucket(user, f"{self.salt}/variant") < 0.5 else B


@dataclass(frozen=True, slots=True)
class Experiments:
    """All that run, in the order in which they began."""

    running: Sequence[Assignment]

    def assign(
        self, user: str, attributes: Mapping[str, Any], flags: Flags
    ) -> tuple[str, str, str] | None:
        """Name, variant and release of the user's experiment, or None."""
        for one in self.running:
            if (variant := one.variant(user)) is None:
                continue
            if not one.flag or flags.eligible(one.flag, user, attributes):
                return one.name, variant, one.releases[variant]
        return None
