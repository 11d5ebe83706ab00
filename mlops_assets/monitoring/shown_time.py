"""Times of a record as people read them, in the zone that it is in."""


def to_the_minute(stamp: str) -> str:
    """An ISO 8601 time, such as ``2026-07-01T12:30:59+00:00``, as ``2026-07-01 12:30``."""
    return stamp[:16].replace("T", " ")


def to_the_second(stamp: str) -> str:
    """The same as ``2026-07-01 12:30:59``."""
    return stamp[:19].replace("T", " ")
