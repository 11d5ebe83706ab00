"""Finds what a pattern and a check digit tell: secrets, e-mail, cards, IP and MAC addresses.

Standard library only, so that a text costs microseconds. Each finder yields the places of its
values, ``(start, end)``. Repeats are bounded: no hostile text can make matching slow.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator

Span = tuple[int, int]

# The last label begins with a letter, so that `left-pad@1.3.0` stays. It need not be a known
# suffix: a mistyped address is personal all the same. The sign may be written for a URL or HTML.
_EMAIL = re.compile(
    r"[\w+%][\w.+%'-]{0,63}(?:@|%40|&#64;|&#x40;)"
    r"(?:[\w-]{1,63}\.){1,8}[^\W\d_][\w-]{1,62}",
    re.IGNORECASE,
)
_DIGIT_GROUPS = re.compile(r"\d+(?:[\s.-]{1,2}\d+)*")
_CARD_DIGITS = range(13, 20)
# First digits and lengths by network: a check digit alone lets one number in ten pass.
_CARD_NETWORKS = re.compile(
    r"""4(?:\d{12}|\d{15}|\d{18})                                  # Visa
    |   5[0-9]\d{11,17}                                            # Mastercard, Maestro, Verve
    |   (?:222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}      # Mastercard
    |   220[0-4]\d{12,15}                                          # Mir
    |   3[47]\d{13}                                                # American Express
    |   3(?:0[0-59]|[689]\d)\d{11,16}                              # Diners Club
    |   35(?:2[89]|[3-8]\d)\d{12,15}                               # JCB
    |   6\d{12,18}                                                 # Discover, UnionPay, Maestro
    |   (?:8[12]\d\d|9792)\d{12}                                   # RuPay, Troy""",
    re.VERBOSE,
)
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9a-fA-F:]{2,39}(?:\.\d{1,3}){0,3}(?![\w:])")
_A_VERSION = re.compile(
    r"(?:\b(?:version|firmware|release|build|driver|update|patch|app|bios|kernel)\W{1,3}v?|\bv)$",
    re.IGNORECASE,
)
_MAC = re.compile(
    r"(?<![\w:-])[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}(?![\w:-])", re.IGNORECASE
)
_CREDENTIALS = re.compile(
    r"(?<=://)[^\s/?#:@\"'<>]{0,256}:[^\s/?#\"'<>]{1,256}(?=@)"
    r"|(?<=[?&])(?:access_token|token|api_?key|secret|password|sig|signature)=[^\s&#\"'<>]{6,2048}",
    re.IGNORECASE,
)
_KEY_BLOCK = (
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----"
    r"(?:(?!-----END)[\s\S]){0,20000}(?:-----END [A-Z ]{0,40}-----)?"
)
_SECRET = re.compile(
    rf"{_KEY_BLOCK}|(?<![A-Za-z0-9])(?:"
    r"A(?:KIA|SIA)[A-Z0-9]{16}"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{22,255}|glpat-[\w-]{20,64}"
    r"|sk-(?=[\w-]{0,40}\d)[\w-]{20,256}"  # OpenAI, Anthropic
    r"|[rs]k_(?:live|test)_[A-Za-z0-9]{16,256}"  # Stripe
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,256}"  # Slack
    r"|AIza[\w-]{35}|hf_[A-Za-z0-9]{30,64}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,256}"
    r"|SG\.[\w-]{16,64}\.[\w-]{16,64}"  # SendGrid
    r"|eyJ[\w-]{8,1024}\.eyJ[\w-]{8,8192}(?:\.[\w-]{1,4096})?"  # JSON Web Token
    r")|(?i:aws_secret_access_key|aws_secret_key)[\"']?\s{0,3}[:=]\s{0,3}[\"']?[A-Za-z0-9/+=]{40}"
)
SECRET_SIGNS = (
    *("-----BEGIN", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    *("github_pat_", "glpat-", "sk-", "_live_", "_test_", "xox", "AIza", "hf_", "npm_", "pypi-"),
    *("SG.", "eyJ", "secret_access_key", "secret_key", "SECRET_ACCESS_KEY", "SECRET_KEY"),
)
"""A secret that ``find_secrets`` knows holds one of these."""
SIGNS_OF_SIGNS = ("_", "-", "AKIA", "ASIA", "xox", "AIza", "SG.", "eyJ")
"""And every sign holds one of these."""


def find_secrets(text: str) -> Iterator[Span]:
    """Keys and tokens of well-known services, JSON Web Tokens, private key blocks (torn too)."""
    return _spans(_SECRET, text)


def find_credentials(text: str) -> Iterator[Span]:
    """The ``user:password`` of a URL, and the token in its query."""
    return _spans(_CREDENTIALS, text)


def find_emails(text: str) -> Iterator[Span]:
    """E-mail addresses, also where the sign is written ``%40`` or ``&#64;``."""
    return _spans(_EMAIL, text)


def find_cards(text: str) -> Iterator[Span]:
    """Card numbers, however their digits are grouped.

    Another number may stand right beside the card's, so every stretch of whole groups is tried,
    and where stretches overlap all of them go: better one number too many than four digits of
    a card.
    """
    for run in _DIGIT_GROUPS.finditer(text):
        if run.end() - run.start() >= _CARD_DIGITS.start:
            yield from merged(_card_stretches(text, run.start(), run.group()))


def find_ip_addresses(text: str) -> Iterator[Span]:
    """IPv4 and IPv6 addresses; not the machine's own, and no version numbers."""
    for match in (*_IPV4.finditer(text), *_IPV6.finditer(text)):
        try:
            address = ipaddress.ip_address(match.group())
        except ValueError:
            continue
        named = text[max(match.start() - 20, 0) : match.start()]
        harmless = address.is_loopback or address.is_unspecified or _A_VERSION.search(named)
        if not harmless and any(map(str.isdigit, match.group())):
            yield match.span()


def find_mac_addresses(text: str) -> Iterator[Span]:
    """Hardware addresses, with colons or hyphens."""
    for match in _MAC.finditer(text):
        if set(re.sub(r"\W", "", match.group()).lower()) not in ({"0"}, {"f"}):
            yield match.span()


def passes_luhn(digits: str) -> bool:
    """Whether the last digit is right by the Luhn formula (ISO/IEC 7812-1, annex B)."""
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 * (value > 9) for value in doubled) % 10 == 0


def merged(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, those that overlap made one."""
    result: list[Span] = []
    for start, end in sorted(spans):
        if result and start < result[-1][1]:
            start, end = result[-1][0], max(end, result.pop()[1])
        result.append((start, end))
    return result


def _card_stretches(text: str, offset: int, run: str) -> Iterator[Span]:
    groups = [(offset + m.start(), offset + m.end()) for m in re.finditer(r"\d+", run)]
    for first, (start, _) in enumerate(groups):
        digits = ""
        for group_start, end in groups[first : first + _CARD_DIGITS.stop]:
            digits += text[group_start:end]
            if len(digits) > _CARD_DIGITS[-1]:
                break
            fits = len(digits) in _CARD_DIGITS and _CARD_NETWORKS.fullmatch(digits)
            if fits and passes_luhn(digits):
                yield start, end


def _spans(pattern: re.Pattern[str], text: str) -> Iterator[Span]:
    return (match.span() for match in pattern.finditer(text))
