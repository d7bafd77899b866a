"""What is stored, read over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from shared.channels import Direction, MessageType
from shared.ids import conversation_key
from shared.lifecycle import Status
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.stored import Store, minutes

pytestmark = pytest.mark.integration

ALICE, BOB, CAROL = "+12016661234", "+18045551234", "+12016665678"
ANN, BEN = "ann@example.com", "ben+tag@example.org"
LONGEST_READ = 5
"""Seconds within which a client is told that there is no database."""

ERROR = {"code": "http_500", "detail": "no", "attempt": 1, "status_code": 500, "at": "2024-11-01T14:00:00Z"}


async def get(gateway: httpx.AsyncClient, path: str) -> Any:  # noqa: ANN401 - JSON
    response = await gateway.get(path)
    assert response.status_code == 200, response.text
    return response.json()


async def pages(gateway: httpx.AsyncClient, path: str) -> AsyncIterator[list[Any]]:
    cursor = ""
    while True:
        page = await get(gateway, path + cursor)
        yield page["items"]
        if page["next_cursor"] is None:
            return
        cursor = f"&cursor={page['next_cursor']}"


async def test_an_outbound_message_with_its_history(gateway: httpx.AsyncClient, store: Store) -> None:
    id_ = await store.message(
        ALICE, BOB, direction=Direction.OUTBOUND, type=MessageType.MMS, attachments=["attachment-url"]
    )
    await store.event(id_, Status.ACCEPTED, attempt=0, occurred_at=minutes(0))
    await store.event(id_, Status.RETRYING, error=ERROR, next_attempt_at=minutes(2), occurred_at=minutes(1))
    await store.event(
        id_, Status.SENT, attempt=2, provider="generic_sms", provider_message_id="S1", occurred_at=minutes(2)
    )
    await store.receipt("S1", Status.UNDELIVERED, error_code="30003", occurred_at=minutes(3))

    message = await get(gateway, f"/api/messages/{id_}")

    assert message.pop("history") == [
        {**entry, "source": entry.get("source", "event"), "generation": 0}
        for entry in [
            _entry("accepted", 0, attempt=0),
            _entry("retrying", 1, error={**ERROR, "provider": None}, next_attempt_at="2024-11-01T14:02:00Z"),
            _entry("sent", 2, attempt=2, provider="generic_sms", provider_message_id="S1"),
            _entry(
                "undelivered",
                3,
                attempt=2,
                provider="generic_sms",
                provider_message_id="S1",
                error=_error("30003"),
                source="receipt",
            ),
        ]
    ]
    assert message == {
        "id": str(id_),
        "conversation_id": 1,
        "conversation_key": str(conversation_key([ALICE, BOB])),
        "direction": "outbound",
        "type": "mms",
        "from": ALICE,
        "to": BOB,
        "subject": None,
        "body": "Hello",
        "attachments": ["attachment-url"],
        "timestamp": "2024-11-01T14:00:00Z",
        "status": "undelivered",
        "provider": "generic_sms",
        "provider_message_id": "S1",
        "error": _error("30003"),
        "created_at": "2024-11-01T14:00:00Z",
        "send_at": None,
        "segments": None,
        "encoding": None,
    }


def _entry(status: str, minute: int, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - of an entry
    entry = {
        "status": status,
        "attempt": 1,
        "provider": None,
        "provider_message_id": None,
        "error": None,
        "next_attempt_at": None,
        "occurred_at": f"2024-11-01T14:0{minute}:00Z",
    }
    return {**entry, **fields}


def _error(code: str) -> dict[str, Any]:
    fields = ("detail", "attempt", "provider", "status_code", "at")
    return {"code": code, **dict.fromkeys(fields)}


@pytest.mark.parametrize(
    ("reports", "status"),
    [
        ([], "accepted"),
        ([(Status.SENT, 0, 1), (Status.RETRYING, 0, 2)], "sent"),
        ([(Status.DELIVERED, 0, 1), (Status.SENT, 0, 2)], "delivered"),
        ([(Status.DELIVERED, 0, 2), (Status.UNDELIVERED, 0, 1)], "undelivered"),
        ([(Status.FAILED, 0, 1), (Status.ACCEPTED, 1, 2)], "accepted"),
        ([(Status.FAILED, 0, 9), (Status.SENT, 1, 2)], "sent"),
    ],
)
async def test_of_several_reports_the_higher_counts_and_then_the_earlier(
    gateway: httpx.AsyncClient, store: Store, reports: list[tuple[Status, int, int]], status: str
) -> None:
    id_ = await store.message(ALICE, BOB, direction=Direction.OUTBOUND)
    for reported, generation, minute in reports:
        await store.event(id_, reported, generation=generation, occurred_at=minutes(minute))

    assert (await get(gateway, f"/api/messages/{id_}"))["status"] == status


async def test_an_inbound_message(gateway: httpx.AsyncClient, store: Store) -> None:
    id_ = await store.message(BOB, ALICE, provider_message_id="message-1")

    message = await get(gateway, f"/api/messages/{id_}")

    assert (message["status"], message["history"]) == ("received", [])
    assert (message["provider"], message["provider_message_id"]) == ("generic_sms", "message-1")


@pytest.mark.parametrize(
    "path", ["messages/{}", "conversations/{}", "conversations/{}/messages", "dead-letters/{}"]
)
async def test_what_is_not_stored(gateway: httpx.AsyncClient, path: str) -> None:
    response = await gateway.get("/api/" + path.format(uuid4()))

    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_conversation_by_its_id_and_by_its_key(gateway: httpx.AsyncClient, store: Store) -> None:
    await store.message(BOB, ALICE, timestamp=minutes(5))
    latest = await store.message(ALICE, BOB, timestamp=minutes(7), direction=Direction.OUTBOUND)
    await store.message(BOB, ALICE, timestamp=minutes(6))
    await store.event(latest, Status.FAILED, error=ERROR)

    conversation = await get(gateway, "/api/conversations/1")

    assert conversation == await get(gateway, f"/api/conversations/{conversation['key']}")
    last_message = conversation.pop("last_message")
    assert conversation == {
        "id": 1,
        "key": str(conversation_key([ALICE, BOB])),
        "channel": "sms",
        "participants": [ALICE, BOB],
        "message_count": 3,
        "last_message_at": "2024-11-01T14:07:00Z",
    }
    assert (last_message["id"], last_message["status"]) == (str(latest), "failed")
    assert last_message["error"]["code"] == "http_500"


async def test_messages_are_read_oldest_first_page_by_page(gateway: httpx.AsyncClient, store: Store) -> None:
    moments = [(3, 0), (1, 0), (2, 1), (2, 0), (2, 0), (0, 0), (4, 0)]
    ids = {
        await store.message(BOB, ALICE, timestamp=minutes(at), created_at=minutes(created)): (at, created)
        for at, created in moments
    }
    key = conversation_key([ALICE, BOB])

    read = [
        message["id"]
        async for page in pages(gateway, f"/api/conversations/{key}/messages?limit=2")
        for message in page
    ]

    in_order = sorted(ids, key=lambda id_: (ids[id_], id_))
    assert read == [str(id_) for id_ in in_order]
    assert [len(page) async for page in pages(gateway, "/api/conversations/1/messages?limit=7")] == [7]


async def test_a_cursor_of_another_conversation_is_refused(gateway: httpx.AsyncClient, store: Store) -> None:
    for other in (BOB, CAROL):
        for at in range(2):
            await store.message(ALICE, other, timestamp=minutes(at))
    cursor = (await get(gateway, "/api/conversations/1/messages?limit=1"))["next_cursor"]

    response = await gateway.get(f"/api/conversations/2/messages?cursor={cursor}")

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "cursor"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", [3, 2, 1]),
        ("?channel=sms", [2, 1]),
        ("?channel=email", [3]),
        (f"?participant={quote(BOB)}", [1]),
        (f"?participant={BOB}", [1]),
        ("?participant=201-666-1234", [2, 1]),
        (f"?participant={quote('ANN@example.com')}", [3]),
        (f"?participant={BEN}", [3]),
        (f"?participant={ANN}&channel=sms", []),
        ("?participant=%2B15555550100", []),
    ],
)
async def test_conversations_can_be_searched(
    gateway: httpx.AsyncClient, store: Store, query: str, found: list[int]
) -> None:
    await store.message(ALICE, BOB, timestamp=minutes(1))
    await store.message(ALICE, CAROL, timestamp=minutes(2))
    await store.message(ANN, BEN, timestamp=minutes(3), type=MessageType.EMAIL)

    conversations = await get(gateway, f"/api/conversations{query}")

    assert [conversation["id"] for conversation in conversations["items"]] == found
    assert conversations["next_cursor"] is None


async def test_turning_pages_shows_each_conversation_once_whatever_arrives(
    gateway: httpx.AsyncClient, store: Store
) -> None:
    others = [f"+1804555{number:04}" for number in range(9)]
    for number, other in enumerate(others):
        await store.message(other, ALICE, timestamp=minutes(number % 4))
    async with store.engine.connect() as connection:
        # Under way while the first page is read, and done before the second one.
        open_ = await connection.begin()
        await store.message(others[2], ALICE, connection=connection, timestamp=minutes(50))
        await store.message("+15555550100", ALICE, connection=connection, timestamp=minutes(-1))

        seen = []
        async for page in pages(gateway, "/api/conversations?limit=2"):
            seen += [conversation["id"] for conversation in page]
            if open_.is_active:
                await open_.commit()
            # The one that would come next moves to the front, an old one to the back, and a new one appears.
            await store.message(others[len(seen) % 9], ALICE, timestamp=minutes(100 + len(seen)))
            await store.message(others[-1], ALICE, timestamp=minutes(-len(seen)))
            await store.message(f"+1555555{len(seen):04}", ALICE, timestamp=minutes(-5))

    by_place = sorted(range(9), key=lambda number: (number % 4, number + 1), reverse=True)
    assert seen == [number + 1 for number in by_place]


async def test_a_page_shows_conversations_as_they_are_now(gateway: httpx.AsyncClient, store: Store) -> None:
    await store.message(ALICE, BOB, timestamp=minutes(1))
    await store.message(ALICE, CAROL, timestamp=minutes(2))
    cursor = (await get(gateway, "/api/conversations?limit=1"))["next_cursor"]
    await store.message(ALICE, BOB, timestamp=minutes(9), body="newest")

    [conversation] = (await get(gateway, f"/api/conversations?limit=1&cursor={cursor}"))["items"]

    assert (conversation["message_count"], conversation["last_message"]["body"]) == (2, "newest")


async def test_without_postgresql_only_reading_fails(start_gateway: StartGateway, nats_url: str) -> None:
    nowhere = "postgresql+asyncpg://user:password@127.0.0.1:1/nowhere"
    async with start_gateway(nats_url=nats_url, database_url=nowhere) as gateway:
        await _assert_that_only_reading_fails(gateway)


async def test_a_postgresql_that_hangs_does_not_hang_the_gateway(
    start_gateway: StartGateway, nats_url: str, database_url: str, store: Store
) -> None:
    await store.message(ALICE, BOB)
    async with (
        Line.to(database_url) as line,
        start_gateway(nats_url=nats_url, database_url=line.url) as gateway,
    ):
        assert len((await get(gateway, "/api/conversations"))["items"]) == 1
        line.hang()
        await _assert_that_only_reading_fails(gateway)
        line.work()
        line.break_connections()
        assert len((await get(gateway, "/api/conversations"))["items"]) == 1


async def _assert_that_only_reading_fails(gateway: httpx.AsyncClient) -> None:
    paths = ("messages/{}", "conversations/{}", "conversations/{}/messages", "conversations", "dead-letters")
    async with asyncio.timeout(LONGEST_READ):
        reads = await asyncio.gather(*(gateway.get("/api/" + path.format(uuid4())) for path in paths))
    async with asyncio.timeout(LONGEST_READ):
        replay = await gateway.post(f"/api/dead-letters/{uuid4()}/replay")
    async with asyncio.timeout(LONGEST_READ):
        cancellation = await gateway.delete(f"/api/messages/{uuid4()}")
    for response in (*reads, replay, cancellation):
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert response.json()["detail"] == "The database cannot be read at the moment"

    message = {"from": ALICE, "to": BOB, "type": "sms", "body": "Hello"}
    assert (await gateway.post("/api/messages/sms", json=message)).status_code == 202
    webhook = {**message, "messaging_provider_id": "1"}
    assert (await gateway.post("/api/webhooks/sms", json=webhook)).status_code == 200
    readiness = await gateway.get("/readyz")
    assert readiness.status_code == 200
    assert readiness.json()["postgresql"] == "does not answer, or is not migrated: nothing can be read"


async def test_a_restarted_postgresql_goes_unnoticed(gateway: httpx.AsyncClient, store: Store) -> None:
    await get(gateway, "/api/conversations")
    async with store.engine.begin() as connection:
        await connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gateway'")
        )

    await get(gateway, "/api/conversations")


class Line:
    """A line to PostgreSQL that can be made to hang, as a network does."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._works = asyncio.Event()
        self._works.set()
        self._writers: list[asyncio.StreamWriter] = []
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def to(cls, url: str) -> AsyncIterator["Line"]:
        parts = urlsplit(url)
        line = cls(parts.hostname or "", parts.port or 5432)
        server = await asyncio.start_server(line._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        line.url = parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}").geturl()
        try:
            yield line
        finally:
            line.work()
            line.break_connections()
            server.close()

    def hang(self) -> None:
        self._works.clear()

    def work(self) -> None:
        self._works.set()

    def break_connections(self) -> None:
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        self._writers += [writer, server_writer]
        await asyncio.gather(self._pump(reader, server_writer), self._pump(server_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                await self._works.wait()
                writer.write(data)
        except ConnectionError:
            pass
        writer.close()
