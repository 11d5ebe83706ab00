"""Data that DVC has pinned comes back from a remote: a directory, and a real S3 API server."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlops_assets import dvc_project
from mlops_assets.artifacts import LineageError
from mlops_assets.dataset import versioning
from mlops_assets.dataset.sources import observe
from mlops_assets.dataset.spec import RawDatasetSpec

ROWS = "".join(
    json.dumps({"id": f"t-{number}", "messages": [{"role": "user", "content": "hello"}]}) + "\n"
    for number in range(5)
)
pytestmark = pytest.mark.slow

HASH = hashlib.md5(ROWS.encode(), usedforsecurity=False).hexdigest()
HIDDEN = "do-not-show-this-key"


def run(folder: Path, *command: str) -> None:
    settings = {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site")}
    subprocess.run(command, cwd=folder, check=True, env=os.environ | settings, capture_output=True)


def dvc(folder: Path, *words: str) -> None:
    run(folder, sys.executable, "-m", "dvc", *words)


def configure(folder: Path, url: str | None, **options: str) -> None:
    lines = ["[core]", "    no_scm = true", "    analytics = false"]
    if url:
        lines += ["    remote = ours", "['remote \"ours\"']", f"    url = {url}"]
        lines += [f"    {name} = {value}" for name, value in options.items()]
    (folder / ".dvc").mkdir(parents=True, exist_ok=True)
    (folder / ".dvc/config").write_text("\n".join(lines) + "\n")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a pointer to data that is not there."""
    root = tmp_path / "checkout"
    configure(root, None)
    pointer = f"outs:\n- md5: {HASH}\n  size: {len(ROWS)}\n  hash: md5\n  path: rows.jsonl\n"
    (root / "rows.jsonl.dvc").write_text(pointer)
    monkeypatch.chdir(root)
    return root


def put_in(remote: Path, content: str, digest: str = HASH) -> None:
    """What ``dvc push`` writes."""
    place = remote / "files/md5" / digest[:2] / digest[2:]
    place.parent.mkdir(parents=True)
    place.write_text(content)


@pytest.fixture(params=["local", "s3"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, str]]:
    if request.param == "local":
        return str(tmp_path / "remote"), {}
    server = request.getfixturevalue("s3_server")
    server.client.create_bucket(Bucket="data")
    return "s3://data/dvc", {"endpointurl": server.url}


def test_what_one_pushes_another_gets(
    tmp_path: Path, remote: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    configure(mine, remote[0], **remote[1])
    (mine / "rows.jsonl").write_text(ROWS)
    dvc(mine, "add", "-q", "rows.jsonl")
    dvc(mine, "push", "-q")
    run(mine, "git", "init", "-q")
    run(mine, "git", "add", ".dvc/config", "rows.jsonl.dvc")
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    run(mine, "git", *identity, "commit", "-qm", "data")
    run(tmp_path, "git", "clone", "-q", str(mine), str(theirs))
    shutil.rmtree(mine)  # the remote alone holds the data now

    monkeypatch.chdir(theirs)
    assert versioning.current_version("rows.jsonl") == HASH  # known before it is here
    ref = observe(RawDatasetSpec(path="rows.jsonl"))
    assert (ref.version, ref.committed) == (HASH, True)
    assert Path(ref.path).read_text() == ROWS
    assert (theirs / ".dvc/cache").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kept", [True, False])
def test_what_a_pipeline_makes_is_pulled_or_else_made(
    tmp_path: Path, checkout: Path, kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    (checkout / "rows.jsonl.dvc").unlink()
    (tmp_path / "rows").write_text(ROWS)
    command = f"cp {tmp_path / 'rows'} rows.jsonl"
    (checkout / "dvc.yaml").write_text(
        f"stages:\n  s:\n    cmd: {command}\n    outs: [rows.jsonl]\n"
    )
    (checkout / "dvc.lock").write_text(
        f"schema: '2.0'\nstages:\n  s:\n    cmd: {command}\n    outs:\n"
        f"    - path: rows.jsonl\n      hash: md5\n      md5: {HASH}\n      size: {len(ROWS)}\n"
    )
    configure(checkout, str(tmp_path / "remote"))
    if kept:
        put_in(tmp_path / "remote", ROWS)
        (tmp_path / "rows").unlink()  # the pipeline would fail
    with caplog.at_level("INFO", "mlops_assets"):
        ref = observe(RawDatasetSpec(path="rows.jsonl"))
    assert (ref.version, ref.committed) == (HASH, True)
    assert ("Rebuilding it instead" in caplog.text) is not kept


S3 = "s3://data/dvc"
CLOSED = {"endpointurl": "http://127.0.0.1:9"}
KEYS = {"access_key_id": "mine", "secret_access_key": HIDDEN}


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        pytest.param(None, {}, r"no default remote.*dvc remote add", id="no remote"),
        pytest.param("{remote}", {}, r"does not hold [0-9a-f]{32}.*dvc push", id="not pushed"),
        pytest.param("gs://data", {}, r"not installed.*pip install", id="no support"),
        pytest.param(S3, CLOSED | KEYS, r"cannot be reached.*network", id="unreachable"),
        pytest.param(S3, CLOSED, r"no credentials.*AWS_ACCESS_KEY_ID", id="no credentials"),
    ],
)
def test_what_cannot_be_fetched_says_why(
    tmp_path: Path,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    url: str | None,
    options: dict[str, Any],
    said: str,
) -> None:
    no_keys_anywhere(monkeypatch, tmp_path)
    configure(checkout, url and url.format(remote=tmp_path / "remote"), **options)
    with pytest.raises(LineageError, match=said) as caught:
        observe(RawDatasetSpec(path="rows.jsonl"))
    assert HIDDEN not in str(caught.value)
    assert not (checkout / "rows.jsonl").exists()


def no_keys_anywhere(monkeypatch: pytest.MonkeyPatch, empty: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(empty / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


def test_a_remote_that_was_tampered_with_is_refused(tmp_path: Path, checkout: Path) -> None:
    configure(checkout, str(tmp_path / "remote"))
    put_in(tmp_path / "remote", ROWS.replace("hello", "jello"))
    with pytest.raises(LineageError, match=f"pins {HASH}|does not hold {HASH}"):
        observe(RawDatasetSpec(path="rows.jsonl"))
    assert not (checkout / "rows.jsonl").exists()


def test_a_remote_may_stand_in_the_private_settings(checkout: Path) -> None:
    assert not dvc_project.has_remote(checkout)
    (checkout / ".dvc/config.local").write_text("[core]\n    remote = mine\n")
    assert dvc_project.has_remote(checkout)
    (checkout / ".dvc/config").write_text("no section\n")
    with pytest.raises(LineageError, match="dvc remote"):
        dvc_project.has_remote(checkout)
