"""Source data at a pinned commit: a dataset of the Hugging Face hub, lakeFS, versioned S3.

    hf://datasets/OWNER/NAME@COMMIT/path/in/repo.jsonl
    lakefs://REPOSITORY/COMMIT/path/in/repo.jsonl
    s3://BUCKET/path/of/object.jsonl?versionId=VERSION

A path that ends with a slash is a folder (not on S3: a folder has no version). What such an
address names never changes, so it is downloaded once and lies in the artifact store like any
other artifact, its files compared with its manifest whenever it is read. Branches and tags
move, and are refused. Only data files are taken, never scripts or pickles.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mlops_assets.artifacts import ArtifactStore, LineageError, Recipe

DATA_SUFFIXES = (".arrow", ".csv", ".json", ".jsonl", ".parquet", ".tsv")
FORMS = {
    "hf": r"hf://datasets/(?P<name>[\w.-]+/[\w.-]+)@(?P<commit>[^/]*)/(?P<path>.+)",
    "lakefs": r"lakefs://(?P<name>[a-z0-9][a-z0-9-]{2,62})/(?P<commit>[^/]*)/(?P<path>.+)",
    "s3": r"s3://(?P<name>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<path>[^?]+)"
    r"(\?versionId=(?P<commit>.*))?",
}
COMMITS = {
    "hf": ("[0-9a-f]{40}", "the commit's 40 hex digits after the `@`"),
    "lakefs": ("[0-9a-f]{64}", "the commit's 64 hex digits after the repository"),
    "s3": ("(?!null$)[^&]+", "`?versionId=` and the object's version, in a bucket with versioning"),
}


@dataclass(frozen=True)
class PinnedSource:
    """An address that always names the same bytes."""

    kind: str
    """``hf``, ``lakefs`` or ``s3``."""
    name: str
    """``owner/name`` on the hub, the repository of lakeFS, the bucket of S3."""
    commit: str
    path: str
    """In the repository or bucket; a folder ends with a slash."""

    def __str__(self) -> str:
        return {
            "hf": f"hf://datasets/{self.name}@{self.commit}/{self.path}",
            "lakefs": f"lakefs://{self.name}/{self.commit}/{self.path}",
            "s3": f"s3://{self.name}/{self.path}?versionId={self.commit}",
        }[self.kind]

    @property
    def recipe(self) -> Recipe:
        # The address alone decides the bytes, whatever code fetches them.
        return Recipe("source", {"address": str(self)}, {}, "1")


def parse(address: str) -> PinnedSource | None:
    """The source that ``address`` names, or None for a path on this machine.

    Raises LineageError for an address that is none of ours, or may name other bytes tomorrow.
    """
    if not (scheme := re.match(r"([a-z0-9+]+)://", address)):
        return None
    kind = scheme.group(1)
    found = re.fullmatch(FORMS[kind], address) if kind in FORMS else None
    if found is None:
        raise LineageError(
            f"The data path {_shown(address)} is no address that we can read.",
            "Write a path, hf://datasets/OWNER/NAME@COMMIT/PATH, lakefs://REPOSITORY/COMMIT/PATH"
            " or s3://BUCKET/KEY?versionId=VERSION.",
        )
    source = PinnedSource(kind, found["name"], found["commit"] or "", found["path"])
    form, wanted = COMMITS[kind]
    if not re.fullmatch(form, source.commit):
        raise LineageError(
            f"The data path {_shown(address)} pins no commit: what it names can change.",
            f"Write {wanted}.",
        )
    _check_path(source)
    return source


def find(store: ArtifactStore, source: PinnedSource) -> Path | None:
    """Where the source lies if it was fetched before; whoever reads it has to verify it."""
    recipe = source.recipe
    found = store.find(recipe.kind, recipe.key)
    return place(store.root / recipe.kind / recipe.key, source) if found else None


def place(directory: Path, source: PinnedSource) -> Path:
    """The file or folder of the source in its artifact's directory."""
    data = directory / "data"
    return data if source.path.endswith("/") else data / PurePosixPath(source.path).name


def _check_path(source: PinnedSource) -> None:
    parts = source.path.removesuffix("/").split("/")
    if any(part in ("", ".", "..") for part in parts) or not source.path.isprintable():
        raise LineageError(
            f"The path in {source} is not a plain one.", "Write it without `.`, `..` or `//`."
        )
    if source.path.endswith("/"):
        if source.kind == "s3":
            raise LineageError(
                f"{source} is a folder, which has no version.", "Name one object and its version."
            )
    elif not is_data(source.path):
        raise LineageError(
            f"{source} is not a data file; scripts and pickles are never fetched.",
            f"Name a file that ends with one of {', '.join(DATA_SUFFIXES)}.",
        )


def is_data(path: str) -> bool:
    """Whether the file's name is one of data that we read."""
    return PurePosixPath(path).suffix.lower() in DATA_SUFFIXES


def _shown(address: str) -> str:
    """The address without a user and a password, should someone have written them."""
    return re.sub(r"//[^/@]*:[^/@]*@", "//", address)


def absent(source: PinnedSource, why: str = "does not exist") -> LineageError:
    """The error for a source that is not where it is looked for."""
    return LineageError(f"{source} {why}.", "Check name, commit and path of the op raw_dataset.")
