"""A sender in the test's own event loop, between a real NATS and mock providers over HTTP."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
from nats.js.errors import NotFoundError

from mock_providers.sms import SMS
from services.sender.event_publisher import EventPublisher
from services.sender.attachments import fetching
from services.sender.circuit_breaker import CircuitBreaker
from services.sender.delivery import Deliverer, Policy
from shared.providers.base import Provider
from shared.providers.generic.sms import GenericSms, GenericSmsSettings
from shared.providers.http import make_client
from services.sender.provider_client import Limits, Route
from services.sender.provider_selection import Routes
from services.sender.settings import OnAmbiguous
from services.sender.worker import Worker
from shared.bus.client import Bus
from shared.bus.dead_letters import DeadLetterPublisher
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import CONSUMERS, Stream, outbound_subject
from shared.channels import Channel
from shared.suppressions import SuppressionList
from shared.events import DeliveryRequest
from shared.ledger import Ledger
from tests import messages, providers
from tests.providers import MockProvider

DELAYS = tuple(timedelta(seconds=seconds) for seconds in (0.1, 0.1, 0.1, 0.1))


@dataclass(frozen=True)
class Harness:
    """What a test of the sender holds in its hands."""

    bus: Bus
    publisher: Publisher
    ledger: Ledger
    suppressions: SuppressionList
    provider: MockProvider

    async def accept(self, request: DeliveryRequest | None = None) -> DeliveryRequest:
        """Publish a message as the gateway does when it has accepted one."""
        event = messages.accepted(request)
        message = event.data.message
        subject = outbound_subject(message.channel, message.conversation_key)
        await self.publisher.publish(Stream.OUTBOUND, Outgoing(subject, event.id, event.encode()))
        return event.data

    async def stored(self, stream: Stream) -> list[dict[str, Any]]:
        """Read all events of a stream."""
        jetstream = self.bus.jetstream
        last = (await jetstream.stream_info(stream)).state.last_seq
        found = []
        for sequence in range(1, last + 1):
            try:
                message = await jetstream.get_msg(stream, sequence)
            except NotFoundError:
                continue
            found.append(json.loads(message.data or b""))
        return found

    async def statuses(self, of: DeliveryRequest) -> list[str]:
        events = await self.stored(Stream.EVENTS)
        return [
            event["data"]["status"] for event in events if event["data"]["message_id"] == str(of.message.id)
        ]

    async def dead_letters(self) -> list[dict[str, Any]]:
        return [event["data"] for event in await self.stored(Stream.DEADLETTER)]

    async def reset_consumers(self) -> None:
        """Give every message to the sender again, as `nats consumer reset` does."""
        for consumer in CONSUMERS:
            if consumer.name.startswith("sender-"):
                await self.bus.jetstream.reset_consumer(consumer.stream, consumer.name, 1)

    async def is_idle(self) -> bool:
        """Tell whether the sender has nothing left to do."""
        for consumer in CONSUMERS:
            if consumer.name.startswith("sender-"):
                info = await self.bus.jetstream.consumer_info(consumer.stream, consumer.name)
                if info.num_pending or info.num_ack_pending:
                    return False
        return True


class ForgetfulSms(GenericSms):
    """A provider that takes a second request with the same key for a second message."""

    honours_idempotency_keys = False


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
    """Start a sender whose parts can be chosen; `patience` and `pause` are in seconds.

    `then` are providers that come after that one.
    """

    @asynccontextmanager
    async def run(  # noqa: PLR0913 - parts to choose from
        *,
        kind: type[GenericSms] = GenericSms,
        url: str | None = None,
        delays: tuple[timedelta, ...] = DELAYS,
        on_ambiguous: OnAmbiguous = OnAmbiguous.RESEND,
        patience: float = 5.0,
        failures: int = 100,
        pause: float = 0.3,
        then: Sequence[Callable[[httpx.AsyncClient], Provider]] = (),
    ) -> AsyncIterator[Worker]:
        policy = Policy(delays=delays, on_ambiguous=on_ambiguous, grace=timedelta(0))
        settings = GenericSmsSettings(sms_provider_url=url or harness.provider.url)
        async with make_client(timeout=patience) as client, fetching() as fetch:
            routes = [
                Route(provider, _breaker(failures, pause), Limits(concurrency=32), fetch)
                for provider in (kind(client, settings), *(make(client) for make in then))
            ]
            by_channel = Routes({Channel.SMS: routes})
            events = EventPublisher(harness.publisher)
            deliverer = Deliverer(harness.ledger, harness.suppressions, events, by_channel, policy)
            worker = Worker(harness.bus, deliverer, DeadLetterPublisher(harness.publisher, "sender"))
            worker.start()
            try:
                yield worker
            finally:
                await worker.stop()

    return run


def _breaker(failures: int, pause: float) -> CircuitBreaker:
    return CircuitBreaker(failures=failures, pause=timedelta(seconds=pause), clock=messages.now)
