"""`mlops serve` that dies of SIGKILL right after so many steps of a release were written.

``python -m mlops_assets_tests.dying_gateway STEPS OPTIONS``, with the options of `mlops serve`.
"""

import sys

from mlops_assets.cli import main
from mlops_assets.ledger import Ledger
from mlops_assets_tests.sudden_death import die_after

if __name__ == "__main__":
    die_after(int(sys.argv.pop(1)), [(Ledger, "_insert")])
    sys.argv.insert(1, "serve")
    main()
