"""Where the judge's questions go, with which key, and what is left of them."""

import logging
import stat

import pytest
from pydantic import ValidationError

from mlops_assets.artifacts import LineageError
from mlops_assets.evaluation.judge_sample import Judged, fit_to_send
from mlops_assets.evaluation.judge_spec import JudgeSpec
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.profiles import check_settings
from mlops_assets_tests.judge_server import serve_judge
from mlops_assets_tests.test_judge_server import ask, question, spec_for, status


@pytest.fixture
def server():
    with serve_judge() as found:
        yield found


def test_the_key_comes_from_the_environment_and_is_never_shown(
    server, tmp_path, monkeypatch, caplog
) -> None:
    monkeypatch.setenv("MLOPS_JUDGE_API_KEY", "sk-very-secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-other")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server.replies = [status(401), status(500)]
    with caplog.at_level(logging.DEBUG):
        said, endpoint = ask(spec_for(server), tmp_path / "c.db", question(), question())
    assert [found["Authorization"] for found in server.headers] == ["Bearer sk-very-secret"] * 3
    assert not any("other" in str(found) for found in server.headers)
    shown = caplog.text + repr(said) + repr(vars(endpoint)) + repr(endpoint.spec)
    assert "very-secret" not in shown
    assert b"very-secret" not in (tmp_path / "c.db").read_bytes()


def test_without_a_key_none_is_sent(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    ask(spec_for(server), tmp_path / "c.db", question())
    assert "Authorization" not in server.headers[0]


def test_the_answers_are_kept_in_a_private_file(server, tmp_path) -> None:
    path = tmp_path / "c.db"
    path.touch(mode=0o644)
    ask(spec_for(server), path, question())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_cache_that_is_none_is_named(server, tmp_path) -> None:
    (tmp_path / "c.db").write_text("no database at all, but long enough to look at")
    with pytest.raises(LineageError, match=r"The judge's cache .*c\.db cannot be read"):
        ask(spec_for(server), tmp_path / "c.db", question())
    assert server.requests == []


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://judge.example/v1", "must be https"),
        ("http://10.0.0.8:8000/v1", "must be https"),
        ("http://localhost.example/v1", "must be https"),
        ("http://127.0.0.1.example/v1", "must be https"),
        ("ftp://127.0.0.1/v1", "must be an address"),
        ("127.0.0.1:8000/v1", "must be an address"),
        ("https://user:pass@judge.example/v1", "no user, password"),
        ("https://judge.example/v1?api_key=1", "no user, password"),
        ("https://judge.example/v1", None),
        ("http://127.0.0.1:8000/v1", None),
        ("http://127.8.0.1/v1", None),
        ("http://[::1]:8000/v1", None),
        ("http://localhost:8000/v1", None),
    ],
)
def test_only_https_or_this_machine(url: str, problem: str | None) -> None:
    if problem is None:
        assert JudgeSpec(judge_url=url, judge_model="m").judge_url == url
    else:
        with pytest.raises(ValidationError, match=problem):
            JudgeSpec(judge_url=url, judge_model="m")


def test_a_url_needs_a_model() -> None:
    with pytest.raises(ValidationError, match="needs judge_model"):
        JudgeSpec(judge_url="http://127.0.0.1:8000/v1")


def test_a_bad_address_stops_a_run_before_its_first_piece_of_work() -> None:
    run_config = {"ops": {"eval_report": {"config": {"judge_url": "http://judge.example/v1"}}}}
    with pytest.raises(LineageError, match="eval_report: judge_url must be https unless"):
        check_settings(run_config, {"eval_report": EvaluationSpec})


@pytest.mark.parametrize(
    ("url", "kept"), [("http://127.0.0.1:1/v1", True), ("https://judge.example/v1", False)]
)
def test_another_machine_gets_no_personal_data(url: str, kept: bool) -> None:
    told = "Write to kim.lee@example.com"
    messages = [
        {"role": "user", "content": told},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": told}}]},
    ]
    item = Judged("test", "i", messages, told, {"tuned": told})
    spec = EvaluationSpec(judge_url=url, judge_model="m")
    (sent,) = fit_to_send([item], spec)
    shown = str([sent.messages, sent.reference, sent.outputs])
    assert shown.count("kim.lee@example.com") == (4 if kept else 0)
    assert shown.count("Write to") == 4
