"""The report as one HTML page that needs nothing beside itself, and as one picture.

The page is a Jinja template with autoescaping in a sandbox: what customers and models wrote
is shown as text, whatever it holds. Charts are inline SVG drawn by the template. It bears no
date: the same report gives the same bytes on any day.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlops_assets import metrics
from mlops_assets.evaluation import scoring
from mlops_assets.evaluation.comparison import Comparison
from mlops_assets.evaluation.examples import split_examples, suite_examples
from mlops_assets.evaluation.excerpts import excerpt
from mlops_assets.evaluation.scoring import Scored
from mlops_assets.html_pages import page_environment
from mlops_assets.refs import Row

TEMPLATE = "report.html.jinja"
JUDGE_TEMPLATE = "judge.html.jinja"
NAMES = {
    "base": "Base model",
    "tuned": "Tuned candidate",
    "champion": "Champion in production",
    "majority": "Commonest answer",
    "tfidf": "TF-IDF + linear SVM",
}
SHORT = {
    "base": "Base",
    "tuned": "Tuned",
    "champion": "Champion",
    "majority": "Majority",
    "tfidf": "TF-IDF",
}
COLOURS = {
    "base": "#94a3b8",
    "tuned": "#4f46e5",
    "champion": "#0d9488",
    "majority": "#cbd5e1",
    "tfidf": "#d97706",
}
LARGEST_MATRIX = 14  # labels; beyond that a list of confusions says more
MOST_CONFUSIONS = 15
CLOSENESS = "non_llm_string_similarity"  # ragas' metric that is shown first for free text
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def write_page(
    directory: Path,
    report: Mapping[str, Any],
    rows: Sequence[Row],
    expected: Scored,
    systems: Mapping[str, Scored],
    compared: Sequence[Comparison],
) -> None:
    """Write ``report.html`` and ``plot.png``."""
    html = render(report, rows, expected, systems, compared)
    (directory / "report.html").write_text(html, "utf-8")
    draw_plot(report, directory / "plot.png")


def render(
    report: Mapping[str, Any],
    rows: Sequence[Row],
    expected: Scored,
    systems: Mapping[str, Scored],
    compared: Sequence[Comparison],
) -> str:
    """The page's HTML."""
    filters: dict[str, Callable[..., Any]] = {
        "percent": percent,
        "points": points,
        "plain": plain,
        "metric": metric_name,
        "excerpt": excerpt,
    }
    environment = page_environment(Path(__file__).parent, filters)
    rival = rival_of(report)
    return environment.get_template(TEMPLATE).render(
        report=report,
        systems=[name for name in scoring.SYSTEMS if report["exact_match"][name] is not None],
        models=[name for name in scoring.MODELS if report["exact_match"][name] is not None],
        names=NAMES,
        short=SHORT,
        colours=COLOURS,
        rival=rival,
        confusion=_confusion(report, expected, systems["tuned"]) if report["fields"] else None,
        examples=split_examples(rows, systems["tuned"], systems[rival], report["settings"]),
        suite_examples=suite_examples(compared, report["settings"]),
        suites={name: part for name, part in report["suites"].items() if part["applies"]},
        unfit={name: part for name, part in report["suites"].items() if not part["applies"]},
        json=bool(report["fields"]),
        closeness=CLOSENESS,
        judge_template=JUDGE_TEMPLATE,
    )


def rival_of(report: Mapping[str, Any]) -> str:
    """Whom the candidate is compared with: the champion, unless it is the candidate."""
    champion = report["champion"]
    return "base" if champion in (None, report["candidate"]) else "champion"


def percent(value: float | None) -> str:
    """A share as ``84.1%``; a dash where there is none."""
    return DASH if value is None else f"{value:.1%}"


def points(value: float | None) -> str:
    """A difference of shares in percentage points, with its sign."""
    return DASH if value is None else f"{100 * value:+.1f}".replace("-", MINUS)


def plain(value: float | None, digits: int = 0) -> str:
    """A number with thousands separated."""
    return DASH if value is None else f"{value:,.{digits}f}"


def worst_field(report: Mapping[str, Any]) -> str:
    """The field that the tuned model gets wrong most often; the first among equals."""
    fields = report["fields"]
    return str(min(fields, key=lambda name: fields[name]["accuracy"]["tuned"]))


def _confusion(report: Mapping[str, Any], expected: Scored, tuned: Scored) -> dict[str, Any]:
    """The worst field's confusions: all of them where they fit on a page, else the top ones."""
    field = worst_field(report)
    truth, guesses = expected.values[field], tuned.values[field]
    labels = sorted({str(label) for label in truth})
    found: dict[str, Any] = {
        "field": field,
        "top": scoring.top_confusions(truth, guesses, MOST_CONFUSIONS),
        "support": {label: list(truth).count(label) for label in labels},
        "matrix": None,
    }
    if len(labels) <= LARGEST_MATRIX:
        shown = [guess if guess in labels else None for guess in guesses]
        counted = metrics.confusions(truth, shown)
        columns = [*labels, None] if None in shown else [*labels]
        found["columns"] = columns
        found["matrix"] = [
            (label, [counted[label, other] for other in columns]) for label in labels
        ]
    return found


def metric_name(name: str) -> str:
    """A ragas metric's name for people; none of ours asks a language model."""
    return name.removeprefix("non_llm_").replace("_", " ")


def draw_plot(report: Mapping[str, Any], to: Path) -> None:
    """Exact match of every system with its interval, and accuracy by field, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The figure is not made through pyplot, whose state is shared between threads.
    figure = Figure(figsize=(9.6, 3.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    systems = [name for name in scoring.SYSTEMS if report["exact_match"][name] is not None]
    for row, name in enumerate(systems):
        value = report["exact_match"][name]
        low, high = report["intervals"]["exact_match"][name]
        error = [[max(0.0, value - low)], [max(0.0, high - value)]]
        left.barh(row, value, color=COLOURS[name], xerr=error, ecolor="#334155", capsize=2)
        left.annotate(percent(value), (high, row), xytext=(4, -3), textcoords="offset points")
    left.set_yticks(range(len(systems)), [NAMES[name] for name in systems])
    left.invert_yaxis()
    left.set(xlim=(0, 1.2), title="Exact match, 95% intervals")
    groups, title = _second_chart(report)
    width = 0.8 / len(systems)
    for row, name in enumerate(systems):
        places = [column + row * width - 0.4 + width / 2 for column in range(len(groups))]
        values = [scores.get(name) or 0.0 for scores in groups.values()]
        right.bar(places, values, width, color=COLOURS[name], label=NAMES[name])
    right.set_xticks(range(len(groups)), list(groups))
    right.set(ylim=(0, 1), title=title)
    shares = [0, 0.25, 0.5, 0.75, 1]
    left.set_xticks(shares, [f"{share:.0%}" for share in shares])
    right.set_yticks(shares, [f"{share:.0%}" for share in shares])
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.title.set_size(10)
    figure.savefig(to)


def _second_chart(report: Mapping[str, Any]) -> tuple[dict[str, Mapping[str, float]], str]:
    """Scores by system: of each field, or for free text of each metric of closeness."""
    if fields := report["fields"]:
        return {name: scores["accuracy"] for name, scores in fields.items()}, "Accuracy by field"
    closeness = report["ragas"]["metrics"]
    shown = {metric_name(name).replace(" ", "\n"): closeness[name] for name in closeness}
    shown.pop(metric_name("exact_match").replace(" ", "\n"), None)  # stands on the left
    return shown, "Closeness of the text"
