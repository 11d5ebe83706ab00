"""What the dataset's assets show on their pages, as Markdown."""

import base64
from collections.abc import Sequence
from pathlib import Path

from mlops_assets.privacy import excerpt
from mlops_assets.refs import Row, SplitsRef

MOST_LABELS = 12  # labels of one field shown in the label mix
FREE_TEXT = "The answers are free text."


def balance_picture(picture: Path) -> str:
    """The picture itself, in the page; free text has none."""
    if not picture.is_file():
        return FREE_TEXT
    data = base64.b64encode(picture.read_bytes()).decode()
    return f"![rows by label](data:image/png;base64,{data})"


def label_mix(ref: SplitsRef) -> str:
    """A table for each field: share of each label in each split, the most frequent first."""
    counts = ref.artifact.summary["label_counts"]
    lines: list[str] = []
    for field, labels in ref.labels.items():
        lines += [f"| {field} | {' | '.join(ref.rows)} |", "|---" * (len(ref.rows) + 1) + "|"]
        ranked = sorted(labels, key=lambda label: -counts["train"][field].get(label, 0))
        for label in ranked[:MOST_LABELS]:
            shares = [counts[name][field].get(label, 0) / rows for name, rows in ref.rows.items()]
            lines.append(f"| {label} | {' | '.join(f'{share:.1%}' for share in shares)} |")
        if len(ranked) > MOST_LABELS:
            lines.append(f"| *{len(ranked) - MOST_LABELS} more* |{' |' * len(ref.rows)}")
        lines.append("")
    return "\n".join(lines) or FREE_TEXT


def preview(rows: Sequence[Row]) -> str:
    """The last thing asked, and the answer of record, personal data taken out."""
    lines = ["| id | text | answer |", "|---|---|---|"]
    for row in rows:
        cells = (row.id, excerpt(row.prompt[-1]["content"]), f"`{excerpt(row.answer)}`")
        lines.append(
            "| " + " | ".join(" ".join(c.replace("|", "\\|").split()) for c in cells) + " |"
        )
    return "\n".join(lines)
