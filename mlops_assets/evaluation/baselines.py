"""What needs no language model: the commonest answer, and TF-IDF with a linear classifier.

Both are fitted on the train split alone. A tuned model that does not beat them is not worth
its cost, so they stand beside it in every table.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.artifacts import Artifact, ArtifactStore, Recipe
from mlops_assets.code_digest import code_digest
from mlops_assets.metrics import field_value
from mlops_assets.refs import Row, SplitsRef, read_rows, write_jsonl

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BaselineAnswers:
    """What the baselines answer to one row of the test split."""

    id: str
    majority: str
    tfidf: str


def answer_with_baselines(store: ArtifactStore, splits: SplitsRef) -> Artifact:
    """``baselines.jsonl``: an answer of each baseline to every test row, in its order."""
    inputs = {"splits": splits.artifact.digest}
    recipe = Recipe("baselines", inputs, {}, code_digest(__name__), ("scikit-learn",))

    def produce(directory: Path) -> dict[str, int]:
        logger.info("fitting the majority and TF-IDF baselines on the train split")
        folder = store.path(splits.artifact)
        train, test = (list(read_rows(folder / f"{name}.jsonl")) for name in ("train", "test"))
        constant = majority_answer(train)
        linear = tfidf_answers(train, test, tuple(splits.labels))
        answers = [
            BaselineAnswers(row.id, constant, answer)
            for row, answer in zip(test, linear, strict=True)
        ]
        return {"rows": write_jsonl(directory / "baselines.jsonl", answers)}

    return store.build(recipe, produce)


def read_baselines(store: ArtifactStore, artifact: Artifact) -> list[BaselineAnswers]:
    """The baselines' answers in the test rows' order."""
    with (store.path(artifact) / "baselines.jsonl").open(encoding="utf-8") as lines:
        return [BaselineAnswers(**json.loads(line)) for line in lines]


def majority_answer(train: Sequence[Row]) -> str:
    """The whole answer that occurs most often: the constant with the best exact match.

    Empty without train rows. Among equals the first in alphabetical order.
    """
    counts = Counter(row.answer for row in train)
    return min(counts, key=lambda answer: (-counts[answer], answer), default="")


def tfidf_answers(train: Sequence[Row], test: Sequence[Row], fields: Sequence[str]) -> list[str]:
    """Answers of one linear SVM for each field, on TF-IDF of words and word pairs."""
    if not train or not test:
        return ["" for _ in test]
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode")
    known = vectorizer.fit_transform([prompt_text(row) for row in train])
    asked = vectorizer.transform([prompt_text(row) for row in test])
    columns = {
        field: _classify(known, [field_value(row.answer, field) or "" for row in train], asked)
        for field in fields
    }
    return [_answer({field: columns[field][i] for field in fields}) for i in range(len(test))]


def prompt_text(row: Row) -> str:
    """What the customer wrote, without the system message that every row shares."""
    return "\n".join(item["content"] for item in row.prompt if item["role"] != "system")


def _classify(known: object, labels: Sequence[str], asked: object) -> list[str]:
    from sklearn.svm import LinearSVC

    if len(set(labels)) == 1:  # an SVM needs two classes
        count: int = asked.shape[0]  # type: ignore[attr-defined]
        return [labels[0]] * count
    model = LinearSVC(random_state=0).fit(known, labels)
    return [str(label) for label in model.predict(asked)]


def _answer(values: Mapping[str, str]) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))
