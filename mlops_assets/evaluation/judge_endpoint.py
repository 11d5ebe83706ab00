"""The judge: a server asked patiently, within a budget, and never the same thing twice.

Every question ends as an answer that was read or as a ``NoVerdictError`` with the reason: an
exception, a late answer or half of one never becomes a score. No environment variable but
``MLOPS_JUDGE_API_KEY`` is read and no proxy is used: what is sent goes to the configured URL.
"""

import asyncio
import json
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.artifacts import digest_json
from mlops_assets.evaluation import judge_http
from mlops_assets.evaluation.judge_cache import JudgeCache
from mlops_assets.evaluation.judge_http import (
    BudgetSpentError,
    NoVerdictError,
    RefusedError,
    TryAgainError,
)
from mlops_assets.evaluation.judge_questions import AnswerModel, Question, UnreadableAnswerError
from mlops_assets.evaluation.judge_spec import JudgeSpec

if TYPE_CHECKING:
    from aiohttp import ClientSession

logger = logging.getLogger(__name__)

KEY_VARIABLE = "MLOPS_JUDGE_API_KEY"
ATTEMPTS = 4  # of one request, where the server is busy or the connection breaks
LONGEST_WAIT = 30.0  # seconds that a server may ask us to wait
FAILURES_IN_A_ROW = 8  # questions; the rest is then not asked
REFUSES_STRUCTURE = {400, 415, 422, 501}


@dataclass
class Spent:
    """What judging has cost so far."""

    calls: int = 0
    """Requests sent, those that failed included."""
    cached: int = 0
    """Questions whose answer was known."""
    prompt_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0
    """From the first question to the last answer."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.answer_tokens


class Endpoint:
    """One server and model; use it as ``async with Endpoint(...).connected() as endpoint``."""

    def __init__(self, spec: JudgeSpec, cache: Path, first_wait: float = 0.5) -> None:
        """``first_wait`` (seconds) is doubled before each further attempt."""
        self.spec = spec
        self.spent = Spent()
        self.failures: Counter[str] = Counter()
        """Questions without an answer, by reason."""
        self._path = cache
        self._first_wait = first_wait
        self._structured = True
        self._reserved = 0
        self._failed_in_a_row = 0
        self._locks: dict[str, asyncio.Lock] = {}
        self._under_way = asyncio.Semaphore(spec.judge_concurrency)
        self._cache: JudgeCache
        self._session: ClientSession

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["Endpoint"]:
        """Open the cache and the session, and close both."""
        import aiohttp

        key = os.environ.get(KEY_VARIABLE)
        headers = {"Accept-Encoding": "identity"}  # what is packed small may be endless
        if key:
            headers["Authorization"] = f"Bearer {key}"
        timeout = aiohttp.ClientTimeout(total=self.spec.judge_timeout)
        self._cache = JudgeCache(self._path)
        session = aiohttp.ClientSession(headers=headers, timeout=timeout, auto_decompress=False)
        started = time.perf_counter()
        try:
            async with session as self._session:
                yield self
        finally:
            self.spent.seconds = time.perf_counter() - started
            self._cache.close()

    async def ask(self, question: Question[AnswerModel]) -> AnswerModel:
        """The judge's answer. Raises NoVerdictError, whose text says why there is none."""
        spec = self.spec
        asked = [question.messages, question.schema, question.seed]
        key = digest_json([spec.judge_url, spec.judge_model, spec.judge_answer_tokens, *asked])
        async with self._locks.setdefault(key, asyncio.Lock()), self._under_way:
            with suppress(UnreadableAnswerError):  # kept when other answers were allowed
                if (known := self._cache.find(key)) is not None:
                    found = question.read(known)
                    self.spent.cached += 1
                    return found
            try:
                self._check_patience()
                text = await self._answer(question)
                found = question.read(text)
            except (NoVerdictError, UnreadableAnswerError) as error:
                raise self._failed(error) from error
            self._failed_in_a_row = 0
            self._cache.keep(key, text)
            return found

    async def embed(self, text: str) -> list[float]:
        """The vector of ``text`` by the server's embedding model. Raises NoVerdictError."""
        body = {"model": self.spec.judge_embedding_model, "input": [text]}
        key = digest_json([self.spec.judge_url, "embeddings", body])
        async with self._locks.setdefault(key, asyncio.Lock()), self._under_way:
            if (known := self._cache.find(key)) is not None:
                self.spent.cached += 1
                return [float(number) for number in json.loads(known)]
            try:
                self._check_patience()
                found = judge_http.vector(await self._send("embeddings", body, 0))
            except NoVerdictError as error:
                raise self._failed(error) from error
            self._failed_in_a_row = 0
            self._cache.keep(key, json.dumps(found))
            return found

    def _check_patience(self) -> None:
        if self._failed_in_a_row >= FAILURES_IN_A_ROW:
            raise NoVerdictError(f"not asked after {FAILURES_IN_A_ROW} failures in a row")

    def _failed(self, error: Exception) -> NoVerdictError:
        self.failures[str(error)] += 1
        self._failed_in_a_row += not isinstance(error, BudgetSpentError)
        return NoVerdictError(str(error))

    async def _answer(self, question: Question[Any]) -> str:
        """The text of the answer: by structured output, or where that is refused without it."""
        body = {
            "model": self.spec.judge_model,
            "messages": question.messages,
            "temperature": 0,
            "seed": question.seed,
            "max_tokens": self.spec.judge_answer_tokens,
        }
        if self._structured:
            form = {"name": question.answer.__name__, "strict": True, "schema": question.schema}
            wanted = {"response_format": {"type": "json_schema", "json_schema": form}}
            try:
                return await self._complete(body | wanted)
            except RefusedError as error:
                if error.status not in REFUSES_STRUCTURE:
                    raise
        text = await self._complete(body)  # the prompt asks for the same JSON in words
        if self._structured:
            logger.info("the judge's server refuses structured output: asked in words instead")
        self._structured = False
        return text

    async def _complete(self, body: Mapping[str, Any]) -> str:
        reply = await self._send("chat/completions", body, self.spec.judge_answer_tokens)
        return judge_http.content(reply)

    async def _send(self, path: str, body: Mapping[str, Any], answer_tokens: int) -> dict[str, Any]:
        """The JSON of one response, asked for again while the server is busy."""
        # A token is a byte or more, so no tokenizer makes more of them than there are bytes.
        worst = judge_http.Usage(len(json.dumps(body).encode()), answer_tokens)
        url = f"{self.spec.judge_url.rstrip('/')}/{path}"
        for attempt in range(1, ATTEMPTS + 1):
            self._reserve(sum(worst))
            used = judge_http.Usage(0, 0)
            try:
                reply = await judge_http.post(self._session, url, body)
                used = judge_http.usage(reply) or worst
                return reply
            except TryAgainError as error:
                used = worst if error.served else used
                if attempt == ATTEMPTS:
                    raise NoVerdictError(str(error)) from error
                wait = self._wait(error, attempt)
            finally:
                self._reserved -= sum(worst)
                self.spent.prompt_tokens += used.prompt
                self.spent.answer_tokens += used.answer
            await asyncio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, error: TryAgainError, attempt: int) -> float:
        """Seconds before the next attempt: what the server asks for, else doubled each time."""
        wait: float = self._first_wait * 2 ** (attempt - 1) if error.wait is None else error.wait
        if wait > LONGEST_WAIT:
            raise NoVerdictError("the server asks us to wait too long") from error
        return wait

    def _reserve(self, tokens: int) -> None:
        """Take one request that may cost ``tokens`` from the budget. Raises NoVerdictError."""
        if self.spent.calls >= self.spec.judge_max_calls:
            raise BudgetSpentError("the budget of requests is spent")
        if self.spent.tokens + self._reserved + tokens > self.spec.judge_max_tokens:
            raise BudgetSpentError("the budget of tokens is spent")
        self.spent.calls += 1
        self._reserved += tokens
