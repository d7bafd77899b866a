"""The positions of the endpoints in the streams, from which another process can continue."""

from shared.bus.client import Bus
from shared.bus.key_value import KeyValueStore, UnreadableValueError
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import WEBHOOK_POSITIONS_BUCKET
from shared.ids import EndpointId
from shared.webhook_endpoints import Positions

_STREAM = f"KV_{WEBHOOK_POSITIONS_BUCKET}"


class PositionStore:
    """Reads and writes positions; its methods raise BusUnavailableError when NATS does not answer."""

    def __init__(self, bus: Bus, publisher: Publisher) -> None:
        self._publisher = publisher
        self._values = KeyValueStore.bucket(bus, publisher, WEBHOOK_POSITIONS_BUCKET, Positions)

    async def get(self, id_: EndpointId, after: int) -> Positions:
        """Return the positions of an endpoint that was enabled at a certain sequence of NOTIFICATIONS."""
        try:
            found = await self._values.get(str(id_))
        except UnreadableValueError:  # the endpoint is sent some events again
            found = None
        if found is None or found.value.after != after:
            return Positions(after=after, events=after)
        return found.value

    async def put(self, id_: EndpointId, positions: Positions) -> None:
        # Two processes may serve an endpoint for a moment. Each of them writes only what is finished, so
        # whichever is last is right.
        subject = f"$KV.{WEBHOOK_POSITIONS_BUCKET}.{id_}"
        payload = positions.model_dump_json().encode()
        await self._publisher.publish(_STREAM, Outgoing(subject, None, payload))
