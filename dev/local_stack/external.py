"""Checks of servers that are not started here."""

from dev.local_stack.errors import StackError
from dev.local_stack.processes import Command, describe, run_to_end
from dev.local_stack.readiness import NotReadyError, Probe, answers_jetstream, answers_sql, place, until

_TIMEOUT = 5
"""Seconds, as the server may be starting at the same time."""

_NOT_AT_HEAD = "not on all head revisions"


async def check_database(url: str) -> None:
    """Raise StackError if PostgreSQL does not answer."""

    async def probe() -> None:
        await answers_sql(url)

    await _check(probe, f"PostgreSQL at {place(url, 5432)} (DATABASE_URL)")


async def check_broker(urls: str) -> None:
    """Raise StackError if NATS does not answer, or has no JetStream."""

    async def probe() -> None:
        await answers_jetstream(urls)

    places = ", ".join(place(url.strip(), 4222) for url in urls.split(","))
    await _check(probe, f"NATS at {places} (NATS_URL)")


async def check_schema(command: Command) -> None:
    """Raise StackError if the database is not at the newest migration.

    Args:
        command: ends with status 0 if it is; otherwise it prints the reason.
    """
    status, last_lines = await run_to_end(command, on_line=lambda _: None)
    if status == 0:
        return
    if any(_NOT_AT_HEAD in line for line in last_lines):
        raise StackError("the database at DATABASE_URL is not at the newest migration: run `make migrate-up`")
    reason = last_lines[-1] if last_lines else describe(status)
    raise StackError(f"the migrations of the database at DATABASE_URL cannot be checked: {reason}")


async def _check(probe: Probe, what: str) -> None:
    try:
        await until(probe, _TIMEOUT)
    except NotReadyError as exc:
        raise StackError(f"{what} does not answer: {exc}") from exc
