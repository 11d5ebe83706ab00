"""Finds what needs Microsoft Presidio: IBANs, wallets, national ids, phones, names and places.

Presidio's recognisers are called one by one, each only where the shape of its values stands in
the text; its engine would run them all, with a language model, on every text. Nothing here
opens a connection: models are loaded when they are installed and never fetched.
"""

import importlib.metadata
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from mlops_assets.artifacts import LineageError, digest_file, digest_json
from mlops_assets.identifiers import Span

Finder = Callable[[str], Iterator[Span]]

NATIONAL_IDS: Mapping[str, str | None] = {
    # Presidio's recogniser, and the words that must stand near where the form says too little.
    "UsSsnRecognizer": None,
    "UsItinRecognizer": None,
    "UkNinoRecognizer": None,
    "EsNifRecognizer": None,
    "EsNieRecognizer": None,
    "ItFiscalCodeRecognizer": None,
    "NhsRecognizer": "nhs|health service",
    "FiPersonalIdentityCodeRecognizer": "hetu|henkilötunnus|identity code",
    "InAadhaarRecognizer": "aadhaar|uidai",
    "AuTfnRecognizer": "tfn|tax file",
    "SgFinRecognizer": "fin|nric",
    "KrRrnRecognizer": "rrn|resident registration",
}
ID_WORDS = (
    *("ssn", "social security", "itin", "taxpayer"),
    *(word for words in NATIONAL_IDS.values() if words for word in words.split("|")),
)
"""Words, in lower case, beside which other runs of digits may be a national id."""

SHAPES = {
    "iban": re.compile(r"(?<![^\W_])[A-Za-z]{2}\d{2}(?:[ -]?[^\W_]){11,30}"),
    "crypto": re.compile(
        r"(?<![^\W_])(?:bc1[a-z0-9]{25,87}|BC1[A-Z0-9]{25,87}"
        r"|[13][1-9A-HJ-NP-Za-km-z]{25,34}|0x[0-9a-fA-F]{40})(?![^\W_])"
    ),
    "national_id": re.compile(
        r"\d{3}[- .]\d{2}[- .]\d{4}|\d\d ?\d\d ?\d\d ?[A-Da-d]|\d{7}-?[A-Za-z]"
        r"|\d\d[A-Za-z]\d\d[A-Za-z]\d{3}[A-Za-z]"
    ),
    "phone": re.compile(
        r"(?<![\w.,/#-])\+?\(?\d(?:[ ().\-/\u00a0]{0,3}\d){6,16}(?![\w%]|[.,/-]\d)"
    ),
}
"""What a text must hold before Presidio is asked (and, the first time, imported)."""

_PHONE_SAID = re.compile(
    r"\b(?P<phone>phone|telephone|tel|call|called|calling|mobile|cell|fax|whatsapp|sms|text|dial"
    r"|ring|reach|telefon|handy|teléfono|móvil|telefono|téléphone|portable)\b"
    r"|\b(?:order|invoice|ticket|tracking|parcel|serial|account|reference|ref|case|id|sku|code)\b",
    re.IGNORECASE,
)
_GROUPED = re.compile(r"\(\d{1,5}\)|\d+[ .\-/\u00a0]+\d+[ .\-/\u00a0]+\d")
_NEAR = 60  # characters in which a word tells what a number is
PIECE, OVERLAP = 2000, 200  # characters of a text in which national ids are sought at once
_SPACE = re.compile(r"\s")
_LANGUAGE = "en"  # Presidio asks for one; patterns do not depend on it

_SURE = 0.5  # Presidio's score from which a match without a check digit counts


def finders(regions: Sequence[str], model: str) -> Mapping[str, Finder]:
    """The finder of each entity; ``regions`` are those of phones without ``+``.

    People and places are among them where a spaCy model is named. Raises LineageError when it
    is not installed, and for a region that is none.
    """
    # At ERROR, Presidio would log a value that it cannot check.
    logging.getLogger("presidio-analyzer").disabled = True
    found = {
        "iban": _iban_finder(),
        "crypto": _crypto_finder(),
        "national_id": _national_id_finder(),
        "phone": _phone_finder(regions),
    }
    if model:
        named = _name_finder(model)
        found |= {entity: partial(named, entity) for entity in ("person", "location")}
    return found


def _iban_finder() -> Finder:
    from presidio_analyzer.predefined_recognizers import IbanRecognizer

    check = IbanRecognizer(exact_match=True)

    def find(text: str) -> Iterator[Span]:
        """The longest stretch from each beginning whose country, form and check digits fit."""
        done = 0
        for begin in re.finditer(r"(?<![^\W_])[A-Za-z]{2}\d{2}", text):
            stretch = SHAPES["iban"].match(text, begin.start())
            if stretch is None or begin.start() < done:
                continue
            ends = [m.end() for m in re.finditer(r"[^\W_]", stretch.group())][14:]
            for end in reversed(ends):
                value = re.sub(r"[ -]", "", stretch.group()[:end]).upper()
                if value.isascii() and check.validate_result(value):
                    done = begin.start() + end
                    yield begin.start(), done
                    break

    return find


def _crypto_finder() -> Finder:
    from presidio_analyzer.predefined_recognizers import CryptoRecognizer

    check = CryptoRecognizer()

    def find(text: str) -> Iterator[Span]:
        """Bitcoin addresses by their check sum, Ethereum's by their form."""
        for match in SHAPES["crypto"].finditer(text):
            value = match.group()
            if value.startswith("0x") or check.validate_result(value.replace("BC1", "bc1", 1)):
                yield match.span()

    return find


def _national_id_finder() -> Finder:
    from presidio_analyzer import predefined_recognizers

    known = [
        (getattr(predefined_recognizers, name)(), _words(words.split("|")) if words else None)
        for name, words in NATIONAL_IDS.items()
    ]

    def find(text: str) -> Iterator[Span]:
        for at, piece in _pieces(text):
            for recogniser, needed in known:
                if needed is None or needed.search(piece):
                    for start, end in _accepted(recogniser, needed, piece):
                        yield at + start, at + end

    return find


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """Where pieces of the text begin, after white space if there is any, and the pieces.

    Presidio compares what it finds with all else that it found: a text as a whole would cost
    the square of its length. The pieces overlap, so that none cuts a value and its words.
    """
    start = 0
    while len(text) - start > PIECE:
        yield start, text[start : start + PIECE]
        rest = start + PIECE - OVERLAP
        gap = _SPACE.search(text, rest, rest + OVERLAP // 4)
        start = gap.end() if gap else rest
    yield start, text[start:]


def _accepted(recogniser: Any, needed: re.Pattern[str] | None, text: str) -> Iterator[Span]:
    """What has the words that it needs before it; without any needed, what Presidio is sure of
    or one of its own words for the thing."""
    own = needed or _words(recogniser.context)
    for result in recogniser.analyze(text, recogniser.supported_entities):
        said = own.search(text, max(result.start - _NEAR, 0), result.start)
        if said or (needed is None and result.score >= _SURE):
            value = text[result.start : result.end]  # some patterns begin with a space
            yield result.end - len(value.lstrip()), result.end


def _words(words: Sequence[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b", re.IGNORECASE)


MOST_JUDGED = 1000
"""Numbers of one text that are looked at closely, each for a quarter of a millisecond. In a
text with more, which nobody wrote by hand, the others count as phone numbers unseen."""


def _phone_finder(regions: Sequence[str]) -> Finder:
    from phonenumbers import SUPPORTED_REGIONS
    from presidio_analyzer.predefined_recognizers import PhoneRecognizer

    if not regions or (unknown := set(regions) - SUPPORTED_REGIONS):
        named = sorted(unknown)[0] if regions else "no country"
        raise LineageError(
            f"`phone_regions` names {named!r}, whose phone numbers are not known.",
            "Name countries by their two capital letters (ISO 3166), such as GB.",
        )
    valid, well_grouped = (
        PhoneRecognizer(supported_regions=regions, leniency=leniency) for leniency in (1, 2)
    )

    def find(text: str) -> Iterator[Span]:
        """Numbers with a ``+``, in the grouping of a region, or after a word such as `call`."""
        judged = 0
        for match in SHAPES["phone"].finditer(text):
            number = match.group()
            said = list(_PHONE_SAID.finditer(text, max(match.start() - _NEAR, 0), match.start()))
            if number.startswith("+") or (said and said[-1]["phone"]):
                recogniser = valid
            elif _GROUPED.search(number) and not said:
                recogniser = well_grouped
            else:
                continue
            judged += 1
            if judged > MOST_JUDGED:
                yield match.span()
                continue
            for result in recogniser.analyze(number, ["PHONE_NUMBER"]):
                yield match.start() + result.start, match.start() + result.end

    return find


def model_version(model: str) -> str:
    """What names the content of a spaCy model. Raises LineageError when it is not installed."""
    folder = Path(model)
    if (folder / "meta.json").is_file():
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return digest_json([[str(path.relative_to(folder)), digest_file(path)] for path in files])
    try:
        return importlib.metadata.version(model)
    except importlib.metadata.PackageNotFoundError as error:
        raise _no_model(model) from error


def _no_model(model: str) -> LineageError:
    return LineageError(
        f"The spaCy model {model} is not installed.",
        "Install it (nothing is downloaded here), or leave `ner_model` empty.",
    )


def _name_finder(model: str) -> Callable[[str, str], Iterator[Span]]:
    from presidio_analyzer.nlp_engine import SpacyNlpEngine
    from presidio_analyzer.predefined_recognizers import SpacyRecognizer

    model_version(model)  # Presidio would try to download what is not installed
    engine = SpacyNlpEngine(models=[{"lang_code": _LANGUAGE, "model_name": model}])
    try:
        engine.load()
    except OSError as error:  # a package, but no model
        raise _no_model(model) from error
    recogniser = SpacyRecognizer()

    @lru_cache(maxsize=1)  # people and places of one text are asked for one after the other
    def understood(text: str) -> Any:
        return engine.process_text(text, _LANGUAGE)

    def find(entity: str, text: str) -> Iterator[Span]:
        for result in recogniser.analyze(text, [entity.upper()], understood(text)):
            yield result.start, result.end

    return find
