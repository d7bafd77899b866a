"""The plans of all lists: each reads a bounded number of pages, with indexes, however many rows there are."""

import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.bench import rows
from dev.bench.scale import READS
from tests.integration.gateway.conftest import StartGateway

pytestmark = pytest.mark.integration

_MESSAGES = 10_000
_MAX_BUFFERS = 2_500
"""Of 8 KiB: up to fifty for each row of a page."""

_MAX_BUFFERS_OF_A_FILTER = 10_000
"""With a filter that no index covers, of which a page reads the rows of up to 1,000 messages."""

_ONE_OF_SEVERAL_FILTERS = {"messages by status and address", "dead letters of a rare channel"}


async def test_no_list_reads_more_because_there_are_more_rows(
    start_gateway: StartGateway, nats_url: str, database_url: str
) -> None:
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    await rows.load(connection, _MESSAGES)
    # Even tables of this size fit into so few pages that the planner might prefer to read all of them.
    await connection.execute("SET enable_seqscan = off")
    newest = await connection.fetchval("SELECT id FROM messages ORDER BY created_at DESC LIMIT 1")

    async with start_gateway(nats_url=nats_url, database_url=database_url) as client:
        executed = _record(client._transport.app.state.reader._engine)  # type: ignore[attr-defined] # noqa: SLF001
        for name, path in READS.items():
            executed.clear()
            response = await client.get(path.format(message=newest))

            assert response.is_success, response.text
            plans = [await _plan(connection, *each) for each in executed]
            scanned = {node.get("Relation Name") for plan in plans for node in _nodes(plan, "Seq Scan")}
            assert not scanned, f"{name}: {scanned}"
            buffers = sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in plans)
            is_filtered = name in _ONE_OF_SEVERAL_FILTERS
            assert buffers <= (_MAX_BUFFERS_OF_A_FILTER if is_filtered else _MAX_BUFFERS), (
                f"{name}: {buffers}"
            )
    await connection.close()


def _record(engine: AsyncEngine) -> list[tuple[str, Any]]:
    """Return a list of the statements that are executed from now on, with their parameters."""
    executed: list[tuple[str, Any]] = []

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def record(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:  # noqa: ANN401
        executed.append((statement, parameters))

    return executed


async def _plan(connection: asyncpg.Connection, statement: str, parameters: tuple[Any, ...]) -> Any:  # noqa: ANN401 - JSON
    plan = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *parameters)
    return json.loads(plan)[0]["Plan"]


def _nodes(plan: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    if plan["Node Type"] == kind:
        yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child, kind)
