"""Runs what `make run` runs, in the present folder: no `.env` of the project is read, no data of it used.

python -m chaos.supervisor
"""

import sys
from pathlib import Path

from dev.local_stack.__main__ import run
from dev.local_stack.session import reporting_errors

if __name__ == "__main__":
    sys.exit(reporting_errors(lambda: run(Path.cwd())))
