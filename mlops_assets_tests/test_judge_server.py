"""A judge's server that misbehaves: each question ends as a score, or as none with a reason."""

import asyncio
import gzip
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.evaluation import judge_http
from mlops_assets.evaluation.judge_endpoint import FAILURES_IN_A_ROW, Endpoint
from mlops_assets.evaluation.judge_http import NoVerdictError
from mlops_assets.evaluation.judge_questions import Question, Rubric, Verdict, score_question
from mlops_assets.evaluation.judge_spec import JudgeSpec
from mlops_assets_tests.judge_server import Handler, JudgeServer, Reply, honest, serve_judge

RUBRIC = Rubric(name="r", task="Judge.", levels={1: "bad", 2: "fair", 3: "good"})
RIGHT = '{"queue":"billing"}'
SCORE = '{"reason": "r", "score": 3}'


@pytest.fixture
def server():
    with serve_judge() as found:
        yield found


def spec_for(server: JudgeServer, **settings: Any) -> JudgeSpec:
    return JudgeSpec(judge_url=server.url, judge_model="m", **({"judge_timeout": 5} | settings))


def question(answer: str = RIGHT, seed: int = 0) -> Question[Verdict]:
    return score_question(RUBRIC, [{"role": "user", "content": "Q"}], RIGHT, answer, seed)


def ask(spec: JudgeSpec, cache: Path, *questions: Question) -> tuple[list[Any], Endpoint]:
    """The score, or the reason why there is none, of each question, asked one after another."""

    async def run() -> tuple[list[Any], Endpoint]:
        said: list[Any] = []
        async with Endpoint(spec, cache, first_wait=0.001).connected() as endpoint:
            for one in questions:
                try:
                    said.append((await endpoint.ask(one)).score)
                except NoVerdictError as error:
                    said.append(str(error))
        return said, endpoint

    return asyncio.run(run())


def hang(handler: Handler, body: dict[str, Any]) -> None:
    handler.state.released.wait(20)


def drip(handler: Handler, body: dict[str, Any]) -> None:
    """A byte now and then, for ever: no single read ever times out."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.state.released.wait(0.02):
        try:
            handler.wfile.write(b" ")
        except OSError:
            return


def break_off(handler: Handler, body: dict[str, Any]) -> None:
    handler.send('{"choices": [{"mess', length=5000)
    handler.close_connection = True


def hang_up(handler: Handler, body: dict[str, Any]) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def huge(handler: Handler, body: dict[str, Any]) -> None:
    handler.complete("x" * (judge_http.LARGEST_RESPONSE + 1))


def bomb(handler: Handler, body: dict[str, Any]) -> None:
    """More than may be read, in a few kilobytes."""
    packed = gzip.compress(b" " * 2 * judge_http.LARGEST_RESPONSE, compresslevel=1)
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.send_header("Content-Length", str(len(packed)))
    handler.end_headers()
    handler.wfile.write(packed)


def status(code: int, **headers: str) -> Reply:
    return lambda handler, body: handler.send('{"error": "secret-key"}', code, **headers)


def says(text: object, reason: str = "stop") -> Reply:
    return lambda handler, body: handler.complete(text, reason)


def sends(text: str) -> Reply:
    return lambda handler, body: handler.send(text)


def refuse_structure(handler: Handler, body: dict[str, Any]) -> None:
    if "response_format" in body:
        handler.send('{"error": "response_format is not supported"}', 400)
    else:
        honest(handler, body)


PASSING: dict[str, Reply] = {
    "429": status(429),
    "429, told to come back at once": status(429, Retry_After="0"),
    "429, with a date that has passed": status(429, Retry_After="Mon, 01 Jan 2024 00:00:00 GMT"),
    "500": status(500),
    "503": status(503, Retry_After="soon"),
    "body breaks off": break_off,
    "connection breaks off": hang_up,
    "no JSON": sends("<html>Bad gateway</html>"),
    "no object": sends("[1]"),
    "no structured output": refuse_structure,
}
LASTING: dict[str, tuple[Reply, str]] = {
    "429": (status(429), "the server is busy (HTTP 429)"),
    "429 for an hour": (status(429, Retry_After="3600"), "the server asks us to wait too long"),
    "500": (status(500), "the server fails (HTTP 500)"),
    "401": (status(401), "the server refuses the request (HTTP 401)"),
    "400": (status(400), "the server refuses the request (HTTP 400)"),
    "redirect": (
        status(307, Location="http://127.0.0.1:9/"),
        "the server refuses the request (HTTP 307)",
    ),
    "hangs": (hang, "the server timed out"),
    "drips": (drip, "the server timed out"),
    "body breaks off": (break_off, "the response broke off"),
    "packed": (bomb, "the response is not JSON"),
    "huge": (huge, "the response is too large"),
    "no JSON": (sends("oops"), "the response is not JSON"),
    "another object": (sends('{"error": null}'), "the response is no chat completion"),
    "no choice": (sends('{"choices": []}'), "the response is no chat completion"),
    "half an answer": (says(SCORE, "length"), "the answer was cut off at its token limit"),
    "filtered": (says(SCORE, "content_filter"), "the server withheld the answer"),
    "no text": (says(None), "the server withheld the answer"),
    "malformed": (says('{"reason": "r", "score": 3'), "the answer is not one JSON object"),
    "fenced": (says(f"```json\n{SCORE}\n```"), "the answer is not one JSON object"),
    "prose": (says("I would give it a 3."), "the answer is not one JSON object"),
    "twice": (says('{"reason": "r", "score": 1, "score": 3}'), "the answer is not one JSON object"),
    "NaN": (says('{"reason": "r", "score": NaN}'), "the answer is not one JSON object"),
    "other keys": (says('{"reason": "r", "points": 3}'), "the answer has other keys or types"),
    "more keys": (
        says('{"reason": "r", "score": 3, "sure": true}'),
        "the answer has other keys or types",
    ),
    "a text": (says('{"reason": "r", "score": "3"}'), "the answer has other keys or types"),
    "a fraction": (says('{"reason": "r", "score": 2.5}'), "the answer has other keys or types"),
    "a truth": (says('{"reason": "r", "score": true}'), "the answer has other keys or types"),
    "too high": (says('{"reason": "r", "score": 10}'), "the score is out of range"),
    "too low": (says('{"reason": "r", "score": 0}'), "the score is out of range"),
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_ends_as_a_score(server, tmp_path, fault) -> None:
    server.replies = [PASSING[fault]]
    said, endpoint = ask(spec_for(server), tmp_path / "c.db", question())
    assert said == [3]
    assert endpoint.spent.calls == len(server.requests) == 2
    assert not endpoint.failures


@pytest.mark.parametrize("fault", LASTING)
def test_what_lasts_ends_without_a_score_and_says_why(server, tmp_path, fault) -> None:
    server.always, reason = LASTING[fault]
    limit = {"judge_timeout": 0.15} if fault in ("hangs", "drips") else {}
    said, endpoint = ask(spec_for(server, **limit), tmp_path / "c.db", question())
    assert said == [reason]
    assert endpoint.failures == {reason: 1}
    assert "secret-key" not in reason


def test_a_failure_is_asked_again_and_an_answer_never(server, tmp_path) -> None:
    server.replies = [says("nonsense")]
    said, first = ask(spec_for(server), tmp_path / "c.db", question(), question(), question())
    assert said == ["the answer is not one JSON object", 3, 3]
    assert (first.spent.calls, first.spent.cached) == (2, 1)
    said, second = ask(spec_for(server), tmp_path / "c.db", question(), question(seed=1))
    assert said == [3, 3]
    assert (second.spent.calls, second.spent.cached) == (1, 1)
    assert len(server.requests) == 3


def test_the_same_question_at_the_same_time_is_asked_once(server, tmp_path) -> None:
    async def run() -> int:
        async with Endpoint(spec_for(server), tmp_path / "c.db").connected() as endpoint:
            await asyncio.gather(*(endpoint.ask(question()) for _ in range(20)))
        return endpoint.spent.calls

    assert asyncio.run(run()) == len(server.requests) == 1


def test_another_model_or_server_is_asked_itself(server, tmp_path) -> None:
    ask(spec_for(server), tmp_path / "c.db", question())
    ask(JudgeSpec(judge_url=server.url, judge_model="other"), tmp_path / "c.db", question())
    assert [body["model"] for body in server.requests] == ["m", "other"]


def test_the_request_is_deterministic_and_asks_for_just_this_form(server, tmp_path) -> None:
    ask(spec_for(server, judge_answer_tokens=64), tmp_path / "c.db", question(seed=7))
    (body,) = server.requests
    assert (body["temperature"], body["seed"], body["max_tokens"]) == (0, 7, 64)
    form = body["response_format"]["json_schema"]
    assert form["strict"]
    assert form["schema"]["additionalProperties"] is False
    assert (
        form["schema"]["properties"]["score"] | {"minimum": 1, "maximum": 3}
        == (form["schema"]["properties"]["score"])
    )


def test_a_server_without_structured_output_is_asked_in_words_from_then_on(
    server, tmp_path
) -> None:
    server.always = refuse_structure
    said, _ = ask(spec_for(server), tmp_path / "c.db", question(), question(seed=1))
    assert said == [3, 3]
    assert ["response_format" in body for body in server.requests] == [True, False, False]


def test_a_busy_server_is_given_the_time_that_it_asks_for(server, tmp_path, monkeypatch) -> None:
    waited: list[float] = []

    async def remember(seconds: float) -> None:
        waited.append(seconds)

    server.replies = [status(429, Retry_After="7"), status(503), status(503)]
    monkeypatch.setattr("mlops_assets.evaluation.judge_endpoint.asyncio.sleep", remember)
    said, _ = ask(spec_for(server), tmp_path / "c.db", question())
    assert said == [3]
    assert waited == [7, 0.002, 0.004]


@pytest.mark.parametrize(
    ("budget", "answered", "reason"),
    [
        ({"judge_max_calls": 2}, 2, "the budget of requests is spent"),
        ({"judge_max_tokens": 110 * 2 + 3000}, 3, "the budget of tokens is spent"),
    ],
)
def test_a_budget_that_ends_gives_no_score(server, tmp_path, budget, answered, reason) -> None:
    spec = spec_for(server, judge_answer_tokens=512, **budget)
    said, endpoint = ask(spec, tmp_path / "c.db", *(question(seed=i) for i in range(30)))
    known = [one for one in said if one == 3]
    assert len(known) >= answered
    assert set(said[len(known) :]) == {reason}
    assert endpoint.spent.calls == len(server.requests) == len(known)
    assert endpoint.spent.tokens <= spec.judge_max_tokens
    # What is known costs nothing, so the next run gets further.
    again, _ = ask(spec, tmp_path / "c.db", *(question(seed=i) for i in range(30)))
    assert len([one for one in again if one == 3]) > len(known)


def test_retries_count_in_the_budget(server, tmp_path) -> None:
    server.always = status(500)
    said, endpoint = ask(spec_for(server, judge_max_calls=2), tmp_path / "c.db", question())
    assert said == ["the budget of requests is spent"]
    assert endpoint.spent.calls == len(server.requests) == 2


def test_tokens_that_a_server_does_not_report_are_counted_at_their_most(server, tmp_path) -> None:
    server.always = lambda handler, body: handler.complete(SCORE, usage={"prompt_tokens": "few"})
    _, endpoint = ask(spec_for(server, judge_answer_tokens=100), tmp_path / "c.db", question())
    assert endpoint.spent.answer_tokens == 100
    assert endpoint.spent.prompt_tokens >= len(json.dumps(server.requests[0]["messages"]))


def test_a_server_that_is_down_is_not_asked_for_ever(tmp_path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens, and nobody else can begin to
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        spec = JudgeSpec(judge_url=url, judge_model="m")
        said, endpoint = ask(spec, tmp_path / "c.db", *(question(seed=i) for i in range(40)))
    assert set(said[:FAILURES_IN_A_ROW]) == {"the server cannot be reached"}
    assert set(said[FAILURES_IN_A_ROW:]) == {"not asked after 8 failures in a row"}
    assert endpoint.spent.calls == 4 * FAILURES_IN_A_ROW
    assert endpoint.spent.tokens == 0
