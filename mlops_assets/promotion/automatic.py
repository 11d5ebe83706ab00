"""Approval without a person, for the risk classes that a profile names (by default none).

The key is this machine's own, made on the first use, and stands on the list as ``automatic``. One
that was lost, or was never copied to the next machine, is followed by another with its own name,
and what it has signed goes on counting. A list under version control is never written to: there,
somebody has to have put the key on.
"""

import logging
from datetime import datetime
from hashlib import sha256

from mlops_assets.approval_requests import OPEN, Standing
from mlops_assets.approvers import MACHINE, Approver, add_approver, is_under_review, read_approvers
from mlops_assets.home import Home
from mlops_assets.promotion.approval import Answer, approve
from mlops_assets.signing import load_key, new_key, public_key

logger = logging.getLogger(__name__)


def approve_automatically(home: Home, found: Standing, now: datetime) -> Answer | None:
    """Approve an open request whose policy allows it; None where it needs a person.

    Raises LineageError when the approval is refused.
    """
    request = found.request
    if found.state != OPEN or not request.automatic:
        return None
    if any(approval.automatic for approval in found.approvals):
        return None
    path = home.root / "keys" / f"{MACHINE}.pem"
    key = load_key(path, path) if path.exists() else new_key(path)
    if (name := _listed_name(home, public_key(key))) is None:
        logger.warning("%s is not on the list of approvers: a person has to approve", path)
        return None
    asked = request.entry.decision
    reason = f"risk class {request.terms.policy.risk_class} is approved automatically here"
    return approve(
        home, asked.version, name, reason, key, model=asked.model, request=request.id, now=now
    )


def _listed_name(home: Home, public: str) -> str | None:
    """The name of this machine's key on the list, put there if need be; None if it may not be."""
    known = read_approvers(home)
    for approver in known.approvers:
        if approver.automatic and approver.public_key == public:
            return approver.name
    if is_under_review(home):
        return None
    name = (
        f"{MACHINE}-{sha256(public.encode()).hexdigest()[:8]}" if known.find(MACHINE) else MACHINE
    )
    add_approver(home, Approver(name=name, public_key=public, automatic=True))
    return name
