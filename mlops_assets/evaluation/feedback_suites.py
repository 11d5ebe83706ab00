"""The cases that people's corrections gave, as one more suite.

The asset ``feedback_rows`` writes them, and DVC pins each version: what is asked is what was
pinned. A case that the candidate was trained on would measure its memory, so it is not asked.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import yaml

from mlops_assets.artifacts import LineageError
from mlops_assets.evaluation.spec import EvaluationSpec
from mlops_assets.evaluation.suite_scores import find_learnt, plain
from mlops_assets.evaluation.suites import Suite, read_suite, suite_folder, suite_of, unfit_suite

logger = logging.getLogger(__name__)


def read_feedback_suites(
    spec: EvaluationSpec, fields: tuple[str, ...], tools: bool, train: Path, others: Sequence[Suite]
) -> list[Suite]:
    """The suites in the directory that the settings name; none before anybody corrected anything.

    ``train`` is the file of the train split. Raises LineageError for cases that are not those
    that DVC has pinned, for a name that one of the ``others`` has, and as ``read_suites`` does.
    """
    if not spec.feedback_suites:
        return []
    files = sorted(suite_folder(spec.feedback_suites).glob("*.yaml"))
    suites = [_read(file, fields, tools) for file in files]
    taken = {suite.name for suite in others}
    if twice := [file for file in files if file.stem in taken]:
        raise LineageError(
            f"{twice[0]} has the name of another suite.", "Rename the one in `suites`."
        )
    return [_asked(suite, spec.minimum_feedback_cases, train) for suite in suites]


def _read(file: Path, fields: tuple[str, ...], tools: bool) -> Suite:
    suite = read_suite(file, fields, tools)
    if not suite.unfit:
        _require_pinned(file.with_name(suite.spec.items))
    return suite


def _asked(suite: Suite, least: int, train: Path) -> Suite:
    """The suite without what the train split holds; unfit where too little is left."""
    if suite.unfit:
        return suite
    texts = [plain(row) for row in suite.rows]
    learnt = find_learnt(set(texts), train)
    left = [item for item, text in zip(suite.items, texts, strict=True) if text not in learnt]
    if learnt:
        logger.warning(
            "%d cases of the suite %s stand in the train split and are not asked",
            len(texts) - len(left),
            suite.name,
        )
    if len(left) < least:
        return unfit_suite(
            suite.name, suite.spec, f"{len(left)} cases are too few: it is asked from {least} on"
        )
    return suite_of(suite.name, suite.spec, left)


def _require_pinned(items: Path) -> None:
    pointer = items.with_name(f"{items.name}.dvc")
    try:
        pinned = yaml.safe_load(pointer.read_text("utf-8"))["outs"][0]["md5"]
        found = hashlib.md5(items.read_bytes(), usedforsecurity=False).hexdigest()
    except (OSError, ValueError, yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        raise LineageError(
            f"{pointer} does not say which version of {items.name} is in force"
            f" ({type(error).__name__}).",
            "Materialise `feedback_rows` again.",
        ) from error
    if found != pinned:
        raise LineageError(
            f"{items} is not the version that DVC has pinned ({pinned}).",
            "Materialise `feedback_rows` again, or `mlops feedback restore` a version.",
        )
