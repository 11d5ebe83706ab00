"""The form of the approval page, read with suspicion: from our own page, small, in time, once."""

from urllib.parse import parse_qs

import anyio
from starlette.requests import Request as HttpRequest

MOST_BODY_BYTES = 16_384
BODY_SECONDS = 10
NOTHING = "Nothing was decided"


class Refused(Exception):
    """A request that is answered with a page that says why."""

    def __init__(self, status: int, title: str, text: str) -> None:
        super().__init__(text)
        self.status, self.title = status, title


def require_own_page(http: HttpRequest) -> None:
    """Refuse a form that another site sent; browsers say so themselves."""
    site = http.headers.get("sec-fetch-site", "same-origin")
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if site not in ("same-origin", "none"):
        raise Refused(403, NOTHING, "Another site sent this form. Open your link.")
    if kind != "application/x-www-form-urlencoded":
        raise Refused(415, NOTHING, "A decision is the form of this page.")


async def read_form(http: HttpRequest) -> dict[str, str]:
    """The form's fields, each once. The body is read up to a limit, and not for long."""
    body = b""
    try:
        with anyio.fail_after(BODY_SECONDS):
            async for part in http.stream():
                body += part
                if len(body) > MOST_BODY_BYTES:
                    raise Refused(413, NOTHING, "The form is too large.")
    except TimeoutError:
        raise Refused(408, NOTHING, "The form did not arrive in time.") from None
    try:
        found = parse_qs(
            body.decode(), keep_blank_values=True, strict_parsing=True, errors="strict"
        )
    except ValueError:
        raise Refused(400, NOTHING, "The form cannot be read.") from None
    if any(len(values) != 1 for values in found.values()):
        raise Refused(400, NOTHING, "A field of the form stands twice.")
    return {name: values[0] for name, values in found.items()}
