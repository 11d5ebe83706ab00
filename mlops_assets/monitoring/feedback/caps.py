"""How much of a version one person may have taught: nobody teaches the model alone.

A cap in rows alone would let one busy person be everybody; a share alone would let him grow with
the others. Both hold: no person has more than ``most`` rows, and none more than ``share`` of all
that is kept. With a share of a quarter three people who agree teach nothing, four do.

A tenant, that is an API key, names its users itself and can invent any number of them, so what it
gave has a share too: of all that is learnt (or asked), what is no feedback with it. So an
application that has the only key is heard, and yet never outweighs the data.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Item = TypeVar("Item")
ROUNDING = 1e-9  # a quarter of eight rows is two rows


def largest_cap(counts: Mapping[str, int], most: int, share: float, others: int = 0) -> int:
    """The most rows that each may have so that nobody has more than ``share`` of what is left.

    With a cap c the rows left are S(c) = others + sum of min(n, c); c must not exceed
    share S(c). S is concave, so what fits is an interval from 0 on, and is bisected. ``others``
    are rows to which no cap applies.
    """
    low, high = 0, min(most, max(counts.values(), default=0))
    while low < high:
        middle = (low + high + 1) // 2
        left = others + sum(min(rows, middle) for rows in counts.values())
        if middle <= share * left + ROUNDING:
            low = middle
        else:
            high = middle - 1
    return low


def capped(
    items: Sequence[Item],
    person: Callable[[Item], str],
    tenant: Callable[[Item], str],
    most: int,
    person_share: float,
    tenant_share: float,
    beside: int = 0,
) -> dict[int, str]:
    """Which of ``items`` are too many, by their place, and why: ``person_cap``, ``tenant_cap``.

    The first of a person's items stay, so that a version's rows stay in the next. Taking rows of
    a tenant away leaves fewer of which a person has a share, so both caps are applied in turns
    until neither takes anything. Items without a tenant have no tenant's cap; ``beside`` are rows
    that stand beside the items, of which with them a tenant has a share.
    """
    dropped: dict[int, str] = {}
    while True:
        before = len(dropped)
        _cap(items, dropped, person, "person_cap", most, person_share)
        _cap(items, dropped, tenant, "tenant_cap", len(items), tenant_share, beside)
        if len(dropped) == before:
            return dropped


def _cap(
    items: Sequence[Item],
    dropped: dict[int, str],
    of: Callable[[Item], str],
    reason: str,
    most: int,
    share: float,
    beside: int = 0,
) -> None:
    left = [(place, of(item)) for place, item in enumerate(items) if place not in dropped]
    counts = Counter(name for _, name in left if name)
    cap = largest_cap(counts, most, share, len(left) - counts.total() + beside)
    taken: Counter[str] = Counter()
    for place, name in left:
        taken[name] += bool(name)
        if name and taken[name] > cap:
            dropped[place] = reason
