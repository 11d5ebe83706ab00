"""Streams in the forms that servers give them, and bytes that are cut anywhere."""

import itertools
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.serving.gateway.answer import Answer, Events, Garbage, NotFinite

ID, MODEL = "chatcmpl-" + "0" * 32, "tickets"


def chunk(text: str, **others: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return orjson.dumps({"id": "a-1", "model": "/srv/model", "choices": [choice], **others})


@given(
    texts=st.lists(st.text(max_size=20), min_size=1, max_size=8),
    cuts=st.lists(st.integers(0, 2000), max_size=10),
    end=st.sampled_from([b"\n\n", b"\r\n\r\n"]),
)
def test_it_does_not_matter_where_a_stream_is_cut(
    texts: list[str], cuts: list[int], end: bytes
) -> None:
    stream = b"".join(b"data: " + chunk(text) + end for text in texts)
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    events, answer = Events(10_000), Answer(ID, MODEL)
    for begin, stop in itertools.pairwise(places):
        for data in events.feed(stream[begin:stop]):
            passed, is_usage = answer.take_event(data)
            assert orjson.loads(passed)["id"] == ID
            assert orjson.loads(passed)["model"] == MODEL
            assert not is_usage
    answer.close()
    assert answer.text == "".join(texts)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"id":"a-1","model":"m","choices":[{"index":0,"delta":{"content":"%s"}}]}',
        b'{"id": "a-1", "model": "m", "choices": [{"index": 0, "delta": {"content": "%s"}}]}',
        b'{ "model" : "m" , "id" : "a-1" , "choices" : [{"delta":{"content":"%s"}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"%s"}}]}',
    ],
)
def test_id_and_model_are_ours_however_they_are_written(raw: bytes) -> None:
    """A text that quotes them stays what it is."""
    quoting = orjson.dumps('"id":"a-1","model":"m"')[1:-1]
    answer = Answer(ID, MODEL)
    for _ in range(2):
        passed, _ = answer.take_event(raw.replace(b"%s", quoting))
        seen = orjson.loads(passed)
        assert (seen["id"], seen["model"]) == (ID, MODEL)
        assert seen["choices"][0]["delta"]["content"] == '"id":"a-1","model":"m"'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'{"error": "out of memory"}',
        b'{"choices": 3}',
        b'{"choices": [3]}',
        b'{"choices": [{"delta": null}]}',
        b'{"choices": [{"delta": {"content": 3}}]}',
        b'{"choices": [{"delta": {}}, {"delta": {}}]}',
        b'{"choices": [], "usage"',
    ],
)
def test_what_is_no_part_of_an_answer_is_garbage(data: bytes) -> None:
    with pytest.raises(Garbage):
        Answer(ID, MODEL).take_event(data)


@pytest.mark.parametrize(
    ("block", "data"),
    [
        (b": keep-alive\n\n", []),
        (b"data:{}\n\n", [b"{}"]),
        (b"event: message\nid: 7\ndata: {}\n\n", [b"{}"]),
        (b"data: {\ndata: }\n\n", [b"{ }"]),
        (b"data: [DONE]\n\n", [b"[DONE]"]),
        (b"\n\n\n\n", []),
    ],
)
def test_the_forms_of_events(block: bytes, data: list[bytes]) -> None:
    assert Events(100).feed(block) == data


def test_a_flood_without_an_end_holds_up_nobody() -> None:
    """Each part is looked at once: 8 MiB in small parts would else take half a minute."""
    events, began = Events(8 * 1024**2), time.process_time()
    for _ in range(1024):
        assert events.feed(b"x" * 8 * 1024) == []
    with pytest.raises(Garbage):
        events.feed(b"x")
    assert time.process_time() - began < 5


def test_what_is_no_stream_of_events_is_garbage() -> None:
    with pytest.raises(Garbage):
        Events(100).feed(b"<html>\n\n")
    with pytest.raises(Garbage):
        Events(100).feed(b"x" * 101)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'{"choices": [], "usage": {"prompt_tokens": NaN}}', NotFinite),
        (b'{"choices":[{"delta":{},"logprobs":{"a":[-Infinity,0.5]}}]}', NotFinite),
        (b'{"choices": [{"delta": {"content": ": NaN}"}}', Garbage),
        (b"NaN of a kind", Garbage),
    ],
)
def test_a_number_that_is_none_is_told_from_other_garbage(data: bytes, kind: type[Garbage]) -> None:
    with pytest.raises(Garbage) as caught:
        Answer(ID, MODEL).take_event(data)
    assert type(caught.value) is kind
