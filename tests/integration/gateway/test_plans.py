"""The plans of all reads and lists: each reads a bounded number of rows and pages, with indexes."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from dev.bench import rows
from dev.bench.samples import accepted_events
from dev.bench.scale import READS
from shared.bus.publisher import Publisher
from tests.documents import ROOT
from tests.integration.gateway.conftest import StartGateway
from tests.notifications import notify

pytestmark = pytest.mark.integration

_MESSAGES = 10_000
_EVENTS = 50

_MAX_ROWS = 500
"""Which a part of a plan reads from a table or an index: less than half of any table of the load."""

_MAX_BUFFERS = 2_500
"""Of 8 KiB: up to fifty for each row of a page."""

_MAX_ROWS_OF_A_FILTER, _MAX_BUFFERS_OF_A_FILTER = 2_500, 10_000
"""With a filter that no index covers, of which a page reads the rows of up to 1,000 messages."""

_ONE_OF_SEVERAL_FILTERS = {
    *("messages by status and address", "messages by status and provider"),
    *("dead letters of a rare channel", "dead letters of a rare direction"),
}

_NOT_IN_POSTGRESQL = {
    *("/api/webhook-endpoints", "/api/webhook-endpoints/{id}", "/api/operations"),
    *("/api/api-keys", "/api/api-keys/current", "/unsubscribe/{token}", "/healthz", "/readyz"),
}
_BY_PRIMARY_KEY = {"/api/media/{id}"}
_OF_PAGES = {"limit", "cursor"}


def test_all_reads_and_filters_are_measured() -> None:
    paths = json.loads((ROOT / "docs/openapi.json").read_text())["paths"]
    for path in paths.keys() - _NOT_IN_POSTGRESQL - _BY_PRIMARY_KEY:
        if "get" not in paths[path]:
            continue
        pattern = re.sub("{[a-z_]+}", "[^/]+", path)
        queries = [
            urlsplit(each).query for each in READS.values() if re.fullmatch(pattern, urlsplit(each).path)
        ]
        assert queries, path
        if path == "/api/events":  # whose filters are applied to the stream
            continue
        names = {each["name"] for each in paths[path]["get"].get("parameters", ()) if each["in"] == "query"}
        for name in names - _OF_PAGES:
            assert any(re.search(rf"(^|&){name}[=\[]", query) for query in queries), f"{path}: {name}"


async def test_no_list_reads_more_because_there_are_more_rows(
    start_gateway: StartGateway, nats_url: str, database_url: str, publisher: Publisher
) -> None:
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    # Even tables of this size fit into so few pages that the planner might prefer to read all of them.
    for plan in ("seqscan", "hashjoin", "mergejoin"):
        await connection.execute(f"SET enable_{plan} = off")

    settings = {
        "nats_url": nats_url,
        "database_url": database_url,
        "webhook_endpoint_key": "a key of the tests",
    }
    async with start_gateway(**settings) as client:
        created = await client.post("/api/webhook-endpoints", json={"url": "https://example.com"})
        endpoint = UUID(created.json()["id"])
        await rows.load(connection, _MESSAGES, endpoint)
        examples = await rows.examples(connection)
        await _publish_events(database_url, publisher)
        executed = _record(client._transport.app.state.reader._engine)  # type: ignore[attr-defined] # noqa: SLF001

        async def check(name: str, response: httpx.Response) -> None:
            assert response.is_success, response.text
            is_filtered = name in _ONE_OF_SEVERAL_FILTERS
            assert executed, name
            for statement, parameters in executed:
                plan = await _plan(connection, statement, parameters)
                scanned = [node["Relation Name"] for node in _nodes(plan) if node["Node Type"] == "Seq Scan"]
                assert not scanned, f"{name}: {scanned}"
                read = max((_rows_read(node) for node in _nodes(plan)), default=0)
                assert read <= (_MAX_ROWS_OF_A_FILTER if is_filtered else _MAX_ROWS), f"{name}: {read} rows"
                buffers = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
                limit = _MAX_BUFFERS_OF_A_FILTER if is_filtered else _MAX_BUFFERS
                assert buffers <= limit, f"{name}: {buffers} buffers"
            executed.clear()

        for name, template in READS.items():
            path = template.format(endpoint=endpoint, **examples)
            response = await client.get(path)
            await check(name, response)
            if cursor := response.json().get("next_cursor"):
                parameter = "after" if name == "events" else "cursor"
                page = httpx.URL(path).copy_merge_params({parameter: cursor})
                await check(name, await client.get(page))
        body = {"filter": {"reason": rows.DISCARDABLE}, "reason": "a test"}
        await check("discarding", await client.post("/api/dead-letters/discard", json=body))
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


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _rows_read(node: dict[str, Any]) -> float:
    """Return the rows that a part of a plan has read from a table or an index, if it does so."""
    if not node["Node Type"].endswith("Scan") or "Plans" in node:
        return 0
    removed = sum(node.get(f"Rows Removed by {kind}", 0) for kind in ("Filter", "Index Recheck"))
    return float((node["Actual Rows"] + removed) * node["Actual Loops"])


async def _publish_events(database_url: str, publisher: Publisher) -> None:
    engine = create_async_engine(database_url)
    await notify(engine, publisher, accepted_events(_EVENTS))
    await engine.dispose()
