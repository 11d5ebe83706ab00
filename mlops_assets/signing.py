"""Ed25519 keys and signatures, as ``cryptography`` makes them.

A private key is a PEM file (PKCS #8) that only its owner may read, or the same text in
``MLOPS_SIGNING_KEY``. One that is encrypted needs ``MLOPS_SIGNING_KEY_PASSPHRASE``. Public keys
and signatures are written in base64.
"""

import base64
import binascii
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.artifacts import LineageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY, PASSPHRASE = "MLOPS_SIGNING_KEY", "MLOPS_SIGNING_KEY_PASSPHRASE"
PUBLIC_BYTES, SIGNATURE_BYTES = 32, 64
MAX_KEY_BYTES = 16_384  # a PEM of an Ed25519 key has 119, encrypted some 300


def new_key(path: Path) -> "Ed25519PrivateKey":
    """Make a key and write it to ``path``, encrypted if there is a passphrase.

    Raises LineageError when the file exists already: a key is never overwritten.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    secret = os.environ.get(PASSPHRASE)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(secret.encode())
        if secret
        else serialization.NoEncryption(),
    )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        # Never readable by others, not for a moment; and never in the place of another key.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise LineageError(
            f"There is a key at {path} already.", "Choose another name, or delete that key first."
        ) from None
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(pem)
    return key


def load_key(path: Path | None, default: Path, variable: str = KEY) -> "Ed25519PrivateKey":
    """The private key at ``path``; without one, what the variable holds (the PEM itself or the
    path of its file); without that, the one at ``default``.

    Raises LineageError when there is none, or when others may read its file.
    """
    given = os.environ.get(variable, "")
    if path is None and given.lstrip().startswith("-----BEGIN"):
        return _parse(given.encode(), variable)
    path = path or (Path(given) if given else default)
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            pem = stream.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise LineageError(
            f"The signing key {path} cannot be read ({error.strerror}).",
            f"Make one with `mlops keys new {default.stem}`, or name yours by --key or {variable}.",
        ) from None
    if stat.S_IMODE(mode) & 0o077:
        raise LineageError(
            f"The signing key {path} can be read by others.",
            f"Make a new key if it may have been; else: chmod 600 {path}",
        )
    return _parse(pem, str(path))


def _parse(pem: bytes, where: str) -> "Ed25519PrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    secret = os.environ.get(PASSPHRASE) if b"ENCRYPTED" in pem else None
    if b"ENCRYPTED" in pem and not secret:
        raise LineageError(
            f"The signing key in {where} is encrypted.", f"Put its passphrase into {PASSPHRASE}."
        )
    try:
        key = load_pem_private_key(pem, secret.encode() if secret else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The error may quote the file: say only what it is about.
        raise LineageError(
            f"The signing key in {where} cannot be used: it is no PEM key, or the passphrase is"
            " not its own.",
            f"Name an Ed25519 key in PEM form, and its passphrase in {PASSPHRASE} if it has one.",
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise LineageError(
            f"The signing key in {where} is not an Ed25519 key.",
            "Make one with `mlops keys new NAME`.",
        )
    return key


def public_key(key: "Ed25519PrivateKey") -> str:
    """The public half, 32 bytes in base64."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def sign(key: "Ed25519PrivateKey", message: bytes) -> str:
    """The signature of ``message``, 64 bytes in base64."""
    return base64.b64encode(key.sign(message)).decode()


def signed_by(public: str, signature: str, message: bytes) -> bool:
    """Whether the key with this public half made this signature over this message."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    known, made = decode(public, PUBLIC_BYTES), decode(signature, SIGNATURE_BYTES)
    if known is None or made is None:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(known).verify(made, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def decode(text: str, length: int) -> bytes | None:
    """The bytes of strict base64, None unless there are ``length``.

    The last letter may hold bits that stand for nothing: only the one spelling that ``public_key``
    and ``sign`` write is taken, or one key could be two.
    """
    try:
        found = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        return None
    return found if len(found) == length and base64.b64encode(found).decode() == text else None
