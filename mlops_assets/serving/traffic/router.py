"""Which release answers a request: from the ledger's state, the flags, and the engines that are
ready.

Users of a running experiment get the release of their variant and take no part in a rollout.
Of all others those who are eligible (flag `canary`) are split by the hash of their name: who
stands below the percentage gets the candidate, the rest are its control at the same time.
While the candidate is in shadow nobody gets it; a share of requests is copied to it. A candidate
whose engine is not ready gets nobody.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mlops_assets import ledger
from mlops_assets.ledger import LedgerEntry
from mlops_assets.release_state import ReleaseState
from mlops_assets.request_record import CANARY, CHAMPION, OUTSIDE
from mlops_assets.serving.gateway.refusal import unavailable
from mlops_assets.serving.gateway.upstream import Upstream
from mlops_assets.serving.traffic import flags as flag_names
from mlops_assets.serving.traffic.assignment import Experiments
from mlops_assets.serving.traffic.bucketing import bucket
from mlops_assets.serving.traffic.experiment_state import running_experiments
from mlops_assets.serving.traffic.flags import Flags
from mlops_assets.serving.traffic.route import Route

Ready = Callable[[str], Upstream | None]
"""The engine of a release by its digest; None while it is not ready."""


class Desired(Protocol):
    """What is to be served now; ``DesiredState`` is one."""

    @property
    def state(self) -> ReleaseState:
        """Of the release."""
        ...

    @property
    def entries(self) -> Sequence[LedgerEntry]:
        """The ledger's rows; another object when there are new ones."""
        ...


@dataclass(frozen=True, slots=True)
class _Rollout:
    """What the ledger said last, as a request needs it."""

    stable: str
    candidate: str
    stage: str
    share: float
    """Of the eligible users, who get the candidate."""
    salt: str


class Router:
    """Decides for every request by what is to be served at that moment: a release that is taken
    back gets no further one."""

    def __init__(
        self,
        desired: Desired,
        model: str,
        ready: Ready,
        flags: Flags,
        shadow_share: float,
        chance: Callable[[], float] = random.random,
        withheld: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """``shadow_share`` of the requests is copied to a candidate in shadow; ``chance`` draws
        them from [0, 1). ``withheld`` says of a release that is not ready whether it failed."""
        self._desired, self._model = desired, model
        self._ready, self._flags = ready, flags
        self._shadow_share, self._chance, self._withheld = shadow_share, chance, withheld
        self._seen: tuple[object, ...] = ()
        self._rollout: _Rollout | None = None
        self._entries: Sequence[LedgerEntry] = ()
        self._experiments = Experiments(())

    def route(self, caller: str, user: str, attributes: Mapping[str, Any]) -> Route:
        """``caller`` is the key's name, ``user`` the hash of tenant and user.

        Raises Refusal (503) while the engine of what the user is to get is not ready.
        """
        self._look()
        rollout = self._rollout
        if rollout is None:
            raise unavailable("No release is being served yet.", 5.0, "no_release")
        asked = {**attributes, "tenant": caller}
        if (taken := self._experiments.assign(user, asked, self._flags)) is not None:
            name, variant, release = taken
            if (upstream := self._ready(release)) is not None:
                return Route(OUTSIDE, upstream, None, {name: variant})
            return Route(OUTSIDE, self._stable(rollout))
        if rollout.stage == ledger.CANARY:
            return self._canary(rollout, user, asked)
        if rollout.stage == ledger.SHADOW:
            return Route(CHAMPION, self._stable(rollout), self._mirror(rollout, user, asked))
        return Route(CHAMPION, self._stable(rollout))

    def _look(self) -> None:
        """Take over what changed since the last request."""
        state, entries = self._desired.state, self._desired.entries
        seen = (_entry(state.stable), _entry(state.candidate), state.stage, state.percent)
        if seen != self._seen:
            self._seen, self._rollout = seen, _rollout(state)
        if entries is not self._entries:
            self._entries = entries
            self._experiments = Experiments(running_experiments(entries, self._model))

    def _canary(self, rollout: _Rollout, user: str, asked: Mapping[str, Any]) -> Route:
        if not self._flags.eligible(flag_names.CANARY, user, asked):
            return Route(OUTSIDE, self._stable(rollout))
        if bucket(user, rollout.salt) >= rollout.share:
            return Route(CHAMPION, self._stable(rollout))
        if (candidate := self._ready(rollout.candidate)) is not None:
            return Route(CANARY, candidate)
        return Route(OUTSIDE, self._stable(rollout))

    def _mirror(self, rollout: _Rollout, user: str, asked: Mapping[str, Any]) -> Upstream | None:
        if self._chance() >= self._shadow_share:
            return None
        if not self._flags.eligible(flag_names.SHADOW, user, asked):
            return None
        return self._ready(rollout.candidate)

    def _stable(self, rollout: _Rollout) -> Upstream:
        if (upstream := self._ready(rollout.stable)) is not None:
            return upstream
        if self._withheld(rollout.stable):
            raise unavailable(
                "The approved release is not served: its files were changed, or its engine does"
                " not start. Whoever runs the gateway finds the reason in its log.",
                30.0,
                "release_withheld",
            )
        raise unavailable("The model is being started. Try again.", 2.0, "model_starting")


def _entry(row: LedgerEntry | None) -> int | None:
    return row.entry if row else None


def _rollout(state: ReleaseState) -> _Rollout | None:
    if state.stable is None:
        return None
    stable = state.stable.decision.bundle.digest
    if state.candidate is None:
        return _Rollout(stable, "", state.stage, 0.0, "")
    candidate, salt = state.candidate.decision.bundle.digest, canary_salt(state.candidate)
    return _Rollout(stable, candidate, state.stage, state.percent / 100, salt)


def canary_salt(promotion: LedgerEntry) -> str:
    """Users are drawn anew for each promotion: nobody is always among the first to meet what is
    new."""
    return f"canary/{promotion.decision.key}"
