"""Where a user stands in a split of the traffic: a keyed hash, without any memory.

The same user and salt give the same place in [0, 1) in every process and for ever. Whoever is
below 0.05 is also below 0.25: a share that grows keeps its users. Another salt is another,
independent draw, so splits that must not have to do with each other have salts of their own.
"""

import hashlib
from functools import lru_cache

PLACES = 53  # bits that a float between 0 and 1 holds exactly


def bucket(user: str, salt: str) -> float:
    """The user's place in [0, 1), uniform over users, by BLAKE2b with the salt as its key."""
    digest = hashlib.blake2b(user.encode("utf-8", "surrogatepass"), digest_size=8, key=_key(salt))
    return (int.from_bytes(digest.digest()) >> (64 - PLACES)) / (1 << PLACES)


@lru_cache(maxsize=1024)
def _key(salt: str) -> bytes:
    """The salt as a key of one length: BLAKE2b takes 64 bytes at most."""
    return hashlib.sha256(salt.encode("utf-8", "surrogatepass")).digest()
