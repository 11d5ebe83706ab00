"""Who may approve: a strict YAML file of names and public keys.

For production it is a file under version control, named by ``MLOPS_APPROVERS`` and changed by
review. On a laptop it is ``approvers.yaml`` in ``MLOPS_HOME``, to which `mlops keys new` adds.

    approvers:
    - name: ada
      public_key: 3q2+7w...=
      email: ada@example.com

Who leaves gets ``until``: approvals from before stay valid. Who is taken off the list is not
believed any more, in what was approved earlier neither.
"""

import os
import re
import stat
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from mlops_assets.artifacts import LineageError, atomic_write
from mlops_assets.file_lock import exclusive_lock
from mlops_assets.home import Home
from mlops_assets.signing import PUBLIC_BYTES, decode

LIST = "MLOPS_APPROVERS"
EMAIL = r"^[^@\s]+@[^@\s]+$"
LONGEST_EMAIL = 254
NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
MACHINE = "automatic"
"""The name of the key with which a machine approves; no person's."""
MAX_BYTES = 1024**2


def _is_a_key(value: str) -> str:
    if decode(value, PUBLIC_BYTES) is None:
        raise ValueError("not 32 bytes in base64, as `mlops keys new` prints them")
    return value


PublicKey = Annotated[str, AfterValidator(_is_a_key)]


class Approver(BaseModel):
    """A person, or the key of a machine, that may approve."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=NAME, description="What `--as` names; lower case.")
    public_key: PublicKey = Field(description="Ed25519 public key, 32 bytes in base64.")
    email: str | None = Field(
        None,
        max_length=LONGEST_EMAIL,
        pattern=EMAIL,
        description="By it the author of a change is known, when it is that of their commits.",
    )
    until: AwareDatetime | None = Field(
        None, description="Nothing that is signed from this moment on counts."
    )
    automatic: bool = Field(
        False, description="A machine's key, not a person: see `automatic_for` in a profile."
    )

    @model_validator(mode="after")
    def _is_no_person(self) -> "Approver":
        if self.name == MACHINE and not self.automatic:
            raise ValueError(f"the name {MACHINE} is that of a machine's own key (automatic: true)")
        return self


class Approvers(BaseModel):
    """The whole list. One person stands on it once: by name, by key and by e-mail."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    approvers: tuple[Approver, ...] = Field((), max_length=1000)
    link_key: PublicKey | None = Field(
        None,
        description="Public key of the page that honours signed links; without one, no decision"
        " by link counts.",
    )

    @model_validator(mode="after")
    def _once_each(self) -> "Approvers":
        for what in ("name", "public_key", "email"):
            seen: set[str] = set()
            for value in (getattr(approver, what) for approver in self.approvers):
                if value is None:
                    continue
                if (folded := value if what == "public_key" else value.lower()) in seen:
                    raise ValueError(f"the {what} {value} stands on it twice")
                seen.add(folded)
        if self.link_key in {approver.public_key for approver in self.approvers}:
            # Whoever holds it could decide in everybody's name.
            raise ValueError("the link_key is the key of an approver")
        return self

    def find(self, name: str) -> Approver | None:
        """The approver with this name, or None."""
        return next((found for found in self.approvers if found.name == name), None)

    def of_author(self, author: str) -> str | None:
        """The name of the approver whose e-mail or name this is, or None."""
        folded = author.lower()
        known = ((found.name, (found.email or "").lower()) for found in self.approvers)
        return next((name for name, email in known if folded and folded in (name, email)), None)


def approvers_file(home: Home) -> Path:
    """Where the list lies."""
    return Path(os.environ.get(LIST) or home.root / "approvers.yaml")


def is_under_review(home: Home) -> bool:
    """Whether the list is a file of its own, not the one that this home keeps for itself."""
    return approvers_file(home) != home.root / "approvers.yaml"


def read_approvers(home: Home) -> Approvers:
    """The list as it stands now; empty where the home has none yet.

    Raises LineageError when it cannot be read or says something that we do not know.
    """
    path = approvers_file(home)
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            content = stream.read(MAX_BYTES)
    except FileNotFoundError:
        if is_under_review(home):
            raise LineageError(
                f"The list of approvers {path} does not exist.", f"Correct {LIST}."
            ) from None
        return Approvers()
    except OSError as error:
        raise LineageError(
            f"The list of approvers {path} cannot be read ({error.strerror}).", f"Correct {LIST}."
        ) from error
    if mode & stat.S_IWOTH:
        raise LineageError(
            f"The list of approvers {path} can be written by everybody.",
            f"Look who stands on it, then: chmod o-w {path}",
        )
    return _parse(content, path)


def _parse(content: bytes, path: Path) -> Approvers:
    try:
        found = yaml.load(content, _StrictLoader)  # noqa: S506 # a SafeLoader
        return Approvers.model_validate(found if found is not None else {})
    except ValidationError as error:
        where = (".".join(map(str, item["loc"])) or "the list" for item in error.errors())
        what = "; ".join(
            f"{place}: {item['msg']}" for place, item in zip(where, error.errors(), strict=True)
        )
    except (yaml.YAMLError, ValueError) as error:
        what = re.sub(r"\s+", " ", str(error))
    raise LineageError(
        f"The list of approvers {path} is not valid: {what}.",
        "Correct it; docs/approval.md shows its form.",
    )


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would take the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def add_approver(home: Home, approver: Approver) -> Path:
    """Add to the list; returns its file. Raises LineageError when somebody there is the same."""
    path = approvers_file(home)
    home.prepare()
    with _locked(home):
        known = read_approvers(home)
        if approver in known.approvers:
            return path
        try:
            grown = known.model_copy(update={"approvers": (*known.approvers, approver)})
            Approvers.model_validate(grown.model_dump())
        except ValidationError as error:
            raise LineageError(
                f"{approver.name} cannot be added to {path}: {_why(error)}.",
                "Choose another name or e-mail, or take the earlier entry off the list.",
            ) from error
        _write(path, grown)
    return path


def _why(error: ValidationError) -> str:
    return error.errors()[0]["msg"].removeprefix("Value error, ")


def set_link_key(home: Home, public_key: str) -> None:
    """Believe the page with this key: what is decided by its links counts from now on."""
    home.prepare()
    with _locked(home):
        known = read_approvers(home)
        try:
            grown = Approvers(approvers=known.approvers, link_key=public_key)
        except ValidationError as error:
            raise LineageError(
                f"The approval page cannot use this key: {_why(error)}.",
                "Give the page a key of its own.",
            ) from error
        _write(approvers_file(home), grown)


def _write(path: Path, approvers: Approvers) -> None:
    with atomic_write(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(render(approvers), encoding="utf-8")


def render(approvers: Approvers) -> str:
    """The list as YAML."""
    content = approvers.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(content, sort_keys=False)


def _locked(home: Home) -> AbstractContextManager[None]:
    """Two who add at the same time do it one after the other."""
    return exclusive_lock(home.root / "approvers.lock")
