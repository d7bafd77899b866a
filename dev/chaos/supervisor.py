"""Runs what `make run` runs, but in the current folder, without the project's `.env` and data.

python -m dev.chaos.supervisor
"""

import sys
from pathlib import Path

from dev.local_stack.__main__ import run
from dev.local_stack.session import reporting_errors

if __name__ == "__main__":
    sys.exit(reporting_errors(lambda: run(Path.cwd())))
