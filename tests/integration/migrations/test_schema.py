"""The constraints, the triggers and the view."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Row, insert, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from migrations.indexes import FORMER_INDEXES
from shared.db.tables import Conversation, DeliveryReceipt, Message, MessageEvent, Participant

pytestmark = pytest.mark.integration

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(database_url)
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


async def new_conversation(connection: AsyncConnection) -> int:
    values = {"key": uuid4(), "channel": "sms"}
    return (
        await connection.execute(insert(Conversation).values(values).returning(Conversation.id))
    ).scalar_one()


def message(conversation: int, hours: int = 0) -> dict[str, object]:
    timestamp = NOON + timedelta(hours=hours)
    return {
        "id": uuid4(),
        "conversation_id": conversation,
        "channel": "sms",
        "direction": "outbound",
        "type": "sms",
        "from_address": "+12016660001",
        "to_address": "+18045550001",
        "body": "hello",
        "attachments": [],
        "timestamp": timestamp,
        "created_at": timestamp,
    }


async def conversations(connection: AsyncConnection) -> Sequence[Row[Any]]:
    query = text("SELECT ctid, message_count, last_message_at FROM conversations ORDER BY id")
    return (await connection.execute(query)).all()


async def summary(connection: AsyncConnection) -> list[tuple[int, datetime | None]]:
    return [(row.message_count, row.last_message_at) for row in await conversations(connection)]


async def test_inserted_messages_are_counted_for_each_conversation(connection: AsyncConnection) -> None:
    first, second, _ = [await new_conversation(connection) for _ in range(3)]

    await connection.execute(insert(Message), [message(first, 3), message(first, 1), message(second, 2)])
    await connection.execute(insert(Message), [message(first, 2)])

    assert await summary(connection) == [
        (3, NOON + timedelta(hours=3)),
        (1, NOON + timedelta(hours=2)),
        (0, None),
    ]


async def test_inserting_existing_messages_changes_no_conversation(connection: AsyncConnection) -> None:
    known = message(await new_conversation(connection))
    await connection.execute(insert(Message), [known])
    before = await conversations(connection)

    await connection.execute(text("INSERT INTO messages SELECT * FROM messages ON CONFLICT DO NOTHING"))

    assert await conversations(connection) == before


async def test_the_previous_release_inserts_messages_without_a_priority(connection: AsyncConnection) -> None:
    await connection.execute(insert(Message), [message(await new_conversation(connection))])

    assert await connection.scalar(text("SELECT priority FROM messages")) == "transactional"


async def test_deleted_messages_are_no_longer_counted(connection: AsyncConnection) -> None:
    first, second = [await new_conversation(connection) for _ in range(2)]
    rows = [message(first, hour) for hour in range(4)] + [message(second, 9)]
    await connection.execute(insert(Message), rows)

    await connection.execute(
        text("""DELETE FROM messages WHERE "timestamp" >= :limit"""), {"limit": NOON + timedelta(hours=3)}
    )

    assert await summary(connection) == [(3, NOON + timedelta(hours=2)), (0, None)]


async def test_only_the_index_of_the_list_has_columns_that_every_message_changes(
    connection: AsyncConnection,
) -> None:
    query = text("""
        SELECT indexrelid::regclass::text, attname::text
        FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey)
        WHERE indrelid = 'conversations'::regclass AND attname IN ('message_count', 'last_message_at')
    """)

    found = [tuple(row) for row in await connection.execute(query) if row.indexrelid not in FORMER_INDEXES]

    assert found == [("ix_conversations_channel_last_message_at", "last_message_at")]


async def test_an_address_may_be_a_participant_in_several_channels_but_once_in_each(
    connection: AsyncConnection,
) -> None:
    await connection.execute(
        insert(Participant), [{"address": "HATCH", "channel": channel} for channel in ("sms", "email")]
    )

    with pytest.raises(IntegrityError):
        await connection.execute(insert(Participant), [{"address": "HATCH", "channel": "sms"}])


@pytest.mark.parametrize(
    "changes",
    [
        {"direction": "inbound"},
        {"direction": "inbound", "provider": "p"},
        {"direction": "sideways"},
        {"type": "pigeon"},
        {"channel": "pigeon"},
        {"conversation_id": 0},
    ],
)
async def test_an_invalid_message_is_rejected(
    connection: AsyncConnection, changes: dict[str, object]
) -> None:
    conversation = await new_conversation(connection)

    with pytest.raises(IntegrityError):
        await connection.execute(insert(Message), [{**message(conversation), **changes}])


async def add_history(connection: AsyncConnection) -> UUID:
    """Add a message that was sent at the second attempt, and has two receipts."""
    message_id = uuid4()
    nothing = {"provider": None, "provider_message_id": None, "error": None, "next_attempt_at": None}
    event = {"message_id": message_id, "generation": 1, "attempt": 0, "occurred_at": NOON, **nothing}
    sent = {"provider": "p", "provider_message_id": "m-1"}
    await connection.execute(
        insert(MessageEvent),
        [
            {**event, "id": uuid4(), "status": "accepted", "precedence": 0},
            {**event, "id": uuid4(), "status": "sent", "precedence": 3, "attempt": 2, **sent},
        ],
    )
    report = {**sent, "occurred_at": NOON, "precedence": 4}
    await connection.execute(
        insert(DeliveryReceipt),
        [
            {**report, "id": uuid4(), "status": "delivered", "error_code": None},
            {**report, "id": uuid4(), "status": "undelivered", "error_code": "30003"},
            {**report, "id": uuid4(), "status": "delivered", "error_code": None, "provider": "q"},
        ],
    )
    return message_id


async def test_the_history_of_a_message_has_its_events_and_its_receipts(connection: AsyncConnection) -> None:
    message_id = await add_history(connection)
    await add_unknown_receipt(connection)

    query = text("SELECT * FROM message_history WHERE message_id = :id ORDER BY precedence, status")
    rows = (await connection.execute(query, {"id": message_id})).all()

    assert [(row.source, row.status, row.generation, row.attempt, row.error) for row in rows] == [
        ("event", "accepted", 1, 0, None),
        ("event", "sent", 1, 2, None),
        ("receipt", "delivered", 1, 2, None),
        ("receipt", "undelivered", 1, 2, {"code": "30003"}),
    ]


async def test_a_receipt_may_name_its_message_by_our_id(connection: AsyncConnection) -> None:
    message_id = await add_history(connection)
    report = {
        "status": "delivered",
        "precedence": 4,
        "occurred_at": NOON,
        "message_id": message_id,
        "provider": "p",
    }
    error = {"error_code": "dropped", "error_detail": "Bounced Address"}
    await connection.execute(
        insert(DeliveryReceipt),
        [
            {
                **report,
                "id": uuid4(),
                "provider_message_id": "m-1",
                "error_code": "both",
                "error_detail": None,
            },
            {**report, "id": uuid4(), "provider_message_id": "another", **error},
            {**report, "id": uuid4(), "provider_message_id": "m-1", "provider": "q", **error},
            {**report, "id": uuid4(), "provider_message_id": "m-9", "message_id": uuid4(), **error},
        ],
    )

    query = text("SELECT * FROM message_history WHERE message_id = :id AND status = 'delivered'")
    rows = (await connection.execute(query, {"id": message_id})).all()

    errors = [row.error for row in rows if row.error]
    assert sorted(errors, key=str) == [
        {"code": "both"},
        {"code": "dropped", "detail": "Bounced Address"},
    ]


async def test_a_receipt_with_our_id_belongs_to_a_message_that_failed_in_doubt(
    connection: AsyncConnection,
) -> None:
    doubtful, certain = uuid4(), uuid4()
    nothing = {"provider_message_id": None, "error": None, "next_attempt_at": None}
    failed = {"status": "failed", "provider": "p", "attempt": 3, "occurred_at": NOON, **nothing}
    await connection.execute(
        insert(MessageEvent),
        [
            {**failed, "id": uuid4(), "message_id": doubtful, "generation": 0, "precedence": 2},
            {**failed, "id": uuid4(), "message_id": doubtful, "generation": 1, "precedence": 2},
            {**failed, "id": uuid4(), "message_id": certain, "generation": 0, "precedence": 4},
        ],
    )
    receipt = {"status": "delivered", "precedence": 4, "occurred_at": NOON, "provider": "p"}
    await connection.execute(
        insert(DeliveryReceipt),
        [
            {**receipt, "id": uuid4(), "provider_message_id": "m-1", "message_id": doubtful},
            {**receipt, "id": uuid4(), "provider_message_id": "m-2", "message_id": certain},
        ],
    )

    query = text("SELECT * FROM message_history WHERE source = 'receipt'")
    rows = (await connection.execute(query)).all()

    assert [(row.message_id, row.status, row.generation, row.attempt) for row in rows] == [
        (doubtful, "delivered", 1, 3)
    ]


async def test_a_receipt_of_an_earlier_message_with_the_same_id_is_not_shown(
    connection: AsyncConnection,
) -> None:
    message_id = await add_history(connection)
    receipt = {"provider": "p", "provider_message_id": "m-1", "status": "canceled", "precedence": 4}
    ages = {timedelta(hours=25): None, timedelta(hours=23): None, timedelta(hours=30): message_id}
    await connection.execute(
        insert(DeliveryReceipt),
        [
            {**receipt, "id": uuid4(), "occurred_at": NOON - age, "message_id": own_id}
            for age, own_id in ages.items()
        ],
    )

    query = text("SELECT occurred_at FROM message_history WHERE message_id = :id AND status = 'canceled'")
    shown = set(await connection.scalars(query, {"id": message_id}))

    assert shown == {NOON - timedelta(hours=23), NOON - timedelta(hours=30)}


async def add_unknown_receipt(connection: AsyncConnection) -> None:
    """Add a receipt whose message is unknown, so that it belongs to no history yet."""
    row = {
        "id": uuid4(),
        "provider": "p",
        "provider_message_id": "m-2",
        "status": "delivered",
        "precedence": 4,
    }
    await connection.execute(insert(DeliveryReceipt), [{**row, "occurred_at": NOON, "error_code": None}])


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM message_history WHERE message_id = '00000000-0000-0000-0000-000000000000'",
        """
        SELECT * FROM (SELECT id FROM messages WHERE conversation_id = 1 LIMIT 50) AS page
        LEFT JOIN LATERAL (
            SELECT status FROM message_history WHERE message_id = page.id
            ORDER BY generation DESC, precedence DESC LIMIT 1
        ) AS state ON true
        """,
    ],
)
async def test_the_history_of_a_message_is_found_with_indexes(
    connection: AsyncConnection, query: str
) -> None:
    await fill(connection)

    plan = "\n".join(await connection.scalars(text(f"EXPLAIN {query}")))

    assert "Seq Scan on message_events" not in plan, plan
    assert "Seq Scan on delivery_receipts" not in plan, plan
    assert plan.count("ix_message_events_message_id") == 5, plan
    assert plan.count("ix_delivery_receipts_provider_message") == 1, plan


async def fill(connection: AsyncConnection) -> None:
    """Add many events and receipts, and update the statistics of the planner."""
    await connection.execute(
        text("""
            INSERT INTO message_events (
                id, message_id, status, generation, precedence, attempt, provider, provider_message_id,
                occurred_at
            )
            SELECT gen_random_uuid(), gen_random_uuid(), 'sent', 0, 3, 1, 'p', number::text, now()
            FROM generate_series(1, 50000) AS number
        """)
    )
    await connection.execute(
        text("""
            INSERT INTO delivery_receipts (id, provider, provider_message_id, status, precedence, occurred_at)
            SELECT gen_random_uuid(), 'p', number::text, 'delivered', 4, now()
            FROM generate_series(1, 50000) AS number
        """)
    )
    conversation = await new_conversation(connection)
    await connection.execute(insert(Message), [message(conversation, number) for number in range(50)])
    await connection.execute(text("ANALYZE"))
