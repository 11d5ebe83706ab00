"""What may be deleted from a home, and why the rest may not.

Kept is, with everything it names and was made from: what a decision in force names (promoted,
requested, approved, passed), what a latest ref names, what a registered version that stays
names, the newest of each kind, and what is young. Of a candidate that did not pass the evidence
is kept for good, its weights are not. Anything else may go.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mlops_assets.artifacts import MANIFEST, SHORT
from mlops_assets.home import LATEST, Home
from mlops_assets.ledger import FAILED, INCONCLUSIVE, KEPT, NO_VERDICT, REJECTED, LedgerEntry
from mlops_assets.promotion.registered_versions import UPLOAD_DEPTH, RegistryVersion
from mlops_assets.promotion.safe_files import directory_size
from mlops_assets.promotion.sealed_names import Names, Sealed, read_store, texts
from mlops_assets.promotion.spec import RetentionSpec
from mlops_assets.prunable import Decided, Decisions, Item

logger = logging.getLogger(__name__)

REFUSED = {FAILED, INCONCLUSIVE, REJECTED, KEPT, NO_VERDICT}
"""Outcomes after which a candidate's weights are needed no more; any other is in force."""
FINDINGS = {"leakage_report"}
"""Kinds that nothing names, though a gate's criterion rests on them: they stay with what they
were found of."""
WEIGHTS = {"base_model", "lora_adapter", "mlflow_model", "served_model"}
ARTIFACT, VERSION, UPLOAD, CHECKPOINT, UNFINISHED, TRASH = (
    *("artifact", "version", "upload", "checkpoint"),
    *("unfinished", "trash"),
)


NO_OTHERS = Decisions((), ())


@dataclass(frozen=True)
class Plan:
    """What may go and what stays."""

    delete: tuple[Item, ...]
    keep: tuple[Item, ...]

    @property
    def size(self) -> int:
        """Bytes that deleting would free."""
        return sum(item.size for item in self.delete)


@dataclass(frozen=True)
class _Rules:
    """The spec at one moment."""

    spec: RetentionSpec
    now: datetime

    def young(self, made: datetime) -> str | None:
        """Why something of this age stays, or None."""
        if self.now - made < timedelta(days=self.spec.keep_days):
            return f"younger than {self.spec.keep_days} days"
        return None


def make_plan(
    home: Home,
    spec: RetentionSpec,
    versions: Sequence[RegistryVersion],
    now: datetime,
    others: Decisions = NO_OTHERS,
) -> Plan:
    """Decide about everything in ``home``. ``versions`` are all in its registry; ``others`` are
    what a stage decided about its own files.

    Raises LineageError when the ledger cannot be read: what it names is then not known.
    """
    entries, rules = home.ledger.entries(), _Rules(spec, now)
    kept_versions = dict(_kept_versions(home, versions, entries, rules))
    store = read_store(home.store)
    kept = _kept_artifacts(home, store, entries, kept_versions, rules, others.names)
    items = [
        *_version_items(versions, kept_versions),
        *_upload_items(home, versions, kept_versions, rules),
        *(_artifact_item(sealed, kept.get(sealed)) for sealed in store),
        *_checkpoint_items(home, store, rules),
        *_leftovers(home),
        *others.items,
    ]
    return Plan(
        tuple(item for item, stays in items if not stays),
        tuple(item for item, stays in items if stays),
    )


def _kept_versions(
    home: Home,
    versions: Sequence[RegistryVersion],
    entries: Sequence[LedgerEntry],
    rules: _Rules,
) -> Iterator[tuple[RegistryVersion, str]]:
    """Registered versions that stay, with the reason."""
    inforce = {row.decision.bundle.digest: row for row in entries if _in_force(row)}
    latest = set(_texts_of_latest(home).get("registered_model", ()))
    for model in sorted({version.model for version in versions}):
        ours = sorted((v for v in versions if v.model == model), key=lambda v: -v.number)
        for rank, version in enumerate(ours):
            bundle = version.tags.get("bundle_digest", "")
            if version.foreign:
                yield version, "not one of this project's"
            elif version.aliases:
                yield version, f"alias {', '.join(version.aliases)}"
            elif bundle in inforce:
                yield version, _row_reason(inforce[bundle])
            elif latest & {version.tags.get("adapter_digest", "")}:
                yield version, "latest registered_model"
            elif rank < rules.spec.keep_newest:
                yield version, f"one of the newest {rules.spec.keep_newest}"
            elif reason := rules.young(version.made):
                yield version, reason


def _kept_artifacts(
    home: Home,
    store: Sequence[Sealed],
    entries: Sequence[LedgerEntry],
    versions: Mapping[RegistryVersion, str],
    rules: _Rules,
    stand_ins: Sequence[str],
) -> dict[Sealed, str]:
    """Artifacts that stay, with the reason; what they were made from stays with them."""
    names = Names(store)
    roots: list[tuple[Iterable[str], str]] = [
        (
            texts([asdict(row.decision.bundle), row.decision.bundle.digest, row.decision.evidence]),
            _row_reason(row),
        )
        for row in entries
        if _in_force(row)
    ]
    roots += [(found, f"latest {asset}") for asset, found in _texts_of_latest(home).items()]
    roots += [(texts(dict(version.tags)), f"{version}: {why}") for version, why in versions.items()]
    roots.append((stand_ins, "stands for a segment of the request log"))
    kept: dict[Sealed, str] = {}
    for mentioned, reason in roots:
        _keep(names, names.find(mentioned), reason, kept)
    for sealed, reason in _spared(store, rules):
        _keep(names, [sealed], reason, kept)
    for sealed in store:
        if sealed.kind in FINDINGS and (about := _first(names.find(sealed.mentions), kept)):
            kept.setdefault(sealed, f"found of {about}")
    for row in entries:  # last: evidence does not bring its inputs along
        if not _in_force(row):
            for sealed in names.find(texts(row.decision.evidence)):
                if sealed.kind not in WEIGHTS:
                    kept.setdefault(sealed, f"evidence of {_row_reason(row)}")
    return kept


def _first(found: Iterable[Sealed], kept: Mapping[Sealed, str]) -> Sealed | None:
    return next((sealed for sealed in found if sealed in kept), None)


def _keep(names: Names, found: Iterable[Sealed], reason: str, kept: dict[Sealed, str]) -> None:
    waiting = [(sealed, reason) for sealed in found]
    while waiting:
        sealed, why = waiting.pop()
        if sealed not in kept:
            kept[sealed] = why
            inputs = names.find(sealed.mentions)
            waiting += [(each, f"named by {sealed}") for each in inputs]


def _spared(store: Sequence[Sealed], rules: _Rules) -> Iterator[tuple[Sealed, str]]:
    """The newest of each kind, and the young."""
    ranks: dict[str, int] = {}
    for sealed in sorted(store, key=lambda found: found.made, reverse=True):
        rank = ranks[sealed.kind] = ranks.get(sealed.kind, 0) + 1
        if rank <= rules.spec.keep_newest:
            yield sealed, f"one of the newest {rules.spec.keep_newest} of its kind"
        elif reason := rules.young(sealed.made):
            yield sealed, reason


def _artifact_item(sealed: Sealed, reason: str | None) -> Decided:
    why = reason or "nothing in force names it"
    return Item(ARTIFACT, str(sealed), sealed.size, why, sealed.path), reason is not None


def _version_items(
    versions: Sequence[RegistryVersion], kept: Mapping[RegistryVersion, str]
) -> Iterator[Decided]:
    for version in versions:
        why = kept.get(version, "no alias, and nothing in force names it")
        place = (version.model, version.number)
        yield Item(VERSION, str(version), 0, why, version=place), version in kept


def _upload_items(
    home: Home,
    versions: Sequence[RegistryVersion],
    kept: Mapping[RegistryVersion, str],
    rules: _Rules,
) -> Iterator[Decided]:
    """The files of registered versions, where they lie in this home."""
    if not home.mlflow_is_local:
        return
    named = {version.files: version for version in versions if version.files}
    for folder in sorted(home.mlflow_artifacts.glob("*/artifacts/bundle-*")):
        version = named.get(folder.parts[-UPLOAD_DEPTH:])
        stays = kept.get(version) if version else rules.young(_changed(folder))
        reason = (f"{version}: {stays}" if version else stays) if stays else "of no version"
        if version and not stays:
            reason = f"{version} goes"
        name = f"{folder.parents[1].name[:SHORT]}/{folder.name}"
        yield Item(UPLOAD, name, directory_size(folder), reason, folder), stays is not None


def _checkpoint_items(home: Home, store: Sequence[Sealed], rules: _Rules) -> Iterator[Decided]:
    finished = {sealed.key for sealed in store}
    for folder in _folders(home.store.checkpoints):
        reason = None if folder.name in finished else rules.young(_changed(folder))
        why = "its training ended" if folder.name in finished else "its training was given up"
        name = f"checkpoint {folder.name[:SHORT]}"
        stays = f"{reason}: its training may go on" if reason else why
        yield Item(CHECKPOINT, name, directory_size(folder), stays, folder), reason is not None


def _leftovers(home: Home) -> Iterator[Decided]:
    """What a run that died was building, and what a prune that died was deleting."""
    for kind in _folders(home.store.root):
        for folder in kind.iterdir():
            if folder.is_dir() and not (folder / MANIFEST).is_file():
                name, why = f"{kind.name}/{folder.name}", "a run died while it built this"
                yield Item(UNFINISHED, name, directory_size(folder), why, folder), False
    for folder in _folders(trash(home)):
        why = "an earlier prune was interrupted"
        yield Item(TRASH, folder.name, directory_size(folder), why, folder), False


def trash(home: Home) -> Path:
    """Where things are moved in one step before they are deleted file by file."""
    return home.root / "trash"


def _texts_of_latest(home: Home) -> dict[str, list[str]]:
    """By asset, what its latest ref says."""
    refs = sorted((home.root / "refs").glob(f"*/{LATEST}.json"))
    return {path.parent.name: list(texts(json.loads(path.read_bytes()))) for path in refs}


def _in_force(row: LedgerEntry) -> bool:
    return row.decision.outcome not in REFUSED


def _row_reason(row: LedgerEntry) -> str:
    return f"ledger entry {row.entry} ({row.decision.outcome})"


def _folders(place: Path) -> list[Path]:
    if not place.is_dir():
        return []
    return sorted(path for path in place.iterdir() if path.is_dir() and not path.is_symlink())


def _changed(folder: Path) -> datetime:
    """When anything in it was last written."""
    newest = max(path.lstat().st_mtime for path in [folder, *folder.rglob("*")])
    return datetime.fromtimestamp(newest, UTC)
