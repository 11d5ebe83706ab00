"""Users of a gateway: what they ask, what they get, and whether that is what they may get.

Every question is another one, and the engine's right answer repeats it, so an answer that
belongs to somebody else, or to another release, shows.
"""

import asyncio
import itertools
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import aiohttp

PATIENCE = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True)
class Answer:
    """What a user got."""

    question: str
    status: int
    id: str = ""
    """``X-Request-Id``: what the gateway acknowledged."""
    text: str = ""
    finish: str = ""
    error: dict[str, Any] | None = None
    """The error of the body, or of the event that ended a stream."""
    broken: bool = False
    """The connection ended before the answer did."""
    raw: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def acknowledged(self) -> bool:
        """Whether the user holds a whole answer."""
        return self.status == 200 and not self.broken and self.error is None

    @property
    def answered_by(self) -> str:
        """The model that gave the engine's right answer; empty for any other text."""
        model, _, question = self.text.partition(": ")
        return model if question == self.question else ""


def find_breach(answer: Answer, models: Collection[str] = ()) -> str | None:
    """Why a user may not be given this answer; None for a right one and for a clean error.

    ``models`` are those that may answer; none means any.
    """
    if "Traceback" in answer.raw or 'File "' in answer.raw:
        return "a stack trace"
    if answer.error is not None:
        return None if is_clean(answer) else f"an unclean error: {answer.raw[:200]}"
    if answer.status != 200:
        return f"{answer.status} without an error: {answer.raw[:200]!r}"
    if answer.broken or not answer.finish:
        return f"an answer that was cut off: {answer.raw[-200:]!r}"
    if not answer.answered_by or (models and answer.answered_by not in models):
        return f"a wrong answer to {answer.question!r}: {answer.text!r}"
    return None


def is_clean(answer: Answer, status: int = 503) -> bool:
    """An error in the protocol's form with this status, by default that of what may be tried
    again; where the head of a stream was sent, an event of that form."""
    error = answer.error or {}
    whole = all(isinstance(error.get(name), str) and error[name] for name in ("message", "type"))
    form = error.keys() == {"message", "type", "param", "code"}
    return answer.status in (200, status) and whole and form and not answer.broken


async def ask(
    session: aiohttp.ClientSession, url: str, question: str, *, stream: bool = False, **body: Any
) -> Answer:
    """Ask one question at ``/v1/chat/completions``. Raises what the connection raises."""
    given = {"model": "support-tickets", "messages": [{"role": "user", "content": question}]}
    async with session.post(
        f"{url}/chat/completions", json=given | {"stream": stream} | body
    ) as response:
        parts, broken = [], False
        try:
            async for part in response.content.iter_any():
                parts.append(part)
        except aiohttp.ClientPayloadError:
            broken = True
        raw = b"".join(parts).decode(errors="replace")
        headers = {name.lower(): value for name, value in response.headers.items()}
        found = Answer(
            question,
            response.status,
            headers.get("x-request-id", ""),
            broken=broken,
            raw=raw,
            headers=headers,
        )
    if headers.get("content-type", "").startswith("text/event-stream"):
        return read_stream(found)
    return read_document(found)


def read_document(answer: Answer) -> Answer:
    """A plain answer, or an error."""
    try:
        content = json.loads(answer.raw, parse_constant=_refuse)
        if "error" in content:
            return _with(answer, error=content["error"])
        (choice,) = content["choices"]
        return _with(answer, text=choice["message"]["content"], finish=choice["finish_reason"])
    except (ValueError, KeyError, TypeError):
        return answer


def read_stream(answer: Answer) -> Answer:
    """A streamed answer; it is finished only with the protocol's last event."""
    text, finish, error, done = "", "", None, False
    for line in answer.raw.splitlines():
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            done = True
        elif data != line:
            try:
                content = json.loads(data, parse_constant=_refuse)
                error = content.get("error", error)
                for choice in content.get("choices", ()):
                    text += choice["delta"].get("content") or ""
                    finish = choice.get("finish_reason") or finish
            except (ValueError, KeyError, TypeError, AttributeError):
                return _with(answer, broken=True)
    return _with(answer, text=text, finish=finish if done else "", error=error)


def _with(answer: Answer, **changes: Any) -> Answer:
    return Answer(**(vars(answer) | changes))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


@dataclass
class Crowd:
    """Clients that ask one question after the other until they are told to stop."""

    url: str
    key: str
    clients: int
    answers: list[Answer] = field(default_factory=list)
    lost: int = 0
    """Questions to which no connection could be had, or that broke before the head."""

    async def run(self, until: Callable[[], bool]) -> None:
        """Ask until ``until`` says so. Every other client streams."""
        headers = {"Authorization": f"Bearer {self.key}"}
        pool = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            headers=headers, connector=pool, timeout=PATIENCE
        ) as session:
            await asyncio.gather(*(self._ask(session, i, until) for i in range(self.clients)))

    async def _ask(
        self, session: aiohttp.ClientSession, client: int, until: Callable[[], bool]
    ) -> None:
        for number in itertools.count():
            if until():
                return
            question = f"question {number} of client {client}"
            stream, user = bool(client % 2), f"user-{client}"
            try:
                self.answers.append(
                    await ask(session, self.url, question, stream=stream, user=user)
                )
            except aiohttp.ClientConnectionError:
                self.lost += 1
                await asyncio.sleep(0.02)

    def breaches(self, models: Collection[str] = ()) -> list[str]:
        """What users got and may not get."""
        return [why for one in self.answers if (why := find_breach(one, models))]
