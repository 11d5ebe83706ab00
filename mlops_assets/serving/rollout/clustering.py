"""How much less the requests of a few users say than as many of different users would.

Users keep their arm, so what is peculiar to a user (long prompts, a client that breaks off) stays
in one arm for the whole rollout and looks like a difference between the releases. The design
effect (Kish, Survey Sampling, 1965) is the factor by which that inflates a mean's variance; it is
measured on the champion's users, from sums that each request changes by a few additions.
"""

from dataclasses import dataclass, field

FEWEST_USERS = 5
"""With fewer nothing can be said; their requests count as if they were of different users."""


@dataclass(slots=True)
class Clustering:
    """Sums over requests and over users of one measure; a user is what the log calls one."""

    requests: int = 0
    total: float = 0.0
    squares: float = 0.0
    """Of the values of single requests."""
    sizes: float = 0.0
    """Sum over users of the square of their requests."""
    crossed: float = 0.0
    """Sum over users of their requests times their total."""
    totals: float = 0.0
    """Sum over users of the square of their total."""
    nameless: int = 0
    """Requests of nobody in particular: each counts as a user of its own."""
    users: dict[str, tuple[int, float]] = field(default_factory=dict)

    def add(self, user: str, value: float) -> None:
        """Count a request; an empty ``user`` is nobody in particular."""
        requests, total = self.users.get(user, (0, 0.0)) if user else (0, 0.0)
        self.requests += 1
        self.total += value
        self.squares += value * value
        self.sizes += 2 * requests + 1
        self.crossed += total + (requests + 1) * value
        self.totals += (2 * total + value) * value
        if user:
            self.users[user] = (requests + 1, total + value)
        else:
            self.nameless += 1

    @property
    def design_effect(self) -> float:
        """Variance of the mean beside that of requests which have nothing to do with each other;
        at least 1."""
        if len(self.users) + self.nameless < FEWEST_USERS:
            return 1.0
        mean = self.total / self.requests
        scatter = self.squares - mean * self.total
        alone = 1 - self.sizes / self.requests**2
        if scatter <= 1e-9 * self.squares or alone <= 0:
            return 1.0
        between = self.totals - 2 * mean * self.crossed + mean * mean * self.sizes
        return max(1.0, between / (scatter * alone))
