from datetime import datetime
from uuid import UUID

from shared.channels import Direction
from shared.status import Status
from tests.integration.gateway.rows import Rows
from tests.messages import ALICE, BOB


async def insert_scheduled(rows: Rows, due: datetime, *, from_: str = ALICE, to: str = BOB) -> UUID:
    """Insert a message with the reports of the gateway and of the sender that it is scheduled."""
    id_ = await rows.message(from_, to, direction=Direction.OUTBOUND, send_at=due)
    for attempt in range(2):
        await rows.event(id_, Status.SCHEDULED, attempt=attempt, next_attempt_at=due)
    return id_
