"""`make status`: the processes of a running stack, and how far behind its consumers are."""

import asyncio
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dev.local_stack.configuration import Configuration
from dev.local_stack.data_folder import contents, is_in_use
from dev.local_stack.readiness import (
    NotReadyError,
    answers_http,
    answers_jetstream,
    answers_sql,
    connected,
    place,
)
from dev.local_stack.state import ProcessState, State, StateFile

_READY = "ready"
_ANSWERS_WITHIN = 3
_NUMBER = re.compile(r"-\d+(-of-\d+)?$")


@dataclass
class Backlog:
    """The messages that a group of consumers has not processed yet."""

    waiting: int = 0
    in_progress: int = 0


async def show_status(configuration: Configuration) -> int:
    """Print the state of the stack of a data folder.

    Returns:
        the exit status: 0 if all of it is ready.
    """
    folder = configuration.data_folder
    state = StateFile(folder).read() if is_in_use(folder) else None
    if state is None:
        files = f"The files of the last run are in {folder}." if contents(folder) else f"{folder} is empty."
        print(f"Nothing is running. {files} Start with: make run")
        return 1
    servers = [] if state.owns_servers else _other_servers(state)
    processes = [*servers, *state.processes]
    conditions = await asyncio.gather(*map(_condition_of, processes))
    kept = "data" if state.owns_servers else "logs"
    print(f"Running for {_age(state.since)} (pid {state.pid}), with the {kept} in {folder}.\n")
    print(_table(["process", "pid", "running for", "address", "state"], _rows(processes, conditions)))
    print(f"\n{await _show_backlogs(state)}")
    return 0 if all(condition == _READY for condition in conditions) else 1


def _other_servers(state: State) -> list[ProcessState]:
    return [
        ProcessState(name=name, pid=None, address=url, since=state.since, restarts=0)
        for name, url in (("postgres", state.database_url), ("nats", state.nats_url))
    ]


async def _condition_of(process: ProcessState) -> str:
    probe: Callable[[str], Awaitable[None]]
    match _scheme(process.address):
        case "postgresql":
            probe = answers_sql
        case "nats":
            probe = answers_jetstream
        case _:
            probe = answers_http
    try:
        await probe(process.address)
    except NotReadyError as exc:
        return f"not ready: {exc}"
    return _READY


def _rows(processes: Sequence[ProcessState], conditions: Sequence[str]) -> Iterator[list[str]]:
    for process, condition in zip(processes, conditions, strict=True):
        restarts = f", restarts: {process.restarts}" if process.restarts else ""
        yield [
            process.name,
            str(process.pid or "-"),
            _age(process.since) if process.pid else "-",
            _shown(process.address),
            condition + restarts,
        ]


def _shown(address: str) -> str:
    """Return an address without its password."""
    match _scheme(address):
        case "postgresql":
            return place(address, 5432)
        case "nats":
            return ", ".join(place(url.strip(), 4222) for url in address.split(","))
        case _:
            return address.removesuffix("/readyz").removesuffix("/healthz")


def _scheme(address: str) -> str:
    return address.partition("://")[0].partition("+")[0]


async def _show_backlogs(state: State) -> str:
    try:
        backlogs = await _backlogs(state.nats_url)
    except NotReadyError as exc:
        return f"The streams cannot be read: {exc}"
    rows = [
        [stream, consumer, f"{backlog.waiting:,}", f"{backlog.in_progress:,}"]
        for (stream, consumer), backlog in backlogs.items()
        if backlog.waiting or backlog.in_progress
    ]
    if not rows:
        return "No message is waiting in any stream."
    return _table(["stream", "consumer", "waiting", "in progress"], rows)


async def _backlogs(nats_url: str) -> dict[tuple[str, str], Backlog]:
    """Return the backlogs by stream and consumer, or raise NotReadyError if JetStream does not answer.

    Consumers whose names differ in a number at the end count as one.
    """
    backlogs: dict[tuple[str, str], Backlog] = defaultdict(Backlog)
    async with connected(nats_url) as client:
        jetstream = client.jetstream(timeout=_ANSWERS_WITHIN)
        for stream in await jetstream.streams_info():
            name = stream.config.name or ""
            for info in await jetstream.consumers_info(name):
                backlog = backlogs[name, _NUMBER.sub("", info.name)]
                backlog.waiting += info.num_pending or 0
                backlog.in_progress += info.num_ack_pending or 0
    return backlogs


def _age(since: datetime) -> str:
    age = datetime.now(UTC) - since
    if age < timedelta(minutes=2):
        return f"{age.seconds} s"
    if age < timedelta(hours=2):
        return f"{age.seconds // 60} min"
    return f"{age // timedelta(hours=1)} h"


def _table(heading: list[str], rows: Iterable[list[str]]) -> str:
    table = [heading, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )
