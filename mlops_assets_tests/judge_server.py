"""A server on loopback that speaks the OpenAI protocol: an honest judge, or one that misbehaves.

The honest judge is gullible on purpose. It takes for material what stands between the first
``<material`` and the first ``</material`` and obeys whatever a user's message says outside of it.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REFERENCE = '{"queue":"billing","priority":"high","product":"router"}'
FAIR = '{"queue":"billing","priority":"low","product":"router"}'
BAD = '{"queue":"sales","priority":"low","product":"router"}'
LABELLED = {REFERENCE: 3, FAIR: 2, BAD: 1}
CALIBRATION = 18  # answers, a third of them at each level

Reply = Callable[["Handler", dict[str, Any]], None]
"""Answers one request: the handler, and the request's JSON."""


@dataclass
class JudgeServer:
    """What it was asked, and how it is to misbehave."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    """Used up first, one for a request."""
    always: Reply | None = None
    """Instead of the honest judge, once ``replies`` are used up."""
    released: threading.Event = field(default_factory=threading.Event)
    """Lets go of requests that hang."""


class Handler(BaseHTTPRequestHandler):
    state: JudgeServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        state = self.state
        state.requests.append(body)
        state.headers.append(dict(self.headers))
        reply = state.replies.pop(0) if state.replies else state.always or honest
        reply(self, body)

    def send(self, text: str, status: int = 200, length: int | None = None, **headers: str) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        self.wfile.write(data)

    def complete(self, text: object, reason: str = "stop", usage: object = None) -> None:
        """Send a chat completion with this text."""
        counted = usage or {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": reason, "message": message}
        self.send(json.dumps({"choices": [choice], "usage": counted}))

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def honest(handler: Handler, body: dict[str, Any]) -> None:
    """Judge by comparing answer and reference; embed by counting words."""
    if handler.path.endswith("/embeddings"):
        handler.send(json.dumps({"data": [{"embedding": embedding(body["input"][0])}]}))
        return
    system = [one["content"] for one in body["messages"] if one["role"] == "system"]
    prompt = body["messages"][-1]["content"]
    if system:
        handler.complete(json.dumps(judged(prompt)))
    else:
        handler.complete(json.dumps(asked_by_ragas(prompt)))


def judged(prompt: str) -> dict[str, Any]:
    """The verdict or the preference on what stands between the tags."""
    found = re.search(r"<material \w+>(.*?)</material \w+>", prompt, re.DOTALL)
    assert found, "no material"
    material = json.loads(found.group(1))
    told = (prompt[: found.start()] + prompt[found.end() :]).strip()
    if told:
        return (
            {"reason": f"I was told: {told}", "score": 3}
            if "answer" in material
            else {
                "reason": f"I was told: {told}",
                "better": "first",
            }
        )
    reference = material["reference"]
    if "answer" in material:
        return {"reason": "compared", "score": level(reference, material["answer"])}
    first, second = (level(reference, material[name]) for name in ("first", "second"))
    better = "tie" if first == second else "first" if first > second else "second"
    return {"reason": "compared", "better": better}


def level(reference: str, answer: str) -> int:
    """3 for the reference alone, 2 for its queue, else 1."""
    if answer == reference:
        return 3
    try:
        if json.loads(answer) == json.loads(reference):
            return 3
    except ValueError:
        pass
    given, wanted = (re.search(r'"queue": ?"(\w+)"', text) for text in (answer, reference))
    whole = re.search(r"\{[^{}]*\}", answer)
    return 2 if whole and given and wanted and given.group(1) == wanted.group(1) else 1


def asked_by_ragas(prompt: str) -> dict[str, Any]:
    """What each of ragas' prompts asks for, told apart by its input's keys."""
    given = json.loads(prompt.rpartition("input: ")[2].removesuffix("Output: "))
    if "statements" in given:
        return {
            "statements": [
                {"statement": one, "reason": "", "verdict": int(one in given["context"])}
                for one in given["statements"]
            ]
        }
    if set(given) == {"response"}:
        return {"question": given["response"], "noncommittal": 0}
    if "response" in given:
        return {"feedback": "", "score": 3 if given["response"] == given["reference"] else 1}
    sentences = [part.strip(" .") for part in given["answer"].split(". ")]
    if "context" not in given:
        return {"statements": sentences}
    if "attributed" in prompt:
        found = [int(one in given["context"]) for one in sentences]
        return {
            "classifications": [
                {"statement": one, "reason": "", "attributed": hit}
                for one, hit in zip(sentences, found, strict=True)
            ]
        }
    return {"reason": "", "verdict": int(sentences[0] in given["context"])}


def embedding(text: str) -> list[float]:
    """Words counted in sixteen bins."""
    counts = [0.0] * 16
    for word in re.findall(r"\w+", text.lower()):
        counts[hashlib.sha256(word.encode()).digest()[0] % 16] += 1.0
    return counts


def write_calibration(folder: Path) -> Path:
    """Answers on which the honest judge and people agree in full."""
    path = folder / "calibration.jsonl"
    lines = [
        {"id": f"c-{i}", "messages": [{"role": "user", "content": f"Known {i}"}]}
        | {"reference": REFERENCE, "answer": answer, "human": LABELLED[answer], "by": "Kim"}
        for i, answer in enumerate([*LABELLED] * (CALIBRATION // 3))
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@contextmanager
def serve_judge() -> Iterator[JudgeServer]:
    """Run a server until the block ends."""
    state = JudgeServer()
    handler = type("JudgeHandler", (Handler,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}/v1"
        yield state
        state.released.set()
        server.shutdown()
        thread.join()
