"""The loop, shown: ``make loop``.

python -m mlops_assets_tests.loop [--home DIRECTORY] [--json FILE]
"""

import argparse
import signal
import sys
from pathlib import Path

from mlops_assets.home import Home
from mlops_assets.profiles import PROJECT
from mlops_assets_tests.loop.chapters import play
from mlops_assets_tests.loop.timeline import Timeline
from mlops_assets_tests.loop.waiting import NotSeenError

HOME = ".mlops-loop"


def main() -> None:
    """Exit code 1 when a step of the loop does not come."""
    parser = argparse.ArgumentParser(prog="python -m mlops_assets_tests.loop", description=__doc__)
    parser.add_argument("--home", type=Path, default=PROJECT / HOME, help="a new MLOPS_HOME")
    parser.add_argument("--json", type=Path, help="write the timeline there too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    timeline = Timeline()
    try:
        play(Home(options.home.resolve()), PROJECT / "profiles/loop.yaml", timeline)
    except (NotSeenError, AssertionError, TimeoutError) as error:
        sys.exit(f"\nThe loop did not close: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        if options.json:
            timeline.write(options.json)


if __name__ == "__main__":
    main()
