from datetime import datetime, timedelta

import pytest
from nats.js import JetStreamContext

from shared.bus.client import Bus
from shared.bus.publisher import Publisher
from shared.bus.topology import DELIVERIES_BUCKET
from shared.ids import new_message_id
from shared.ledger import Ledger
from shared.lifecycle.entry import DeliveryState, LedgerEntry
from shared.status import Step
from tests.messages import now

RECORDED = now()


@pytest.mark.parametrize(
    ("expires_at", "ttl"),
    [
        (RECORDED + timedelta(hours=4), "122400s"),
        (RECORDED - timedelta(hours=4), "108000s"),
        (None, None),
    ],
)
async def test_an_entry_is_kept_for_thirty_hours_after_the_validity_of_its_message(
    bus: Bus,
    publisher: Publisher,
    jetstream: JetStreamContext,
    expires_at: datetime | None,
    ttl: str | None,
) -> None:
    id_ = new_message_id()
    entry = LedgerEntry(step=Step(0, 1, 0), state=DeliveryState.SENT, at=RECORDED, expires_at=expires_at)
    await Ledger(bus, publisher).write(id_, entry, after=None)

    stored = await jetstream.get_last_msg(f"KV_{DELIVERIES_BUCKET}", f"$KV.{DELIVERIES_BUCKET}.{id_}")
    assert (stored.headers or {}).get("Nats-TTL") == ttl
