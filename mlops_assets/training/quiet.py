"""Keep the libraries' own bars and notices off the terminal while they work for us."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LIBRARIES = (
    "accelerate",
    "bitsandbytes",
    "datasets",
    "huggingface_hub",
    "peft",
    "torch",
    "transformers",
    "trl",
)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence progress bars, warnings and notices below errors; put everything back at the end.

    Ours is the progress that people see; what goes wrong is raised, not warned about.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it warns after every fork
    restore_bars = _disable_bars()  # imports the libraries, which set their loggers' levels
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        restore_bars()
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _disable_bars() -> Callable[[], None]:
    import datasets.utils as data
    import transformers.utils.logging as models
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    models.get_verbosity()  # sets the level of its logger, the first time
    shown = [
        (not data.are_progress_bars_disabled(), data.enable_progress_bars),
        (not are_progress_bars_disabled(), enable_progress_bars),
        (models.is_progress_bar_enabled(), models.enable_progress_bar),
    ]
    data.disable_progress_bars()
    disable_progress_bars()
    models.disable_progress_bar()

    def restore() -> None:
        for was_shown, enable in shown:
            if was_shown:
                enable()

    return restore
