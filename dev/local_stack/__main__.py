"""`make run`: everything on this machine, until Ctrl-C."""

import sys
from pathlib import Path

from dev.local_stack import ports
from dev.local_stack.configuration import configure, read_environment
from dev.local_stack.data_folder import locked
from dev.local_stack.errors import StackError
from dev.local_stack.plan import addresses_of, listeners_of, make_plan
from dev.local_stack.session import carry_out, reporting_errors
from dev.local_stack.welcome import welcome

ROOT = Path(__file__).resolve().parent.parent


def run(root: Path) -> int:
    """Run what the environment and `.env` of the folder ask for.

    Returns:
        the exit status.

    Raises:
        StackError: it cannot be run.
    """
    configuration = configure(read_environment(root), root)
    with locked(configuration.data_folder):
        if problems := ports.problems(listeners_of(configuration)):
            raise StackError("\n".join(problems))
        addresses = addresses_of(configuration)
        return carry_out(make_plan(configuration, addresses), welcome(configuration, addresses))


if __name__ == "__main__":
    sys.exit(reporting_errors(lambda: run(ROOT)))
