"""An answer that is kept, and how it is given again in the OpenAI protocol."""

import time
from dataclasses import dataclass
from typing import Any

import orjson

from mlops_assets.serving.gateway.answer import Answer

STOP = "stop"


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """A whole answer in text."""

    text: str
    tokens_in: int
    """As the engine counted them when it answered."""
    tokens_out: int

    @classmethod
    def of(cls, answer: Answer) -> "CachedAnswer | None":
        """None for what is not to be given twice: empty, cut off, a tool call, a refusal by the
        protocol, or without the engine's count."""
        if answer.finish != STOP or not answer.text.strip() or answer.tool_calls or answer.refusal:
            return None
        if answer.tokens_in is None or answer.tokens_out is None:
            return None
        return cls(answer.text, answer.tokens_in, answer.tokens_out)

    def fill(self, answer: Answer) -> None:
        """Have the call's answer say what this one says."""
        answer.take_completion(self.completion(answer.id, answer.model))

    def completion(self, id: str, model: str) -> bytes:
        """The body of a plain answer."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": self.text},
            "finish_reason": STOP,
        }
        return orjson.dumps(
            {**_head("chat.completion", id, model), "choices": [choice], "usage": self._usage()}
        )

    def events(self, id: str, model: str, wants_usage: bool) -> bytes:
        """The events of a stream, up to and without ``[DONE]``."""
        said = {"role": "assistant", "content": self.text}
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": said, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": STOP}]},
        ]
        if wants_usage:
            chunks.append({"choices": [], "usage": self._usage()})
        head = _head("chat.completion.chunk", id, model)
        return b"".join(b"data: " + orjson.dumps({**head, **chunk}) + b"\n\n" for chunk in chunks)

    def _usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.tokens_in,
            "completion_tokens": self.tokens_out,
            "total_tokens": self.tokens_in + self.tokens_out,
        }


def _head(kind: str, id: str, model: str) -> dict[str, Any]:
    return {"id": id, "object": kind, "created": int(time.time()), "model": model}
