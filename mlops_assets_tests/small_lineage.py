"""Raw data to eval report in seconds, stage by stage on one store, without Dagster.

It imports the stages when it is called, so that a process can run it on a changed package:
``python -m mlops_assets_tests.small_lineage STORE DATA`` reads edits as JSON lines, makes each
in the package it runs, and answers with what was built again.
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

WORDS = {"billing": "invoice charged twice", "shipping": "parcel late", "login": "password lost"}
SETTINGS: dict[str, dict[str, Any]] = {
    "validated_dataset": {"labels": {"queue": []}, "slices": [], "min_rows": 10, "privacy": {}},
    "dataset_splits": {"validation_share": 0.2, "test_share": 0.2},
    "base_model": {"vocabulary": 300, "hidden_size": 16, "mlp_size": 32, "layers": 1, "heads": 1},
    "lora_adapter": {"rank": 4, "alpha": 4, "epochs": 1, "pack_tokens": 256},
    "eval_report": {"max_new_tokens": 6, "latency_requests": 1, "ragas_rows": 2, "suites": ""},
}
STAGES = tuple(SETTINGS)


def ticket(number: int, text: str = "") -> dict[str, Any]:
    """A line of the raw data."""
    queue = list(WORDS)[number % 3]
    asked = text or f"Hello, {WORDS[queue]}, my number is {number}{number % 7}"
    answer = json.dumps({"queue": queue})
    return {
        "id": f"t{number}",
        "timestamp": "2026-01-01T00:00:00Z",
        "customer_id": f"c{number}",
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": answer},
        ],
    }


def write_tickets(path: Path, tickets: list[dict[str, Any]]) -> Path:
    """The raw data as a file."""
    path.write_text("".join(f"{json.dumps(item)}\n" for item in tickets), encoding="utf-8")
    return path


def rebuilt(store_at: Path, data: Path, **changes: dict[str, Any]) -> set[str]:
    """Run every stage; returns those whose artifact was not found in the store.

    ``changes`` are settings by asset, beside ``SETTINGS``.
    """
    made = build_all(store_at, data, **changes)
    return {name for name, ref in made.items() if not ref.artifact.reused}


def build_all(store_at: Path, data: Path, **changes: dict[str, Any]) -> dict[str, Any]:
    """Run every stage; returns what each hands to the next, by asset."""
    from mlops_assets.artifacts import ArtifactStore
    from mlops_assets.dataset import expectations, sources, splits, validation
    from mlops_assets.dataset.spec import RawDatasetSpec
    from mlops_assets.evaluation import report
    from mlops_assets.evaluation.spec import EvaluationSpec
    from mlops_assets.trackers import TrackedRun
    from mlops_assets.training import base_model, finetune, spec

    store = ArtifactStore(store_at)
    given = {name: SETTINGS[name] | changes.get(name, {}) for name in STAGES}
    raw = sources.observe(RawDatasetSpec(path=str(data)))
    valid = validation.validate(
        store, raw, expectations.ValidationSpec(**given["validated_dataset"])
    )
    parts = splits.split(store, valid, splits.SplitSpec(**given["dataset_splits"]))
    base = base_model.provide(store, parts, spec.BaseModelSpec(**given["base_model"]))
    tune = spec.FinetuneSpec(**given["lora_adapter"])
    run = TrackedRun("run")
    adapter = finetune.finetune(store, parts, base, tune, lambda: nullcontext(run), "run")
    measure = EvaluationSpec(**given["eval_report"])
    evaluated = report.evaluate(store, parts, base, adapter, None, measure, lambda *_: None)
    made = (valid, parts, base, adapter, evaluated)
    return dict(zip(STAGES, made, strict=True))


def _forget_package() -> None:
    """The next import reads the package's files again."""
    for name in [name for name in sys.modules if name.split(".")[0] == "mlops_assets"]:
        del sys.modules[name]


def main() -> None:
    """Make the edits that standard input names, one after the other, each one undone."""
    import mlops_assets

    package = Path(mlops_assets.__file__).parent
    store_at, data = Path(sys.argv[1]), Path(sys.argv[2])
    for line in sys.stdin:
        edit = json.loads(line)
        path = package / edit["file"]
        before = path.read_text(encoding="utf-8")
        if edit["old"] not in before:
            sys.exit(f"{edit['old']!r} does not stand in {path}")
        path.write_text(before.replace(edit["old"], edit["new"], 1), encoding="utf-8")
        _forget_package()
        print("rebuilt", json.dumps(sorted(rebuilt(store_at, data))), flush=True)
        path.write_text(before, encoding="utf-8")


if __name__ == "__main__":
    main()
