"""Trackers that tests install as plug-ins: one writes down what it hears, the others fail."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlops_assets.trackers import RunInfo


class Notes:
    """Writes down what it is told, as lines of JSON."""

    def __init__(self, run: RunInfo, directory: Path) -> None:
        self.path, self.run = directory / "notes.jsonl", run.id

    def write(self, kind: str, **said: Any) -> None:
        with self.path.open("a") as stream:
            stream.write(json.dumps({"kind": kind, "run": self.run} | said) + "\n")

    def log_params(self, params: Mapping[str, Any]) -> None:
        self.write("params", values={name: str(value) for name, value in params.items()})

    def log_metrics(self, metrics: Mapping[str, float], step: int | None) -> None:
        self.write("metrics", values=dict(metrics), step=step)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.write("tags", values=dict(tags))

    def log_files(self, folder: str, files: Sequence[Path]) -> None:
        digests = {f"{folder}/{p.name}": hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
        self.write("files", values=digests)

    def finish(self, status: str) -> None:
        self.write("finish", status=status)


class Broken(Notes):
    """Fails at what its name says, with a secret in the message."""

    at = ""

    def write(self, kind: str, **said: Any) -> None:
        if kind == self.at:
            raise ConnectionError("https://me:topsecret@tracker.example refused")
        super().write(kind, **said)


class BrokenStart(Broken):
    def __init__(self, run: RunInfo, directory: Path) -> None:
        super().__init__(run, directory)
        self.at = "start"
        self.write("start")


class BrokenParams(Broken):
    at = "params"


class BrokenMetrics(Broken):
    at = "metrics"


class BrokenFiles(Broken):
    at = "files"


class BrokenFinish(Broken):
    at = "finish"
