"""Near duplicates among texts on disk, by MinHash and locality-sensitive hashing.

Two texts are near when the Jaccard similarity of their sets of word pairs (case folded,
punctuation left out) reaches a threshold. rensa computes the MinHash signatures; they lie on
disk, and so do their bands. Band by band, rows with the same band are compared. A pair at the
threshold is found with a probability of 99% or more (``bands_for``); what is found is judged by
its estimated similarity, whose standard error is sqrt(s (1 - s) / 128), 0.027 at 0.9.

Memory: some forty bytes a row, and never a text; disk: 350 bytes a row.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, BinaryIO

PERMUTATIONS, SEED = 128, 1
RECALL = 0.99  # of pairs at the threshold
CHUNK = 2_000  # texts whose signatures are computed at once
WINDOW = 8  # neighbours in one band with which a row is compared
PAIRS = 50_000  # compared at once

_WORD = re.compile(r"\w+")


Worth = Callable[[Any, Any], Any]
"""Of pairs of rows, which are worth comparing: a mask. Called with the rows in order."""


def normalised(text: str) -> str:
    """The text by which duplicates are found: case folded, white space made single spaces."""
    return " ".join(text.casefold().split())


def bands_for(similarity: float) -> tuple[int, int]:
    """Bands and values in each: the longest bands with which a pair of this similarity shares
    one with probability ``RECALL``, 1 - (1 - s^values)^bands."""
    fitting = [
        (PERMUTATIONS // values, values)
        for values in range(1, PERMUTATIONS + 1)
        if 1 - (1 - similarity**values) ** (PERMUTATIONS // values) >= RECALL
    ]
    return fitting[-1]


def shingles(text: str) -> list[str]:
    """The pairs of neighbouring words; of a shorter text the text itself."""
    words = _WORD.findall(text.casefold())
    if len(words) < 2:
        return [" ".join(words) or text]
    return [f"{first} {second}" for first, second in pairwise(words)]


class Signatures:
    """The signatures of texts, in ``folder``; the texts' numbers are their order."""

    def __init__(self, folder: Path, texts: Iterable[str], similarity: float) -> None:
        import numpy as np

        self._path = folder / "signatures"
        self._folder = folder
        self.similarity = similarity
        self.bands, self._values = bands_for(similarity)
        self.rows = 0
        with self._path.open("wb") as stream:
            for matrix in _matrices(texts):
                # Half of each value will do: unequal ones agree in one of 65,536 pairs.
                stream.write(matrix.astype(np.uint16).tobytes())
                self._write_bands(matrix)
                self.rows += len(matrix)

    def near_pairs(self, worth: Worth) -> Iterator[tuple[Any, Any]]:
        """Arrays of rows that are near, the earlier and the later one; pairs may come again."""
        import numpy as np

        whole = np.fromfile(self._folder / "whole", dtype=np.uint64)
        for band in range(self.bands):
            keys = np.fromfile(self._folder / f"band-{band}", dtype=np.uint64)
            order = np.lexsort((whole, keys))  # equal texts side by side within their band
            keys = keys[order]
            for shift in range(1, min(WINDOW, self.rows - 1) + 1):
                (at,) = np.nonzero(keys[shift:] == keys[:-shift])
                for start in range(0, len(at), PAIRS):
                    part = at[start : start + PAIRS]
                    rows = order[part], order[part + shift]
                    yield self._near(np.minimum(*rows), np.maximum(*rows), worth)

    def _near(self, earlier: Any, later: Any, worth: Worth) -> tuple[Any, Any]:
        wanted = worth(earlier, later)
        earlier, later = earlier[wanted], later[wanted]
        with self._path.open("rb") as stream:
            same = self._read(stream, earlier) == self._read(stream, later)
        near = same.mean(axis=1) >= self.similarity if len(same) else same[:, 0]
        return earlier[near], later[near]

    def _read(self, stream: BinaryIO, rows: Any) -> Any:
        """These rows' signatures. Not mapped: mapped pages would count as our memory."""
        import numpy as np

        file, size = stream.fileno(), PERMUTATIONS * 2
        found = b"".join(os.pread(file, size, row * size) for row in rows.tolist())
        return np.frombuffer(found, dtype=np.uint16).reshape(-1, PERMUTATIONS)

    def _write_bands(self, matrix: Any) -> None:
        import numpy as np

        rng = np.random.default_rng(SEED)
        weights = rng.integers(1, 2**63, size=PERMUTATIONS, dtype=np.uint64) | np.uint64(1)
        mixed = matrix.astype(np.uint64) * weights  # a sum of these modulo 2^64 is a hash
        with (self._folder / "whole").open("ab") as stream:
            stream.write(mixed.sum(axis=1, dtype=np.uint64).tobytes())
        for band in range(self.bands):
            part = mixed[:, band * self._values : (band + 1) * self._values]
            with (self._folder / f"band-{band}").open("ab") as stream:
                stream.write(part.sum(axis=1, dtype=np.uint64).tobytes())


def _matrices(texts: Iterable[str]) -> Iterator[Any]:
    """Signatures of the texts, some thousand at a time: uint32, rows by ``PERMUTATIONS``."""
    import numpy as np
    import rensa

    waiting = iter(texts)
    while chunk := [shingles(text) for text in islice(waiting, CHUNK)]:
        digests = rensa.RMinHash.digest_matrix_from_token_sets(chunk, PERMUTATIONS, SEED)
        yield np.array(digests.to_rows(), dtype=np.uint32)
