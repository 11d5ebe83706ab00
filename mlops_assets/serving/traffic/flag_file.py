"""The default OpenFeature provider: a YAML or JSON file in flagd's format, read by flagd's own
evaluator in this process.

flagd's provider for Python has an offline mode too, but brings gRPC and another protobuf than
MLflow can use, and takes a file in part. Here a file is taken whole or not at all: every flag
is evaluated once before the new flags replace the old ones. A file that is broken, or gone,
leaves the last good flags in force, and says so once.
"""

import json
import logging
import threading
from pathlib import Path
from typing import Any

import yaml
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEventDetails
from openfeature.exception import (
    ErrorCode,
    FlagNotFoundError,
    GeneralError,
    OpenFeatureError,
    ParseError,
)
from openfeature.flag_evaluation import FlagResolutionDetails
from openfeature.provider import AbstractProvider, Metadata

logger = logging.getLogger(__name__)

LOOK_EVERY = 1.0  # seconds
LARGEST = 1024**2  # bytes of a file
NOBODY = EvaluationContext(targeting_key="nobody")
"""Whom every flag is tried on before a file is taken."""
KINDS: dict[type, str] = {
    bool: "boolean",
    str: "string",
    int: "integer",
    float: "float",
    dict: "object",
    list: "object",
}

Stamp = tuple[int, int, int]


class FlagFile(AbstractProvider):
    """Flags of one file, which is looked at every second."""

    def __init__(self, path: Path, look_every: float = LOOK_EVERY) -> None:
        """``look_every`` is in seconds."""
        super().__init__()
        self.path = path
        self.problem: str | None = None
        """What is wrong with the file now; None while the flags in force are the file's."""
        self._every = look_every
        self._core: FlagdCore | None = None
        self._stamp: Stamp | None = None
        self._ended = threading.Event()

    def initialize(self, evaluation_context: EvaluationContext) -> None:  # noqa: ARG002
        """Read the file and begin to watch it; one that is broken may be mended later."""
        # It writes a stack trace for each user who lacks an attribute that a rule compares.
        logging.getLogger("openfeature.contrib").setLevel(logging.CRITICAL)
        self.reload()
        threading.Thread(target=self._watch, name="flags", daemon=True).start()

    def shutdown(self) -> None:
        """Stop watching."""
        self._ended.set()

    def get_metadata(self) -> Metadata:
        """The provider's name."""
        return Metadata(name="file")

    def reload(self) -> bool:
        """Take the file if it changed and is sound; whether the flags in force are new."""
        stamp = _stamp(self.path)
        if stamp == self._stamp and stamp is not None:
            return False
        self._stamp = stamp
        try:
            self._core = _load(self.path)
        except Exception as error:
            # flagd's evaluator raises whatever Python raised in it, and no file may end the watch.
            self._report(_explain(error))
            return False
        if self.problem is not None:
            logger.info("The flags in %s are sound again", self.path)
        self.problem = None
        return True

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        """Raises OpenFeatureError, which the client turns into the default."""
        return self._resolve("boolean", flag_key, default_value, evaluation_context)

    def resolve_string_details(
        self,
        flag_key: str,
        default_value: str,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[str]:
        """As for a boolean."""
        return self._resolve("string", flag_key, default_value, evaluation_context)

    def resolve_integer_details(
        self,
        flag_key: str,
        default_value: int,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[int]:
        """As for a boolean."""
        return self._resolve("integer", flag_key, default_value, evaluation_context)

    def resolve_float_details(
        self,
        flag_key: str,
        default_value: float,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[float]:
        """As for a boolean."""
        return self._resolve("float", flag_key, default_value, evaluation_context)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Any,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Any]:
        """As for a boolean."""
        return self._resolve("object", flag_key, default_value, evaluation_context)

    def _resolve(
        self, kind: str, flag_key: str, default: Any, context: EvaluationContext | None
    ) -> FlagResolutionDetails[Any]:
        if self._core is None:
            raise FlagNotFoundError(f"There are no flags, so no {flag_key!r}: {self.problem}.")
        return _evaluate(self._core, kind, flag_key, default, context)

    def _watch(self) -> None:
        while not self._ended.wait(self._every):
            before = self.problem
            if self.reload():
                details = ProviderEventDetails(message=f"{self.path} changed")
                self.emit_provider_configuration_changed(details)
                if before is not None:
                    self.emit_provider_ready(details)
            elif self.problem is not None and before is None:
                self.emit_provider_error(
                    ProviderEventDetails(message=self.problem, error_code=ErrorCode.PARSE_ERROR)
                )

    def _report(self, problem: str) -> None:
        kept = "nobody is eligible" if self._core is None else "the last good flags stay in force"
        if problem != self.problem:
            logger.error("The flags in %s cannot be used (%s): %s", self.path, problem, kept)
        self.problem = problem


def _stamp(path: Path) -> Stamp | None:
    """What changes with the file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _load(path: Path) -> FlagdCore:
    """The file's flags, each of which can be evaluated. Raises ValueError, OSError and what
    OpenFeature raises."""
    with path.open("rb") as stream:
        text = stream.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST:,} bytes")
    content = json.loads(text) if path.suffix == ".json" else _parse_yaml(text)
    flags = content.get("flags") if isinstance(content, dict) else None
    if not isinstance(flags, dict) or not all(isinstance(flag, dict) for flag in flags.values()):
        raise ParseError("it holds no mapping `flags` of flags")
    written = json.dumps(content, allow_nan=False)  # no dates, no sets, no shared parts
    core = FlagdCore()
    core.set_flags(written)
    for name, flag in json.loads(written)["flags"].items():
        _try(core, name, flag)
    return core


def _parse_yaml(text: bytes) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _try(core: FlagdCore, name: str, flag: dict[str, Any]) -> None:
    """Evaluate a flag of any kind once. Raises what is wrong with it."""
    values = list(flag["variants"].values())
    if len({type(value) for value in values}) != 1 or type(values[0]) not in KINDS:
        raise ParseError(f"the variants of {name!r} are not of one kind")
    try:
        _evaluate(core, KINDS[type(values[0])], name, values[0], NOBODY)
    except OpenFeatureError as error:
        raise ParseError(f"{name!r}: {error.error_message or type(error).__name__}") from None


def _evaluate(
    core: FlagdCore, kind: str, name: str, default: Any, context: EvaluationContext | None
) -> FlagResolutionDetails[Any]:
    try:
        found: FlagResolutionDetails[Any] = getattr(core, f"resolve_{kind}_value")(
            name, default, context
        )
    except OpenFeatureError:
        raise
    except Exception as error:
        # The rules are evaluated by a library that raises whatever Python raised in it.
        raise GeneralError(f"{type(error).__name__}: {error}") from None
    return found


def _explain(error: Exception) -> str:
    if isinstance(error, OSError):
        return str(error.strerror or type(error).__name__).lower()
    if isinstance(error, OpenFeatureError):
        return str(error.error_message or error.__cause__ or type(error).__name__)
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
