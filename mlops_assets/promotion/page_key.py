"""The key of the approval page: it makes the personal links, and signs what is decided by them.

It is a file of the home that only its owner may read, or the PEM (or its path) in
``MLOPS_LINK_KEY``. Decisions by link count only while the list of approvers names its public
half as ``link_key``. A home's own list is told of it here; one under review is changed by
people, and until then no personal link is sent.
"""

import fcntl
import os
from typing import TYPE_CHECKING

from mlops_assets.approvers import approvers_file, is_under_review, read_approvers, set_link_key
from mlops_assets.artifacts import LineageError
from mlops_assets.home import Home
from mlops_assets.signing import load_key, new_key, public_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

VARIABLE = "MLOPS_LINK_KEY"


def page_key(home: Home) -> "Ed25519PrivateKey":
    """The key, made on first use and believed from then on.

    Raises LineageError when it cannot be read, or when the list of approvers names another.
    """
    path = home.root / "approval_page_key.pem"
    home.prepare()
    with (home.root / "approval_page.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if not os.environ.get(VARIABLE) and not path.exists():
            new_key(path)
        key = load_key(None, path, VARIABLE)
        public = public_key(key)
        if read_approvers(home).link_key == public:
            return key
        if is_under_review(home):
            raise LineageError(
                "Decisions by link do not count: the list of approvers does not name this"
                " page's key.",
                f"Add this line to {approvers_file(home)}: link_key: {public}",
            )
        set_link_key(home, public)
    return key
