"""Homes with releases that were approved, for the tests of serving; no registry is asked."""

from pathlib import Path

from mlops_assets.approval_requests import utc_now
from mlops_assets.home import Home
from mlops_assets.ledger import APPROVED, Decision, LedgerEntry
from mlops_assets.promotion.approval import settle
from mlops_assets.statements import APPROVE, signed
from mlops_assets_tests.releases import MODEL, enlist, request


def approve(home: Home, version: int, seed: str) -> None:
    """Have a version asked for, and approved by ada; what is left is to promote it."""
    now, ada = utc_now(), enlist(home, "ada")
    asked = request(home, version, seed, now=now).request
    answer = signed(asked.statement(APPROVE, ada.name, "fine", now, ""), ada.key)
    decided = asked.entry.decision
    home.ledger.append(
        Decision(answer.digest, APPROVED, "fine", MODEL, version, decided.bundle, answer.as_json()),
        now,
    )


def promote(home: Home, version: int, seed: str) -> LedgerEntry:
    """Have a version approved and promoted; the registry's aliases do not follow."""
    approve(home, version, seed)
    promoted = settle(home, MODEL)
    assert promoted is not None
    return promoted


def approved_home(folder: Path) -> Home:
    """A new home below the folder, whose version 1 is approved."""
    home = Home(folder / "home")
    home.prepare()
    promote(home, 1, "a")
    return home
