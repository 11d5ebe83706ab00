"""Sources at a pinned commit: the hub's endpoints that are used, and an S3 API server.

lakeFS' gateway is S3 with the repository as bucket and the commit before the path, so a bucket
laid out like that stands for it here.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from mlops_assets.artifacts import LineageError
from mlops_assets.dataset import versioning
from mlops_assets.dataset.pinned_sources import PinnedSource, parse
from mlops_assets.dataset.sources import observe
from mlops_assets.dataset.spec import RawDatasetSpec
from mlops_assets.home import Home
from mlops_assets.refs import RawDatasetRef
from mlops_assets_tests.conftest import S3Server

ROWS = b'{"id":"1","messages":[{"role":"user","content":"hello"}]}\n'
COMMIT, LAKE_COMMIT = "0123456789" * 4, "0123456789abcdef" * 4
HUB = f"hf://datasets/team/tickets@{COMMIT}"
FILES = {
    "data/rows.jsonl": ROWS,
    "csv/train.csv": b"text,category\nhello,greeting\n",
    "csv/test.csv": b"text,category\nbye,parting\n",
    "csv/load.py": b"raise SystemExit\n",
    "large.jsonl": ROWS * 100,
}


class Hub(BaseHTTPRequestHandler):
    """The endpoints of the hub that the client calls for a dataset at a commit."""

    asked: list[str]
    served: dict[str, bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append(self.path)
        known = [name for name in parse_qs(body)["paths"] if name in FILES]
        self._answer(json.dumps([entry(name) for name in known]).encode())

    def do_GET(self) -> None:
        self.asked.append(self.path)
        where, _, path = self.path.partition(f"/{COMMIT}/")
        if where == "/api/datasets/team/tickets/tree":
            found = [name for name in FILES if name.startswith(path.partition("?")[0])]
            self._answer(json.dumps([entry(name) for name in found]).encode())
        elif where == "/datasets/team/tickets/resolve" and path in self.served:
            self._answer(self.served[path], ETag=f'"{blob(FILES[path])}"')
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET

    def _answer(self, content: bytes, **headers: str) -> None:
        self.send_response(200)
        for name, value in {"X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def entry(name: str) -> dict[str, Any]:
    content = FILES[name]
    found = {"type": "file", "path": name, "size": len(content), "oid": blob(content)}
    if name == "large.jsonl":  # as the hub describes what Git LFS keeps
        digest = hashlib.sha256(content).hexdigest()
        found["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
    return found


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, home: Home) -> Iterator[type[Hub]]:
    Hub.asked, Hub.served = [], dict(FILES)
    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield Hub
        server.shutdown()
        thread.join()


def seen(path: str, **settings: str) -> RawDatasetRef:
    return observe(RawDatasetSpec(path=path, **settings))


@pytest.mark.parametrize("name", ["data/rows.jsonl", "large.jsonl"])
def test_a_file_of_the_hub_is_downloaded_once(hub: type[Hub], name: str) -> None:
    address = f"{HUB}/{name}"
    assert versioning.current_version(address) == address  # a look downloads nothing
    assert not hub.asked
    ref = seen(address)
    assert Path(ref.path).read_bytes() == FILES[name]
    assert (ref.source, ref.committed) == (address, True)
    assert ref.version == versioning.dvc_hash(Path(ref.path)) == versioning.current_version(address)
    asked = len(hub.asked)
    assert seen(address) == ref
    assert len(hub.asked) == asked


def test_a_folder_of_the_hub_comes_without_its_scripts(hub: type[Hub]) -> None:
    ref = seen(f"{HUB}/csv/", format="labelled_csv")
    assert {path.name for path in Path(ref.path).iterdir()} == {"train.csv", "test.csv"}
    assert not any("load.py" in path for path in hub.asked)


def test_a_source_that_was_changed_here_is_refused(hub: type[Hub]) -> None:
    path = Path(seen(f"{HUB}/data/rows.jsonl").path)
    path.write_bytes(ROWS * 2)
    with pytest.raises(LineageError, match="was changed after it was built"):
        seen(f"{HUB}/data/rows.jsonl")


def test_what_arrives_otherwise_than_described_is_refused(hub: type[Hub], home: Home) -> None:
    hub.served["data/rows.jsonl"] = ROWS.replace(b"1", b"2")
    with pytest.raises(LineageError, match="did not arrive as the hub describes it"):
        seen(f"{HUB}/data/rows.jsonl")
    assert not list(home.root.glob("artifacts/source/*"))


def test_what_the_hub_does_not_have(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LineageError, match=r"holds no data file.*commit and path"):
        seen(f"{HUB}/data/other.jsonl")
    with pytest.raises(LineageError, match=r"does not exist, or needs an HF_TOKEN"):
        seen(f"hf://datasets/team/none@{COMMIT}/folder/")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(LineageError, match=r"cannot be fetched from the hub.*network"):
        seen(f"{HUB}/large.jsonl")


@pytest.fixture
def lake(s3_server: S3Server, home: Home, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    s3_server.client.create_bucket(Bucket="tickets")
    for name, content in FILES.items():
        key = f"{LAKE_COMMIT}/{name}"
        s3_server.client.put_object(Bucket="tickets", Key=key, Body=content)
    monkeypatch.setenv("LAKECTL_SERVER_ENDPOINT_URL", f"{s3_server.url}/api/v1")
    monkeypatch.setenv("LAKECTL_CREDENTIALS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("LAKECTL_CREDENTIALS_SECRET_ACCESS_KEY", "do-not-show")
    return s3_server


def test_lakefs_at_a_commit(lake: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"lakefs://tickets/{LAKE_COMMIT}"
    file, folder = f"{address}/data/rows.jsonl", f"{address}/csv/"
    ref = seen(file)
    assert Path(ref.path).read_bytes() == ROWS
    assert (ref.source, ref.committed) == (file, True)
    tables = Path(seen(folder, format="labelled_csv").path)
    assert {path.name for path in tables.iterdir()} == {"train.csv", "test.csv"}
    with pytest.raises(LineageError, match="does not exist"):
        seen(f"{address}/data/other.jsonl")
    monkeypatch.setenv("LAKECTL_SERVER_ENDPOINT_URL", "http://127.0.0.1:9")
    assert seen(file) == ref  # it is here already
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(LineageError, match=r"cannot be reached") as caught:
        seen(f"{address}/large.jsonl")
    assert "do-not-show" not in str(caught.value)
    monkeypatch.delenv("LAKECTL_CREDENTIALS_SECRET_ACCESS_KEY")
    with pytest.raises(LineageError, match="LAKECTL_CREDENTIALS_SECRET_ACCESS_KEY"):
        seen(f"{address}/large.jsonl")


def test_s3_at_a_version(s3_server: S3Server, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    client = s3_server.client
    client.create_bucket(Bucket="raw")
    status = {"Status": "Enabled"}
    client.put_bucket_versioning(Bucket="raw", VersioningConfiguration=status)
    first, _ = (
        client.put_object(Bucket="raw", Key="rows.jsonl", Body=body)["VersionId"]
        for body in (ROWS, ROWS * 2)
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.url)
    ref = seen(f"s3://raw/rows.jsonl?versionId={first}")
    assert Path(ref.path).read_bytes() == ROWS
    with pytest.raises(LineageError, match=r"does not exist|refused"):
        seen("s3://raw/rows.jsonl?versionId=another")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("hf://datasets/team/tickets@main/rows.jsonl", "pins no commit.*40 hex digits"),
        (f"hf://datasets/team/tickets@{COMMIT[:7]}/rows.jsonl", "pins no commit"),
        ("lakefs://tickets/main/rows.jsonl", "pins no commit.*64 hex digits"),
        ("s3://raw/rows.jsonl", "pins no commit.*versionId"),
        ("s3://raw/rows.jsonl?versionId=null", "pins no commit"),
        (f"{HUB}/load.py", "not a data file; scripts and pickles are never fetched"),
        (f"{HUB}/rows.pkl", "not a data file"),
        (f"{HUB}/../../other/rows.jsonl", "not a plain one"),
        ("s3://raw/folder/?versionId=1", "a folder, which has no version"),
        (f"hf://team/tickets@{COMMIT}/rows.jsonl", "no address that we can read.*OWNER"),
        ("https://user:do-not-show@example.org/rows.jsonl", "no address that we can read"),
    ],
)
def test_addresses_that_are_refused(address: str, said: str) -> None:
    with pytest.raises(LineageError, match=said) as caught:
        parse(address)
    assert "do-not-show" not in str(caught.value)


@pytest.mark.parametrize("path", ["data/raw/tickets.jsonl", "/data/x", "C:/x", "~/x.jsonl"])
def test_a_path_is_no_address(path: str) -> None:
    assert parse(path) is None


@pytest.mark.parametrize(
    "address",
    [f"{HUB}/a/b.parquet", f"lakefs://repo/{LAKE_COMMIT}/a/", "s3://raw/a/b.csv?versionId=x.Y_1"],
)
def test_an_address_is_written_as_it_was_read(address: str) -> None:
    assert str(parse(address)) == address
    assert isinstance(parse(address), PinnedSource)
