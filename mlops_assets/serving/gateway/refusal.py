"""How the gateway says no: one exception, and the error JSON of the OpenAI protocol."""

import math

import orjson

Header = tuple[bytes, bytes]

JSON_HEADER: Header = (b"content-type", b"application/json")

INVALID_REQUEST = "invalid_request_error"
AUTHENTICATION = "authentication_error"
PERMISSION = "permission_error"
NOT_FOUND = "not_found_error"
RATE_LIMIT = "rate_limit_error"
OVERLOADED = "overloaded_error"
ENGINE = "engine_error"
TIMEOUT = "timeout_error"
SERVER = "server_error"
QUOTA = "insufficient_quota"
"""A budget is spent: type and code, as OpenAI's servers say it."""


class Refusal(Exception):
    """A request that gets no answer. The message is for the caller: it names no path, no address
    and no key of ours."""

    def __init__(
        self,
        status: int,
        type: str,
        message: str,
        retry_after: float | None = None,
        *,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        """``retry_after`` is in seconds."""
        super().__init__(message)
        self.status = status
        self.type = type
        self.message = message
        self.retry_after = retry_after
        self.param = param
        self.code = code

    def body(self) -> bytes:
        """The error as JSON."""
        return orjson.dumps(
            {
                "error": {
                    "message": self.message,
                    "type": self.type,
                    "param": self.param,
                    "code": self.code,
                }
            }
        )

    def headers(self) -> list[Header]:
        """Headers that belong to this refusal."""
        found = []
        if self.retry_after is not None:
            found.append((b"retry-after", str(max(1, math.ceil(self.retry_after))).encode()))
        if self.type == QUOTA:
            found.append((b"x-should-retry", b"false"))  # the official client would, at once
        if self.status == 401:
            found.append((b"www-authenticate", b'Bearer realm="mlops"'))
        return found

    def event(self) -> bytes:
        """The error as the last event of a stream that has begun."""
        return b"data: " + self.body() + b"\n\n"


def invalid(message: str, param: str | None = None, code: str | None = None) -> Refusal:
    """The caller's body is at fault."""
    return Refusal(400, INVALID_REQUEST, message, param=param, code=code)


def unavailable(message: str, retry_after: float = 1.0, code: str | None = None) -> Refusal:
    """We cannot answer now, and may soon."""
    return Refusal(503, SERVER, message, retry_after, code=code)


def overloaded() -> Refusal:
    """More is asked at once than we take on."""
    return Refusal(
        429,
        OVERLOADED,
        "The gateway has as many requests as it can take. Try again shortly.",
        1.0,
        code="overloaded",
    )
