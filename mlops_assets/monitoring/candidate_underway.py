"""Is a candidate already between the gate and its users?"""

from datetime import datetime

from mlops_assets.approval_standing import pending
from mlops_assets.approvers import read_approvers
from mlops_assets.home import Home
from mlops_assets.release_state import read_release


def find_underway(home: Home, model: str, now: datetime) -> str | None:
    """What of this model waits for people or is on its way to users, in a clause; None if nothing.

    Raises LineageError when the ledger or the list of approvers cannot be read.
    """
    entries = home.ledger.entries()
    for found in pending(entries, read_approvers(home), now):
        asked = found.request.entry.decision
        if asked.model == model:
            return f"version {asked.version} waits for approval"
    state = read_release(entries, model)
    if state.candidate is not None:
        where = f"{state.stage} at {state.percent}%" if state.percent else state.stage
        return f"version {state.candidate.decision.version} is on its way to users ({where})"
    return None
