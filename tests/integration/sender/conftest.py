"""A sender in the test's own event loop, between a real NATS and mock providers over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from mock_providers.registry import SMS
from services.sender.attachments import fetching
from services.sender.circuit_breaker import CircuitBreaker
from services.sender.delivery import Deliverer
from services.sender.event_publisher import EventPublisher
from services.sender.limits import GatesBySender, Limiter
from services.sender.pauses import Pauses
from services.sender.provider_client import ProviderClient
from services.sender.provider_selection import ProviderSelection
from services.sender.worker import Worker
from shared.bus import lines
from shared.bus.client import Bus
from shared.bus.dead_letters import DeadLetterPublisher
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.suppression_list import SuppressionList
from shared.bus.topology import CONSUMERS, Stream, outbound_subject
from shared.channels import Channel
from shared.ledger import Ledger
from shared.lifecycle.policy import DeliveryPolicy, OnAmbiguous
from shared.message import DeliveryRequest
from shared.providers.base import Adapter, Provider
from shared.providers.generic.sms import GENERIC_SMS, GenericSmsAdapter
from shared.providers.http import make_client
from shared.providers.registry import create_adapter
from tests import messages, providers
from tests.providers import MockProvider
from tests.waiting import eventually

DELAYS = tuple(timedelta(seconds=seconds) for seconds in (0.1, 0.1, 0.1, 0.1))


@dataclass(frozen=True)
class Harness:
    """Everything that a test of the sender needs."""

    bus: Bus
    publisher: Publisher
    ledger: Ledger
    suppressions: SuppressionList
    provider: MockProvider

    async def accept(self, request: DeliveryRequest | None = None) -> DeliveryRequest:
        """Publish a message as the gateway does when it has accepted one."""
        event = messages.accepted(request)
        message = event.data.message
        subject = outbound_subject(message.channel, message.conversation_key, message.priority)
        await self.publisher.publish(Stream.OUTBOUND, Outgoing(subject, event.id, event.encode()))
        return event.data

    async def stored(self, stream: Stream) -> list[dict[str, Any]]:
        """Read all events of a stream."""
        jetstream = self.bus.jetstream
        last = (await jetstream.stream_info(stream)).state.last_seq
        found: list[dict[str, Any]] = []
        for sequence in range(1, last + 1):
            try:
                message = await jetstream.get_msg(stream, sequence)
            except NotFoundError:
                continue
            found += map(json.loads, lines.split(message.data or b""))
        return found

    async def reports(self, request: DeliveryRequest) -> list[dict[str, Any]]:
        """Read the status reports on a message."""
        data = {event["id"]: event["data"] for event in await self.stored(Stream.EVENTS)}.values()
        return [report for report in data if report["message_id"] == str(request.message.id)]

    async def statuses(self, request: DeliveryRequest) -> list[str]:
        return [report["status"] for report in await self.reports(request)]

    async def wait_for_status(self, request: DeliveryRequest, status: str) -> None:
        async def is_reported() -> bool:
            return status in await self.statuses(request)

        await eventually(is_reported)

    async def dead_letters(self) -> list[dict[str, Any]]:
        return [event["data"] for event in await self.stored(Stream.DEADLETTER)]

    async def reset_consumers(self) -> None:
        """Have every message delivered to the sender again, as `nats consumer reset` does."""
        for consumer in CONSUMERS:
            if consumer.name.startswith("sender-"):
                await self.bus.jetstream.reset_consumer(consumer.stream, consumer.name, 1)

    async def is_idle(self) -> bool:
        """Return whether the sender has nothing left to do."""
        for consumer in CONSUMERS:
            if consumer.name.startswith("sender-"):
                info = await self.bus.jetstream.consumer_info(consumer.stream, consumer.name)
                if info.num_pending or info.num_ack_pending:
                    return False
        return True


class AdapterWithoutKeys(GenericSmsAdapter):
    """The adapter of a provider that treats a second request with the same key as a second message."""

    honours_idempotency_keys = False


WITHOUT_KEYS = replace(GENERIC_SMS, adapter=AdapterWithoutKeys)

ProviderAndAdapter = tuple[Provider[Any], Adapter[Any]]
SenderFactory = Callable[..., AbstractAsyncContextManager[Worker]]


@pytest.fixture
async def provider() -> AsyncIterator[MockProvider]:
    async with providers.running(SMS) as provider:
        yield provider


@pytest.fixture
def harness(bus: Bus, publisher: Publisher, provider: MockProvider) -> Harness:
    return Harness(bus, publisher, Ledger(bus, publisher), SuppressionList(bus, publisher), provider)


@pytest.fixture
def sender(harness: Harness) -> SenderFactory:
    """Return a function that runs a sender with the given parts.

    Its arguments are the first provider and its URL, the providers after it (`then`), and settings of a
    sender; `timeout` and `pause` are in seconds.
    """

    @asynccontextmanager
    async def run(  # noqa: PLR0913 - a choice of parts
        *,
        provider: Provider[Any] = GENERIC_SMS,
        url: str | None = None,
        then: Sequence[ProviderAndAdapter] = (),
        delays: tuple[timedelta, ...] = DELAYS,
        on_ambiguous: OnAmbiguous = OnAmbiguous.RESEND,
        timeout: float = 5.0,  # noqa: ASYNC109 - of HTTP requests
        failures: int = 100,
        pause: float = 0.3,
        gates: GatesBySender | None = None,
    ) -> AsyncIterator[Worker]:
        first = create_adapter(provider, sms_provider_url=url or harness.provider.url)
        async with make_client(timeout=timeout) as http_client, fetching() as fetch:
            pauses = Pauses(harness.bus, harness.publisher)
            following = asyncio.create_task(pauses.run())
            clients = [
                ProviderClient(
                    each,
                    adapter,
                    http_client,
                    breaker=_create_breaker(failures, pause),
                    limiter=Limiter(32, by_sender=gates),
                    pauses=pauses,
                    fetch=fetch,
                )
                for each, adapter in ((provider, first), *then)
            ]
            deliverer = Deliverer(
                harness.ledger,
                harness.suppressions,
                EventPublisher(harness.publisher),
                ProviderSelection({Channel.SMS: clients}),
                DeliveryPolicy(delays=delays, on_ambiguous=on_ambiguous, grace=timedelta(0)),
            )
            worker = Worker(harness.bus, deliverer, DeadLetterPublisher(harness.publisher, "sender"))
            worker.start()
            try:
                yield worker
            finally:
                await worker.stop()
                following.cancel()

    return run


def _create_breaker(failures: int, pause: float) -> CircuitBreaker:
    return CircuitBreaker(failures=failures, pause=timedelta(seconds=pause))
