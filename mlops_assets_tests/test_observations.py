"""What of the request log says something about a release."""

import pytest

from mlops_assets.request_record import RequestRecord
from mlops_assets.serving.records.observations import ENGINE_BUSY, ENGINE_REFUSED, counts_as_failure


@pytest.mark.parametrize(
    ("status", "error", "failed"),
    [
        (200, "", False),
        (499, "client_closed_request", False),
        (400, "invalid_request_error", False),
        (429, "rate_limit_exceeded", False),
        (400, ENGINE_REFUSED, True),
        (429, ENGINE_BUSY, True),
        (503, "engine_failed", True),
        (503, "engine_timeout", True),
        (500, "server_error", True),
    ],
)
def test_a_failure_is_what_the_engine_did_not_answer(status: int, error: str, failed: bool) -> None:
    """A release that refuses whatever it is asked fails, however politely."""
    record = RequestRecord("id", "2026-01-01T00:00:00Z", "r", (), "", status=status, error=error)
    assert counts_as_failure(record) is failed
