"""The process beside the gateway that knows what texts mean: encoder and index.

``python -m mlops_assets.serving.caching.semantic_worker SETTINGS`` reads a JSON object a line from
its standard input and writes one for each to its standard output, in order, the first unasked:
that it is ready, or why not. A process and not a thread, because encoding holds the interpreter
that the gateway answers with, and because torch has no place in the gateway. It ends when its
input does, so it never outlives the gateway.
"""

import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from mlops_assets.artifacts import LineageError
from mlops_assets.sentence_encoder import SentenceEncoder
from mlops_assets.serving.caching.semantic_index import SemanticIndex


def main() -> None:
    """Answer until the input ends."""
    settings = orjson.loads(sys.argv[1])
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no reply
    try:
        index = _make(settings)
    except LineageError as error:
        _reply(replies, {"error": str(error)})
        return
    _reply(replies, {"ready": True})
    for line in sys.stdin.buffer:
        _reply(replies, answer(index, orjson.loads(line)))


def answer(index: SemanticIndex, asked: dict[str, Any]) -> dict[str, Any]:
    """What the index says to one line."""
    match asked["do"]:
        case "find":
            found = index.find(asked["scope"], asked["text"])
            return {} if found is None else {"answer": found[0], "similarity": found[1]}
        case "put":
            index.put(asked["scope"], asked["text"], asked["answer"])
        case "flush":
            index.flush()
    return {}


def _make(settings: dict[str, Any]) -> SemanticIndex:
    import torch

    torch.set_num_threads(1)  # a question is short, and the engines need the cores
    encoder = SentenceEncoder(Path(settings.pop("encoder")), "cache_encoder")
    encoder.encode(["The first text takes longest."])
    return SemanticIndex(encoder, **settings)


def _reply(stream: BinaryIO, reply: dict[str, Any]) -> None:
    stream.write(orjson.dumps(reply, option=orjson.OPT_APPEND_NEWLINE))


if __name__ == "__main__":
    main()
