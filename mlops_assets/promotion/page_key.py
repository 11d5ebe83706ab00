"""The key of the approval page: it makes the personal links, and signs what is decided by them.

It is a file of the home that only its owner may read, or the PEM (or its path) in
``MLOPS_LINK_KEY``. Decisions by link count only while the list of approvers names its public
half as ``link_key``. A home's own list is told of the first one here. One under review is
changed by people, and nobody but people replaces a key: what was decided by links of the other
would be void. Until then no personal link is sent.
"""

import os
from typing import TYPE_CHECKING

from mlops_assets.approvers import approvers_file, is_under_review, read_approvers, set_link_key
from mlops_assets.artifacts import LineageError
from mlops_assets.file_lock import exclusive_lock
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
    with exclusive_lock(home.root / "approval_page.lock"):
        if not os.environ.get(VARIABLE) and not path.exists():
            new_key(path)
        key = load_key(None, path, VARIABLE)
        public = public_key(key)
        believed = read_approvers(home).link_key
        if believed == public:
            return key
        if believed or is_under_review(home):
            replaced = " instead; what was decided by links of the other key is void then"
            raise LineageError(
                f"Decisions by link do not count: the list of approvers names"
                f" {'another key' if believed else 'no key'} for this page.",
                f"Put this line into {approvers_file(home)}{replaced if believed else ''}:"
                f" link_key: {public}",
            )
        set_link_key(home, public)
    return key
