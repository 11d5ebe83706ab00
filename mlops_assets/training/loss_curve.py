"""The loss curve as a picture: the same training draws the same bytes."""

from pathlib import Path

from mlops_assets.training.training_log import TrainingLog


def draw_loss_curve(log: TrainingLog, path: Path) -> None:
    """Draw training and validation loss over steps into a PNG of 720 by 360 pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = [point.step for point in log.steps]
    axes.plot(steps, [point.loss for point in log.steps], color="#4f46e5", label="train")
    axes.plot(
        [point.step for point in log.validations],
        [point.loss for point in log.validations],
        "o--",
        color="#ea580c",
        label="validation",
    )
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per answer token)")
    axes.set_yscale("log")
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    # The library writes its version into the file unless it is told not to.
    figure.savefig(path, format="png", metadata={"Software": None})
