"""Approval without a person, for the risk classes that a profile names (by default none).

The key is this machine's own, made on the first use, and stands on the list as ``automatic``. A
list under version control is never written to: there, somebody has to have put it on.
"""

import logging
from datetime import datetime

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
    if not is_under_review(home):
        add_approver(home, Approver(name=MACHINE, public_key=public_key(key), automatic=True))
    elif read_approvers(home).find(MACHINE) is None:
        logger.warning("%s is not on the list of approvers: a person has to approve", MACHINE)
        return None
    asked = request.entry.decision
    reason = f"risk class {request.terms.policy.risk_class} is approved automatically here"
    return approve(
        home, asked.version, MACHINE, reason, key, model=asked.model, request=request.id, now=now
    )
