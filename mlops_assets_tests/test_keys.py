"""Keys and the list of approvers, and the commands that a person types."""

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlops_assets.approval_requests import utc_now
from mlops_assets.approvers import Approvers, approvers_file, read_approvers
from mlops_assets.artifacts import LineageError
from mlops_assets.cli import app
from mlops_assets.home import Home
from mlops_assets.profiles import PROJECT
from mlops_assets.promotion import registry
from mlops_assets.signing import load_key, new_key, public_key, sign, signed_by
from mlops_assets_tests.releases import MODEL, enlist, request

NOWHERE = Path("nowhere.pem")
PUBLIC = "A" * 43 + "="


def mlops(*words: str) -> tuple[int, str]:
    """A command's exit code and what it prints."""
    ended = CliRunner().invoke(app, list(words))
    return ended.exit_code, ended.output


@pytest.fixture
def no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "reconcile", lambda home, name: {"champion": 1})


def test_a_key_is_private_and_signs(tmp_path: Path) -> None:
    path = tmp_path / "keys/ada.pem"
    key = new_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = load_key(path, NOWHERE)
    assert public_key(again) == public_key(key)
    assert signed_by(public_key(key), sign(again, b"words"), b"words")
    assert not signed_by(public_key(key), sign(again, b"words"), b"other words")
    with pytest.raises(LineageError, match="There is a key at"):
        new_key(path)


def test_a_key_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ada.pem"
    expected = public_key(new_key(path))
    for value in (path.read_text(), str(path)):
        monkeypatch.setenv("MLOPS_SIGNING_KEY", value)
        assert public_key(load_key(None, NOWHERE)) == expected


def test_an_encrypted_key_needs_its_passphrase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_SIGNING_KEY_PASSPHRASE", "correct horse")
    path = tmp_path / "ada.pem"
    expected = public_key(new_key(path))
    assert b"ENCRYPTED" in path.read_bytes()
    assert public_key(load_key(path, NOWHERE)) == expected
    monkeypatch.setenv("MLOPS_SIGNING_KEY_PASSPHRASE", "battery staple")
    with pytest.raises(LineageError, match="passphrase is not its own") as wrong:
        load_key(path, NOWHERE)
    assert "battery" not in str(wrong.value)
    monkeypatch.delenv("MLOPS_SIGNING_KEY_PASSPHRASE")
    with pytest.raises(LineageError, match="is encrypted"):
        load_key(path, NOWHERE)


def rsa_key() -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    return generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (None, 0o600, "cannot be read"),
        (b"no key", 0o600, "no PEM key"),
        (b"x" * 100_000, 0o600, "no PEM key"),
        ("elliptic", 0o600, "not an Ed25519 key"),
        ("ours", 0o640, "can be read by others"),
    ],
)
def test_what_is_no_key_is_refused(
    tmp_path: Path, content: bytes | str | None, mode: int, said: str
) -> None:
    path = tmp_path / "key.pem"
    if content == "ours":
        new_key(path)
    elif content is not None:
        path.write_bytes(rsa_key() if isinstance(content, str) else content)
    if path.exists():
        path.chmod(mode)
    with pytest.raises(LineageError, match=said):
        load_key(path, NOWHERE)


ENTRY = f"approvers:\n- name: ada\n  public_key: {PUBLIC}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("approver: []", "Extra inputs"),
        ("- ada", "valid dictionary"),
        ("approvers: [", "expected the node"),
        (ENTRY + "  role: owner\n", "Extra inputs"),
        (ENTRY + ENTRY.partition("\n")[2].replace("ada", "bob").replace("A=", "B="), "32 bytes"),
        (ENTRY + f"link_key: {PUBLIC}\n", "the link_key is the key of an approver"),
        (ENTRY.replace("ada", "automatic"), "a machine's own key"),
        (ENTRY + "  name: bob\n", "the key 'name' stands twice"),
        (ENTRY.replace("ada", "Ada Lovelace"), "name"),
        (ENTRY.replace("AAA", "x"), "32 bytes"),
        (ENTRY + "  until: tomorrow\n", "until"),
        (ENTRY + "  until: 2026-01-01T00:00:00\n", "timezone"),
        (ENTRY + "  email: nobody\n", "email"),
        (ENTRY + ENTRY.partition("\n")[2], "stands on it twice"),
        (ENTRY + ENTRY.partition("\n")[2].replace("ada", "bob"), "public_key .* twice"),
    ],
)
def test_a_list_that_is_not_strictly_ours_is_refused(home: Home, text: str, said: str) -> None:
    approvers_file(home).write_text(text)
    with pytest.raises(LineageError, match=rf"(?s)is not valid: .*{said}"):
        read_approvers(home)


def test_the_example_in_the_docs_is_a_list_of_approvers(home: Home) -> None:
    page = (PROJECT / "docs/approval.md").read_text()
    example = next(block for block in page.split("```yaml\n") if block.startswith("approvers:"))
    approvers_file(home).write_text(example.partition("```")[0])
    found = read_approvers(home)
    assert found.of_author("Ada@example.com") == "ada"
    assert found.of_author("grace") == "grace"
    assert found.of_author("") is None


def test_a_list_that_everybody_can_write_says_nothing(home: Home) -> None:
    enlist(home, "ada")
    approvers_file(home).chmod(0o666)
    with pytest.raises(LineageError, match=r"can be written by everybody.*chmod o-w"):
        read_approvers(home)


def test_a_list_that_is_named_must_be_there(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_approvers(home) == Approvers()
    monkeypatch.setenv("MLOPS_APPROVERS", str(home.root / "elsewhere.yaml"))
    with pytest.raises(LineageError, match="does not exist"):
        read_approvers(home)


def test_the_shipped_loop(home: Home, no_registry: None) -> None:
    request(home)
    code, printed = mlops("keys", "new", "ada", "--email", "ada@example.org")
    assert code == 0, printed
    assert "Added to" in printed
    key = home.root / "keys/ada.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(approvers_file(home).stat().st_mode) == 0o600
    assert key.read_text() not in printed
    listed = json.loads(mlops("keys", "list", "--json")[1])
    assert [(entry["name"], entry["email"]) for entry in listed["approvers"]] == [
        ("ada", "ada@example.org")
    ]
    assert "ada@example.org" in mlops("keys", "list")[1]


def test_a_list_under_review_is_not_written_to(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviewed = tmp_path / "approvers.yaml"
    reviewed.write_text("approvers: []\n")
    monkeypatch.setenv("MLOPS_APPROVERS", str(reviewed))
    code, printed = mlops("keys", "new", "ada")
    assert code == 0, printed
    assert "- name: ada" in printed
    assert reviewed.read_text() == "approvers: []\n"
    entry = printed.partition("reviews:\n")[2]
    reviewed.write_text(f"approvers:\n{entry}")
    assert read_approvers(home).find("ada")
    assert mlops("keys", "new", "bob", "--add")[0] == 0
    assert [approver.name for approver in read_approvers(home).approvers] == ["ada", "bob"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("keys", "new", "../ada"), "no name of an approver"),
        (("keys", "new", "bob", "--email", "bob"), "no e-mail address"),
        (("keys", "new", "ada"), "already"),
        (("keys", "new", "bob", "--email", "Ada@example.org"), "as that of ada already"),
        (("keys", "new", "automatic"), "machine's own key"),
        (("approve", "1", "--as", "bob", "--reason", "fine"), "mlops keys new bob"),
        (("approve", "9", "--as", "ada", "--reason", "fine"), "No approval was requested"),
    ],
)
def test_a_command_says_what_is_wrong(home: Home, words: tuple[str, ...], said: str) -> None:
    request(home)
    enlist(home, "ada", email="ada@example.org")
    code, printed = mlops(*words)
    assert code == 1
    assert said in printed
    assert sorted(path.name for path in (home.root / "keys").iterdir()) == ["ada.pem"]


def test_approve_reject_and_audit_as_commands(home: Home, no_registry: None) -> None:
    request(home, required_approvals=2, now=utc_now())
    for name in ("ada", "bob"):
        assert mlops("keys", "new", name)[0] == 0
    code, printed = mlops("approve", "1", "--as", "ada", "--reason", "better on every slice")
    assert (code, "1 more approval is needed" in printed) == (0, True), printed
    code, printed = mlops("approve", "1", "--as", "bob", "--reason", "agreed", "--json")
    assert code == 0, printed
    answer = json.loads(printed)
    assert (answer["outcome"], answer["promoted"], answer["version"]) == ("approved", 4, 1)
    code, printed = mlops("reject", "1", "--as", "ada", "--reason", "on second thoughts")
    assert (code, "already" in printed) == (1, True), printed
    code, printed = mlops("audit")
    assert (code, f"{MODEL} version 1" in printed) == (0, True), printed
    assert "every promotion has its approvals" in printed
    head = json.loads(mlops("audit", "--json")[1])["head"]
    assert mlops("audit", "--head", head)[0] == 0
    assert mlops("audit", "--head", "f" * 64)[0] == 1


def test_a_rejection_asks_for_no_more_approvals(home: Home, no_registry: None) -> None:
    request(home, required_approvals=2, now=utc_now())
    enlist(home, "ada")
    code, printed = mlops("reject", "1", "--as", "ada", "--reason", "wrong tone")
    assert code == 0, printed
    assert "rejected by ada" in printed
    assert "request is closed: ada rejected it" in printed
    assert "needed" not in printed
