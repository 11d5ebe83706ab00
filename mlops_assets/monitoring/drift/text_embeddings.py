"""Embeddings of a sample of texts, made once and kept in the artifact store.

A text is redacted before it is encoded, on both sides alike: the train split may hold
placeholders where production holds addresses, and that is no drift. For the same reason each
text is cut to the same length, which also bounds the time.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.artifacts import (
    ArtifactStore,
    LineageError,
    Recipe,
    canonical_json,
    digest_file,
    digest_json,
)
from mlops_assets.code_digest import code_digest
from mlops_assets.privacy import redact
from mlops_assets.sentence_encoder import SentenceEncoder, packaged_encoder
from mlops_assets.threads import fitting_threads

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

KIND = "text_embeddings"
FILE = "embeddings.npy"
LONGEST = 1_000  # characters that are read of a text: a few hundred tokens, as encoders read
SETTING = "encoder"


def find_encoder(setting: str) -> Path | None:
    """The encoder's directory: the one that is named, else the installed one, else None.

    Raises LineageError when the one that is named does not exist.
    """
    if not setting:
        try:
            return packaged_encoder()
        except LineageError:
            return None
    directory = Path(setting).expanduser()
    if not directory.is_dir():
        raise LineageError(
            f"{SETTING} {directory} is no directory.",
            f"Name that of a sentence encoder in safetensors, or leave {SETTING} empty.",
        )
    return directory


class TextEmbeddings:
    """Embeddings by one encoder, which is loaded when a text is met that was never encoded."""

    def __init__(self, store: ArtifactStore, directory: Path) -> None:
        self._store = store
        self._directory = directory
        self._digest = encoder_digest(directory)
        self._encoder: SentenceEncoder | None = None

    def of(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """Vectors of length 1 as (texts, dimensions), in the order of the texts.

        Raises LineageError when the directory holds no encoder.
        """
        import numpy as np

        shown = [redact(text)[0][:LONGEST] for text in texts]
        recipe = Recipe(
            kind=KIND,
            inputs={
                "texts": hashlib.sha256(canonical_json(shown)).hexdigest(),
                "encoder": self._digest,
            },
            spec={},
            code_version=code_digest(__name__),
            libraries=("torch", "transformers", "tokenizers"),
        )
        artifact = self._store.build(recipe, self._writer(shown))
        stored = np.load(self._store.path(artifact) / FILE, allow_pickle=False)
        vectors: NDArray[np.float32] = stored.astype(np.float32)
        return vectors

    def _writer(self, texts: Sequence[str]) -> Callable[[Path], Mapping[str, Any]]:
        def produce(directory: Path) -> dict[str, Any]:
            import numpy as np

            vectors = np.array(self._encode(texts), np.float16)  # three digits are plenty
            np.save(directory / FILE, vectors, allow_pickle=False)
            return {"texts": len(texts), "dimensions": vectors.shape[-1]}

        return produce

    def _encode(self, texts: Sequence[str]) -> list[list[float]]:
        """Each different text once, those of one length together: less padding is half the time."""
        if self._encoder is None:
            self._encoder = SentenceEncoder(self._directory, SETTING)
        different = sorted(dict.fromkeys(texts), key=len)
        logger.info("Encoding %d texts", len(different))
        with fitting_threads(self._encoder.parameters):
            vectors = self._encoder.encode(different)
        by_text = dict(zip(different, vectors, strict=True))
        return [by_text[text] for text in texts]


def encoder_digest(directory: Path) -> str:
    """Of all that decides what an encoder says: settings, tokenizer, weights, pooling."""
    files = sorted(
        path
        for path in directory.rglob("*")
        if path.is_file() and path.suffix in {".json", ".txt", ".model", ".safetensors"}
    )
    return digest_json(
        [[path.relative_to(directory).as_posix(), digest_file(path)] for path in files]
    )
