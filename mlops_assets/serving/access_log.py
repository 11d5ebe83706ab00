"""One JSON line on standard error for every request: who, what became of it, how long it took.

No text of a message and no key stands in it.
"""

import logging
import sys
from typing import Any, BinaryIO

import structlog

LINE = "request"


def make_access_log(stream: BinaryIO | None = None) -> Any:
    """A structlog logger that writes JSON lines."""
    import orjson

    return structlog.wrap_logger(
        structlog.BytesLogger(stream or sys.stderr.buffer),
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
