"""Lessons that repeat one another, contradict one another, or stand where nothing may be learnt.

What is held out is the validation and test split and every suite. What stands in the train split
is known already: as a row it would teach nothing, as a case it would ask what was learnt. Exact is
by the text ignoring case and spacing, near by the similarity of ``near_duplicates`` that the
splits themselves are held to.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from mlops_assets.artifacts import ArtifactStore, LineageError
from mlops_assets.monitoring.feedback.echoes import same_answer
from mlops_assets.monitoring.feedback.screening import Draft
from mlops_assets.near_duplicates import Signatures, normalised
from mlops_assets.refs import SplitsRef, read_rows

HELD_OUT = ("validation", "test")


@dataclass(frozen=True)
class Known:
    """Texts that stand somewhere already, as ``normalised`` gives them."""

    held_out: tuple[str, ...]
    train: tuple[str, ...]
    similarity: float


def read_known(
    store: ArtifactStore, splits: SplitsRef, suites: Path | None, ours: frozenset[str]
) -> Known:
    """The texts of splits and suites. ``ours`` are ids of rows that feedback itself gave before.

    Raises LineageError for suites that cannot be read: nothing may be learnt unseen.
    """
    folder = store.path(splits.artifact)

    def texts(name: str) -> Iterator[str]:
        for row in read_rows(folder / f"{name}.jsonl"):
            if row.id not in ours:
                yield _text(row.prompt)

    held_out = [text for name in HELD_OUT for text in texts(name)]
    held_out += _suite_texts(suites) if suites else []
    similarity = float(splits.artifact.summary["limits"]["near_duplicate_similarity"])
    return Known(tuple(dict.fromkeys(held_out)), tuple(dict.fromkeys(texts("train"))), similarity)


def compare(drafts: Sequence[Draft], known: Known, scratch: Path) -> list[Draft]:
    """The drafts, in order of time, with the reasons that other texts give; works in ``scratch``,
    an empty directory."""
    drafts = _contradictions(drafts)
    drafts = _exact(drafts, set(known.held_out), set(known.train))
    return _near(drafts, known, scratch)


def _contradictions(drafts: Sequence[Draft]) -> list[Draft]:
    """Of one person the last answer to a text counts; of two who differ neither does."""
    by_text: dict[str, list[int]] = {}
    for place, draft in enumerate(drafts):
        if not draft.reason:
            by_text.setdefault(draft.text, []).append(place)
    found = list(drafts)
    for places in by_text.values():
        last = {drafts[place].lesson.person: drafts[place].answer for place in places}
        first, *others = last.values()
        agreed = all(same_answer(first, other) for other in others)
        for place in places:
            if not same_answer(drafts[place].answer, last[drafts[place].lesson.person]):
                found[place] = replace(drafts[place], reason="taken_back")
            elif not agreed:
                found[place] = replace(drafts[place], reason="contradicted")
    return found


def _exact(drafts: Sequence[Draft], held_out: set[str], train: set[str]) -> list[Draft]:
    seen: set[str] = set()
    found = []
    for draft in drafts:
        reason = draft.reason
        if not reason:
            text = draft.text
            places = {"in_eval_set": held_out, "in_training": train, "duplicate_text": seen}
            reason = next((why for why, texts in places.items() if text in texts), "")
            seen.add(text)
        found.append(replace(draft, reason=reason))
    return found


def _near(drafts: Sequence[Draft], known: Known, scratch: Path) -> list[Draft]:
    places = [place for place, draft in enumerate(drafts) if not draft.reason]
    texts = [*known.held_out, *known.train, *(drafts[place].text for place in places)]
    held_out, first = len(known.held_out), len(known.held_out) + len(known.train)

    def worth(_: Any, later: Any) -> Any:
        return later >= first

    partners: dict[int, set[int]] = {}
    if places:
        for earlier, later in Signatures(scratch, texts, known.similarity).near_pairs(worth):
            for one, other in zip(earlier.tolist(), later.tolist(), strict=True):
                partners.setdefault(other, set()).add(one)
    reasons = [""] * len(places)
    for number in sorted(partners):
        near = [one for one in partners[number] if one < first or not reasons[one - first]]
        if near:
            reasons[number - first] = _why_near(min(near), held_out, first)
    found = list(drafts)
    for place, reason in zip(places, reasons, strict=True):
        found[place] = replace(drafts[place], reason=reason)
    return found


def _why_near(partner: int, held_out: int, first: int) -> str:
    if partner < held_out:
        return "near_eval_set"
    return "in_training" if partner < first else "near_duplicate"


def _suite_texts(folder: Path) -> list[str]:
    """What the items of every suite in ``folder`` ask."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise LineageError(
            f"There are no suites in {folder}.",
            "Set feedback_rows' `suites` as eval_report's; '' where there are none.",
        )
    found = []
    for file in files:
        try:
            items = file.with_name(str(yaml.safe_load(file.read_text("utf-8"))["items"]))
            lines = [line for line in items.read_text("utf-8").split("\n") if line.strip()]
            found += [_text(json.loads(line)["messages"]) for line in lines]
        except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
            raise LineageError(
                f"The suite {file} cannot be read ({type(error).__name__}), so nothing says what"
                " must not be learnt.",
                "Mend it, or bring its items with `dvc repro data/dvc.yaml` or `dvc pull`.",
            ) from error
    return found


def _text(messages: Sequence[Mapping[str, Any]]) -> str:
    """What is asked last, whatever instructions stand before it."""
    return normalised(str(messages[-1]["content"] or ""))
