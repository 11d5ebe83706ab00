"""The class-balance picture of a dataset."""

from collections.abc import Mapping
from pathlib import Path

MOST_BARS = 20  # more labels than this get no names on the axis


def draw_class_balance(path: Path, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Write a PNG with one panel of bars for each field, most frequent label first."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(counts), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(counts), squeeze=False)[0]
    for panel, (name, labels) in zip(panels, counts.items(), strict=True):
        ranked = sorted(labels.items(), key=lambda item: (-item[1], item[0]))
        panel.bar(range(len(ranked)), [count for _, count in ranked], color="#4b7bec")
        panel.set_title(f"{name} ({len(ranked)} labels)")
        panel.set_ylabel("rows")
        panel.spines[["top", "right"]].set_visible(False)
        if len(ranked) <= MOST_BARS:
            panel.set_xticks(range(len(ranked)), [label for label, _ in ranked], rotation=30)
        else:
            panel.set_xticks([])
            first, last = ranked[0], ranked[-1]
            panel.set_xlabel(f"most: {first[0]} ({first[1]})\nleast: {last[0]} ({last[1]})")
    # Without the library's version in it, the picture depends on the data only.
    figure.savefig(path, dpi=110, metadata={"Software": None})
