"""`mlops reproduce`: the same bytes from a version's commit."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import pytest

from mlops_assets.dataset import expectations, sources, splits, validation
from mlops_assets.dataset.spec import RawDatasetSpec
from mlops_assets.dataset.synthetic import LABELS
from mlops_assets.home import Home
from mlops_assets.profiles import PROJECT
from mlops_assets.promotion.submission import Submission
from mlops_assets.provenance import find_provenance
from mlops_assets.reproduction import (
    reproduce,
)
from mlops_assets.reproduction_verdict import IDENTICAL
from mlops_assets.training.base_model import provide
from mlops_assets.training.finetune import finetune
from mlops_assets.training.spec import BaseModelSpec, FinetuneSpec
from mlops_assets_tests.checkouts import git
from mlops_assets_tests.small_training import no_tracker
from mlops_assets_tests.submissions import NAME, register, submit

DATA = "data/mine.jsonl"
TINY = {"vocabulary": 400, "hidden_size": 32, "mlp_size": 64, "heads": 1, "seed": 3}
FAST = {"rank": 8, "alpha": 8, "epochs": 1, "pack_tokens": 256, "learning_rate": 1e-2}


def ticket(number: int) -> str:
    answer = {name: values[number % len(values)] for name, values in LABELS.items()}
    return json.dumps(
        {
            "id": f"t-{number}",
            "timestamp": "2026-01-01T00:00:00Z",
            "customer_id": f"c-{number}",
            "messages": [
                {"role": "system", "content": "Answer with JSON."},
                {"role": "user", "content": f"question {number} about {answer['product']}"},
                {"role": "assistant", "content": json.dumps(answer)},
            ],
        }
    )


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of this project with the code as it stands now, all of it committed."""
    root = tmp_path / "checkout"
    git(tmp_path, "clone", "-q", "--depth", "1", PROJECT.as_uri(), str(root))
    for name in ("mlops_assets", "requirements"):
        shutil.rmtree(root / name)
        shutil.copytree(PROJECT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    rows = "".join(ticket(number) + "\n" for number in range(240)).encode()
    digest = hashlib.md5(rows, usedforsecurity=False).hexdigest()
    (root / DATA).write_bytes(rows)
    (root / f"{DATA}.dvc").write_text(f"outs:\n- md5: {digest}\n  path: mine.jsonl\n")
    (root / "data/.gitignore").write_text("mine.jsonl\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "now", "--allow-empty")
    monkeypatch.chdir(root)
    return root


def train(home: Home) -> Submission:
    """An adapter that was really trained; what its report says does not matter here."""
    store = home.store
    checks = expectations.ValidationSpec(min_rows=1, slices=[])
    raw = sources.observe(RawDatasetSpec(path=DATA, feedback="${MLOPS_HOME}/feedback"))
    validated = validation.validate(store, raw, checks)
    divided = splits.split(store, validated, splits.SplitSpec())
    base = provide(store, divided, BaseModelSpec(**TINY))
    tuned = finetune(store, divided, base, FinetuneSpec(**FAST), no_tracker, "dagster-run")
    return submit(store, divided, base, tuned)


@pytest.mark.slow
def test_a_version_comes_out_the_same_from_its_commit(
    tracked_home: Home, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [json.loads(ticket(number)) | {"group": f"u{number}"} for number in (900, 901)]
    rows = tracked_home.root / "feedback" / "training.jsonl"
    rows.parent.mkdir()
    rows.write_text("".join(json.dumps(row) + "\n" for row in said))
    case = train(tracked_home)
    number = register(tracked_home, case, find_provenance(checkout / "mlops_assets"))
    # What happens in the checkout afterwards does not matter.
    (checkout / "mlops_assets/training/spec.py").write_text("broken")
    md5 = hashlib.md5(rows.read_bytes(), usedforsecurity=False).hexdigest()
    (cached := rows.parent / ".dvc/cache/files/md5" / md5[:2]).mkdir(parents=True)
    shutil.move(rows, cached / md5[2:])
    rows.write_text("what people say later\n")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    result = reproduce(tracked_home, number, NAME, checkout)
    assert result.verdict == IDENTICAL
    for step, (registered, rebuilt) in result.digests.items():
        assert registered == rebuilt, step
    assert result.digests["data"][1].endswith(f"+{md5}")
    assert result.digests["adapter"][0] == case.adapter.artifact.digest
    assert result.metrics["train_loss"][0] == result.metrics["train_loss"][1]
    assert not list((tmp_path / "elsewhere").iterdir())
    assert len(git(checkout, "worktree", "list").splitlines()) == 1


# --- what is refused -------------------------------------------------------------------------
