"""STUB."""

import json
from collections.abc import Sequence

from shared.db.reader import Reader
from shared.webhook_endpoints import Delivery


class Renderer:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def render(self, deliveries: Sequence[Delivery]) -> Sequence[bytes]:
        return [
            json.dumps(
                {
                    "id": str(each.notification.id),
                    "type": each.notification.type,
                    "timestamp": each.notification.occurred_at.isoformat(),
                    "sequence": each.sequence,
                    "data": each.notification.webhook_endpoint,
                }
            ).encode()
            for each in deliveries
        ]
