"""Whatever people say: caps hold, and everything that came in is accounted for."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_assets.home import Home
from mlops_assets.monitoring.feedback import caps
from mlops_assets.monitoring.feedback.lessons import REGENERATION
from mlops_assets.monitoring.feedback.screening import REASONS
from mlops_assets_tests.said import answer, label, request, vote, words
from mlops_assets_tests.test_feedback_rows import lines, make

people = st.sampled_from(["ann", "bob", "eve", "kim", "lou"])


@given(
    st.lists(st.tuples(people, st.sampled_from(["a", "b", ""])), max_size=60),
    st.integers(1, 8),
    st.floats(0.05, 1),
    st.floats(0.05, 1),
    st.integers(0, 20),
)
def test_caps_hold_for_anybody(
    given: list[tuple[str, str]], most: int, person_share: float, tenant_share: float,
    beside: int,
) -> None:  # fmt: skip
    dropped = caps.capped(
        given, lambda item: item[0], lambda item: item[1], most, person_share, tenant_share, beside
    )
    kept = [item for place, item in enumerate(given) if place not in dropped]
    for who in {person for person, _ in kept}:
        rows = sum(person == who for person, _ in kept)
        assert rows <= most
        assert rows <= person_share * len(kept) + 1e-6
    for which in {tenant for _, tenant in kept} - {""}:
        assert (
            sum(tenant == which for _, tenant in kept) <= tenant_share * (len(kept) + beside) + 1e-6
        )


@st.composite
def feedback(draw: st.DrawFn) -> tuple[list[Any], list[Any], list[Any]]:
    """Any requests, votes and labels, many of them nonsense or about the same."""
    texts = st.sampled_from(["what to test", "what to train", "x", "y", "mail m@example.com", " "])
    asked = [
        request(number, draw(texts) or words(number), draw(people), output=draw(answers))
        for number in range(draw(st.integers(1, 12)))
    ]
    about = st.sampled_from([*asked, request(99)])
    votes = draw(st.lists(st.builds(
        lambda one, said, score, id: vote(one, said, score=score, id=str(id)),
        about, answers, st.sampled_from([0.0, 1.0]), st.uuids()), max_size=15))  # fmt: skip
    given = {one.id: one for one in draw(st.lists(about, max_size=4))}
    labels = [
        label(one, draw(answers), draw(st.sampled_from(["li", "mo"]))) for one in given.values()
    ]
    return asked, votes, labels


answers = st.sampled_from(["", "no", answer(), answer("login"), answer("shipping"), answer("?")])


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(feedback(), st.floats(0.2, 1), st.integers(1, 4))
def test_whatever_is_said_the_counts_add_up(
    home: Home, said: tuple[list[Any], list[Any], list[Any]], share: float, most: int
) -> None:
    asked, votes, labels = said
    for old in (home.root / "labels").glob("*.jsonl"):
        old.unlink()
    made = make(home, asked, votes, labels, max_person_share=share, max_rows_per_person=most,
                regression_share=0.3)  # fmt: skip
    kinds = made.summary["kinds"]
    for kind in kinds.values():
        parts = (
            kind["training"] + kind["cases"] + kind["signals"] + sum(kind["quarantined"].values())
        )
        assert kind["received"] == parts
    spoken = [kind["received"] for name, kind in kinds.items() if name != REGENERATION]
    assert sum(spoken) == len(votes) + len(labels)
    assert all(set(kind["quarantined"]) <= set(REASONS) for kind in kinds.values())
    origins = lines(home, made, "provenance.jsonl")
    assert len(origins) == made.summary["training"] + made.summary["cases"]
    for file in ("training.jsonl", "regressions.jsonl"):
        ours = [line["person"] for line in origins if line["file"] == file]
        for who in set(ours):
            assert ours.count(who) <= min(most, share * len(ours) + 1e-6)
