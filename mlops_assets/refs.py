"""The frozen types that cross stages; ``ref_json`` writes refs as JSON.

What one asset hands to the next is one of these, never a dict and never a pickle. Every
``...Ref`` names an artifact; the bytes stay in the artifact store.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import Artifact, digest_json

ROW_FORMAT = "1"
"""Part of every code digest: raise it when ``Row`` or its JSON means something else."""

Message = Mapping[str, Any]
"""``{"role": ..., "content": ...}``, as in the OpenAI chat format.

``content`` is text; beside it ``tool_calls``, ``tool_call_id`` and ``name`` where the source has
them. Where the source has no content (a turn that only calls tools) it is empty."""

Settings = Mapping[str, Mapping[str, Any]]
"""Run config of the assets that led to a ref, by asset name, defaults included: what it takes,
beside the code and the data, to make it again."""


@dataclass(frozen=True)
class Row:
    """One validated conversation; its last message is the answer to be learnt."""

    id: str
    timestamp: str
    """ISO 8601 in UTC, or empty where the source has none."""
    group: str
    """Rows of one group (a customer) always stand in the same split."""
    messages: tuple[Message, ...]
    slices: Mapping[str, str]
    """Value of each slicing dimension, such as ``{"channel": "email"}``."""
    split: str | None = None
    """``train`` or ``test`` where the source fixes it, else decided by the group's hash."""
    rejected: Message | None = None
    """The worse answer of a preference pair; the better one is the last message."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """JSON schemas of the functions the assistant may call, in the OpenAI form."""

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The conversation before the answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The reference answer: a JSON object with the fields of ``SplitsRef.labels``, if any."""
        return str(self.messages[-1]["content"])


@dataclass(frozen=True)
class PredictionRecord:
    """One request that production answered; a line of a prediction log segment."""

    id: str
    timestamp: str
    release: str
    """Digest of the bundle that answered, or ``simulated``."""
    messages: tuple[Message, ...]
    output: str
    slices: Mapping[str, str] = field(default_factory=dict)


def write_jsonl(path: Path, items: Iterable[object]) -> int:
    """Write dataclasses as JSON lines; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8") as stream:
        for item in items:
            stream.write(json.dumps(asdict(item), ensure_ascii=False) + "\n")  # type: ignore[call-overload]
            count += 1
    return count


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a split or of ``rows.jsonl``."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield Row(**json.loads(line))


@dataclass(frozen=True)
class Versions:
    """The data, prompts and eval set that a downstream artifact was really made from.

    An artifact keeps them in its manifest's summary, so one that is found in the store says
    what it was built from then, not what was asked for now.
    """

    data: str
    """DVC's hash of the raw data."""
    prompts: str
    """SHA-256 of the distinct prompts that rows carry: see ``dataset.splits.prompts_digest``."""
    eval_set: str
    """SHA-256 of the file ``test.jsonl`` of the splits; of that and the suites' digests once a
    release was measured on suites too."""

    @classmethod
    def of(cls, artifact: Artifact) -> "Versions":
        """The versions in the summary of an artifact."""
        return cls(**artifact.summary["versions"])

    def by_name(self) -> dict[str, str]:
        """The versions under the names that metadata, MLflow and the registry's tags show."""
        return {
            "dataset_hash": self.data,
            "prompts_hash": self.prompts,
            "eval_set_hash": self.eval_set,
        }


@dataclass(frozen=True)
class RawDatasetRef:
    """A version of the source data, where it was found."""

    version: str
    """DVC's hash: md5 of the file, or with ``.dir`` of the listing; behind a ``+`` feedback's."""
    path: str
    """Absolute path of the file or directory."""
    committed: bool
    """Whether the DVC lock file or pointer names this very hash, or a pinned source this data."""
    files: Mapping[str, int]
    """Size in bytes of each file, by path relative to ``path`` (or its own name)."""
    format: str = "messages"
    """How it is written: one of ``dataset.formats.FORMATS``, never ``auto``."""
    mapping: Mapping[str, str] = field(default_factory=dict)
    """Column of the source by our name for it, where the two differ."""
    source: str = ""
    """Address of the pinned source that it was downloaded from, if it was."""
    feedback: str = ""
    """Absolute path of the feedback rows that stand after the source's, if there are any."""
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class ValidatedRef:
    """Rows that passed (``rows.jsonl``) and rows that did not (``quarantine.jsonl``)."""

    artifact: Artifact
    dataset: str
    rows_in: int
    rows: int
    quarantined: Mapping[str, int]
    """Rows by reason; ``rows_in == rows + sum(quarantined.values())``."""
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The vocabulary of each field of the answer, in the order the answer writes them."""
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class SplitsRef:
    """``train.jsonl``, ``validation.jsonl``, ``test.jsonl`` in the form of ``Row``."""

    artifact: Artifact
    versions: Versions
    rows: Mapping[str, int]
    labels: Mapping[str, tuple[str, ...]]
    """The vocabulary of each field of the answer, in the order the answer writes them."""
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class BaseModelRef:
    """A causal language model with tokenizer and chat template, safetensors only."""

    artifact: Artifact
    name: str
    parameters: int
    versions: Versions | None = None
    """What it was pretrained on here; None for a model that comes from elsewhere."""
    settings: Settings = field(default_factory=dict)
    license: str = "unknown"
    """SPDX expression, ``unknown`` where nobody states one."""


@dataclass(frozen=True)
class AdapterRef:
    """A PEFT adapter over one base model."""

    artifact: Artifact
    base: Artifact
    versions: Versions
    mlflow_run: str
    dagster_run: str
    """The runs that trained it, which may be earlier than the one that asked for it."""
    prompt: Artifact | None = None
    """The system prompt that it was trained with; None in refs from before there were any."""


@dataclass(frozen=True)
class ReleaseBundle:
    """What is approved, served and rolled back. Any changed byte is another bundle."""

    base: Artifact
    adapter: Artifact
    chat_template: str
    """SHA-256 of the tokenizer and chat template files."""
    prompt: Artifact | str
    """The system prompt, one that adds nothing included; in bundles from before prompts were
    artifacts the SHA-256 of its text."""
    generation: Mapping[str, Any]
    versions: Versions
    """The data and prompts that trained the adapter, the eval set that measured it."""

    @property
    def prompt_digest(self) -> str:
        """Of the prompt's file and the text that it renders to: 64 hex digits."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt.digest

    @property
    def digest(self) -> str:
        """The bundle's name: 64 hex digits."""
        return digest_json(
            {
                "base": self.base.digest,
                "adapter": self.adapter.digest,
                "chat_template": self.chat_template,
                "prompt": self.prompt_digest,
                "generation": dict(self.generation),
            }
        )


@dataclass(frozen=True)
class EvalReportRef:
    """``report.json``, ``report.html`` and the predictions behind them."""

    artifact: Artifact
    bundle: ReleaseBundle
    """The candidate that was measured."""
    champion: str | None
    """Digest of the bundle it was compared with, if there was one."""


@dataclass(frozen=True)
class GateRef:
    """``gate.json``, its summary in Markdown and its JUnit XML."""

    artifact: Artifact
    bundle: ReleaseBundle
    """The candidate that was judged."""
    report: Artifact
    """The evaluation report that the gate read."""
    champion: str | None
    """Digest of the bundle it was compared with, if there was one."""
    verdict: str
    """``PASS``, ``FAIL`` or ``INCONCLUSIVE``: see ``verdicts``."""


@dataclass(frozen=True)
class RegisteredModelRef:
    """A version in the MLflow registry."""

    name: str
    version: int
    bundle: ReleaseBundle
    report: Artifact


@dataclass(frozen=True)
class DecisionRef:
    """What became of a registered version: where its request for approval stood then."""

    entry: int
    """The ledger row of the request, or of the promotion that left nothing to ask; 0 without."""
    state: str
    """``open``, ``rejected``, ``promoted``, ``rolled_back``, ``inconclusive`` or ``fail``."""
    version: int
    bundle: str
    """Digest of the release bundle."""
    expires: str
    """ISO 8601 in UTC; empty where there was nothing to ask."""
