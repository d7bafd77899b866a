"""Run everything on this machine, and look at it: `make run`, `status`, `logs`, `psql` and `reset`."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from dev.local_stack import ports
from dev.local_stack.configuration import Configuration, configure, read_environment
from dev.local_stack.data_folder import is_in_use, locked, webhook_key
from dev.local_stack.errors import StackError
from dev.local_stack.logs import show_logs
from dev.local_stack.plan import Addresses, addresses_of, listeners_of, make_plan
from dev.local_stack.psql import open_psql
from dev.local_stack.reset import reset
from dev.local_stack.session import carry_out, reporting_errors
from dev.local_stack.settings_check import check_settings
from dev.local_stack.state import ProcessState, State, StateFile
from dev.local_stack.status import show_status
from dev.local_stack.welcome import introduction, welcome

ROOT = Path(__file__).resolve().parents[2]


def run(root: Path) -> int:
    """Run the stack that the environment and the folder's `.env` configure.

    Returns:
        the exit status.

    Raises:
        StackError: it cannot be run.
    """
    environment = read_environment(root)
    notes = check_settings(environment.variables, environment.names_in_file)
    configuration = configure(environment.variables, root, notes=notes)
    with locked(configuration.data_folder):
        if "WEBHOOK_ENDPOINT_KEY" not in environment.variables:
            key = {"WEBHOOK_ENDPOINT_KEY": webhook_key(configuration.data_folder)}
            configuration = replace(configuration, environment={**configuration.environment, **key})
        if problems := ports.problems(listeners_of(configuration)):
            raise StackError("\n".join(problems))
        addresses = addresses_of(configuration)
        state_file = StateFile(configuration.data_folder)
        try:
            return carry_out(
                make_plan(configuration, addresses),
                welcome(configuration, addresses),
                introduction=introduction(configuration),
                observe=_recorder(configuration, addresses, state_file),
            )
        finally:
            state_file.remove()


def _recorder(
    configuration: Configuration, addresses: Addresses, state_file: StateFile
) -> Callable[[Sequence[ProcessState]], None]:
    """Return a function that records the state of the processes."""
    state = State(
        pid=os.getpid(),
        since=datetime.now(UTC),
        owns_servers=configuration.owns_servers,
        database_url=addresses.database_url,
        nats_url=addresses.nats_url,
        gateway_url=addresses.gateway_url,
    )

    def record(processes: Sequence[ProcessState]) -> None:
        state_file.write(state.model_copy(update={"processes": processes}))

    return record


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.local_stack", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="command")
    commands.add_parser("run", help="start everything until Ctrl-C; the default")
    commands.add_parser("status", help="show what is running")
    logs = commands.add_parser("logs", help="show the logs")
    logs.add_argument("--service", help="the name of a process; all by default")
    logs.add_argument("--tail", type=int, default=20, help="number of lines of each log")
    psql = commands.add_parser("psql", help="open psql on the database in use")
    psql.add_argument("--command", dest="sql", help="an SQL statement to run")
    commands.add_parser("reset", help="delete the data").add_argument(
        "--yes", action="store_true", help="do not ask"
    )
    chosen = parser.parse_args(arguments)
    name = chosen.command or "run"
    return reporting_errors(lambda: _carry_out(name, chosen), program=name)


def _carry_out(command: str, chosen: argparse.Namespace) -> int:
    if command == "run":
        return run(ROOT)
    configuration = configure(read_environment(ROOT).variables, ROOT)
    match command:
        case "status":
            return asyncio.run(show_status(configuration))
        case "logs":
            follow = is_in_use(configuration.data_folder)
            return show_logs(
                configuration.log_folder, service=chosen.service, tail=chosen.tail, follow=follow
            )
        case "psql":
            return open_psql(configuration, chosen.sql)
        case _:
            return reset(configuration, is_confirmed=chosen.yes)


if __name__ == "__main__":
    sys.exit(main())
