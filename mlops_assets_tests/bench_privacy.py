"""How much personal data is found and how fast, beside Presidio's engine as it comes."""

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from mlops_assets.dataset.dice import Dice
from mlops_assets.dataset.synthetic import Mix, sound_tickets
from mlops_assets.privacy import DEFAULT_POLICY, Detector, Hit
from mlops_assets_tests.planted import MAKERS, Sample, samples

Find = Callable[[str], Iterable[Hit]]

ROUNDS = 5
TICKETS = 1000
PRESIDIO_NAMES = {
    "EMAIL_ADDRESS": "email",
    "IBAN_CODE": "iban",
    "CRYPTO": "crypto",
    "CREDIT_CARD": "card",
    "MAC_ADDRESS": "mac",
    "IP_ADDRESS": "ip",
    "PHONE_NUMBER": "phone",
    **dict.fromkeys(("US_SSN", "US_ITIN", "UK_NHS", "UK_NINO", "ES_NIF"), "national_id"),
    **dict.fromkeys(("ES_NIE", "IT_FISCAL_CODE"), "national_id"),
}


class Quality(NamedTuple):
    """Of one entity: the share of planted values found whole, and of findings that are one."""

    recall: float
    precision: float
    """1 where nothing was found."""


def quality(found: Sequence[Sample], find: Find) -> dict[str, Quality]:
    """Recall and precision of each entity. A value counts as found when it is covered whole."""
    planted, hit, said, right = (Counter[str]() for _ in range(4))
    for sample in found:
        start = sample.text.find(sample.value) if sample.value else -1
        end = start + len(sample.value)
        planted[sample.entity] += 1
        for place in find(sample.text):
            said[place.entity] += 1
            whole = sample.entity == place.entity and place.start <= start and end <= place.end
            hit[place.entity] += whole
            overlaps = start >= 0 and place.start < end and start < place.end
            right[place.entity] += sample.entity == place.entity and overlaps
    return {
        entity: Quality(
            hit[entity] / planted[entity], right[entity] / said[entity] if said[entity] else 1.0
        )
        for entity in MAKERS
    }


@cache
def presidio() -> Find:
    """Presidio's own engine with all of its default recognisers and thresholds.

    Its default language model cannot be fetched offline, so its pipeline is spaCy's blank one,
    with each word's lower case as its lemma: that is what Presidio compares context words with.
    """
    # Read when tldextract is imported: else it asks the network for the public suffix list.
    os.environ["TLDEXTRACT_PUBLIC_SUFFIX_LIST_URLS"] = ""
    import spacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine
    from spacy.language import Language

    @Language.component("lower_case_lemma")
    def lemma(document: Any) -> Any:
        for word in document:
            word.lemma_ = word.lower_
        return document

    pipeline = spacy.blank("en")
    pipeline.add_pipe("lower_case_lemma")
    blank = SpacyNlpEngine()
    blank.nlp = {"en": pipeline}
    engine = AnalyzerEngine(nlp_engine=blank)

    def find(text: str) -> list[Hit]:
        results = engine.analyze(text, language="en")
        known = [item for item in results if item.entity_type in PRESIDIO_NAMES]
        return [Hit(r.start, r.end, PRESIDIO_NAMES[r.entity_type]) for r in known]

    return find


def privacy() -> None:
    """Recall and precision on planted values, and rows a second on tickets and on hits."""
    ours, theirs = Detector(DEFAULT_POLICY).find, presidio()
    planted = samples(7, 200)
    _print_quality(quality(planted, ours), quality(planted, theirs))
    texts = {
        "tickets' questions": _questions(),
        "a value in each": [sample.text for sample in planted if sample.value],
    }
    print("\n| texts | rows | ours, us/row | Presidio, us/row | ratio |\n|---|---|---|---|---|")
    for name, rows in texts.items():
        mine, peer = _microseconds(rows, {"ours": ours, "peer": theirs}).values()
        print(f"| {name} | {len(rows)} | {mine:.0f} | {peer:.0f} | {peer / mine:.0f} |")


def _questions() -> list[str]:
    """What customers write in sound tickets, which is what a row is scanned for."""
    tickets = sound_tickets(Dice(1), TICKETS, Mix())
    return [ticket["messages"][0]["content"] for ticket in tickets]


def _print_quality(ours: Mapping[str, Quality], theirs: Mapping[str, Quality]) -> None:
    print("\n| entity | recall | precision | Presidio: recall | precision |\n|---|---|---|---|---|")
    for entity, (recall, precision) in ours.items():
        peer = theirs[entity]
        known = entity in PRESIDIO_NAMES.values()
        cells = f"{peer.recall:.3f} | {peer.precision:.3f}" if known else "not looked for |"
        print(f"| {entity} | {recall:.3f} | {precision:.3f} | {cells} |")


def _microseconds(rows: Sequence[str], systems: Mapping[str, Find]) -> dict[str, float]:
    """Median of interleaved rounds, the first dropped; microseconds of one row."""
    taken: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(ROUNDS + 1):
        for name, find in systems.items():
            started = time.perf_counter()
            for row in rows:
                find(row)
            taken[name].append((time.perf_counter() - started) / len(rows) * 1e6)
    return {name: statistics.median(times[1:]) for name, times in taken.items()}
