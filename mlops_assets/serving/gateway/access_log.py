"""The gateway's own log: JSON lines on standard error, among them one for every chat request.

A request's line says who asked, what became of it and how long it took, with its trace id. No text
of a message and no key stands in it.
"""

import logging
import sys
from typing import Any, BinaryIO

import orjson
import structlog

LINE = "request"
_STAMP = structlog.processors.TimeStamper(fmt="iso", utc=True)


def make_access_log(stream: BinaryIO | None = None) -> Any:
    """A structlog logger that writes JSON lines."""
    return structlog.wrap_logger(
        structlog.BytesLogger(stream or sys.stderr.buffer),
        processors=[_STAMP, structlog.processors.JSONRenderer(serializer=orjson.dumps)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )


def log_as_json() -> None:
    """Have every message of this process be a JSON line on standard error, too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _STAMP,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
