"""Our commands in processes that have imported the libraries already, which takes them seconds.

Each is forked from a server that has imported and done nothing else. It has an environment, an
output and an exit code of its own, and imports our package itself. ``commands.run_command``
starts one from nothing, as a user does.
"""

import functools
import multiprocessing
import os
import runpy
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlops_assets.profiles import PROJECT
from mlops_assets_tests.commands import Finished, environment_for, script

LIBRARIES = (
    "dagster._cli",
    "datasets",
    "great_expectations.expectations",
    "mlflow",
    "peft",
    "transformers.models.llama.modeling_llama",
    "trl.trainer.sft_trainer",
)


@functools.cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LIBRARIES))
    return context


def fork(work: Callable[..., Any], *args: Any) -> ForkServerProcess:
    """Start ``work`` in a process of its own."""
    process = _server().Process(target=work, args=args)
    process.start()
    return process


def fork_command(*words: str, home: Path, **environment: str) -> Finished:
    """As ``commands.run_command``, but seconds sooner."""
    started = time.monotonic()
    with TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        process = fork(run_words, words, environment_for(home) | environment, output)
        process.join(900)
        code = process.exitcode
        process.kill()
        assert code is not None, f"{words} did not end"
        return Finished(code, output.read_text(), time.monotonic() - started)


def fork_job(job: str, *options: str, home: Path, **environment: str) -> Finished:
    """As ``commands.execute_job``, but seconds sooner."""
    words = ("dagster", "job", "execute", "-m", "mlops_assets.definitions", "-j", job, *options)
    return fork_command(*words, home=home, **environment)


def run_words(words: tuple[str, ...], environment: Mapping[str, str], output: Path) -> None:
    """Be the command ``words`` from here on; what it says goes to ``output``."""
    os.chdir(PROJECT)
    os.environ.clear()
    os.environ.update(environment)
    with output.open("wb", buffering=0) as stream:
        for standard in (sys.stdout, sys.stderr):
            os.dup2(stream.fileno(), standard.fileno())
    warnings.simplefilter("ignore")  # as PYTHONWARNINGS has it
    sys.argv = [script(words[0]), *words[1:]]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
