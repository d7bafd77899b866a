"""The services update their metrics."""

import math
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import nats as nats_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared.bus.provision import provision
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import CONSUMERS, Stream, outbound_subject
from shared.events import Event
from shared.message import DeliveryRequest
from tests import infrastructure, messages
from tests.e2e.stack import Stack, running_stack
from tests.waiting import eventually

PROVIDER = {"provider": "generic_sms"}
FAILED = {"direction": "outbound", "channel": "sms"}


class Metrics:
    """Reads the metrics of the services over HTTP."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    async def read(self, service: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        text = (await self._stack.client.get(f"{self._stack.processes[service].health_url}/metrics")).text
        return {
            (sample.name.removeprefix("messaging_"), frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def value(self, service: str, name: str, **labels: str) -> float | None:
        return (await self.read(service)).get((name, frozenset(labels.items())))

    async def becomes(self, expected: float, service: str, name: str, **labels: str) -> None:
        seen: float | None = None

        async def is_expected() -> bool:
            nonlocal seen
            seen = await self.value(service, name, **labels)
            return seen == expected

        try:
            await eventually(is_expected)
        except AssertionError as exc:
            raise AssertionError(f"{service}: {name} {labels} is {seen}, not {expected}") from exc

    async def lags(self) -> dict[str, float]:
        """Return the number of pending messages by consumer."""
        return {
            dict(labels)["consumer"]: value
            for service in ("ingest", "sender")
            for (name, labels), value in (await self.read(service)).items()
            if name == "consumer_pending"
        }


@pytest.fixture
async def stack(tmp_path: Path, database_url: str, nats_url: str) -> AsyncIterator[Stack]:
    settings = {"RETRY_DELAYS": "0.2", "BREAKER_PAUSE": "0.5"}
    async with running_stack(
        tmp_path, database_url=database_url, nats_url=nats_url, settings=settings
    ) as stack:
        yield stack


@pytest.fixture
def metrics(stack: Stack) -> Metrics:
    return Metrics(stack)


async def test_the_series_that_alerts_use_exist_from_the_start(metrics: Metrics) -> None:
    for service in ("gateway", "ingest", "sender"):
        await metrics.becomes(1, service, "ready")
    for provider in ("generic_sms", "generic_email"):
        for name in ("breaker_open", "provider_paused"):
            await metrics.becomes(0, "sender", name, provider=provider)
        await metrics.becomes(0, "sender", "send_attempts_total", provider=provider, outcome="sent")
    for stream in ("INBOUND", "OUTBOUND", "EVENTS", "DEADLETTER"):
        await metrics.becomes(0, "ingest", "persisted_total", stream=stream)

    async def every_consumer() -> bool:
        return (await metrics.lags()).keys() == {consumer.name for consumer in CONSUMERS}

    await eventually(every_consumer)


async def test_every_step_of_a_message_is_counted(stack: Stack, metrics: Metrics) -> None:
    message = await stack.send()
    await metrics.becomes(1, "gateway", "accepted_total", channel="sms", kind="send")
    await metrics.becomes(1, "sender", "send_attempts_total", **PROVIDER, outcome="sent")
    await metrics.becomes(1, "sender", "provider_request_duration_seconds_count", **PROVIDER)
    await metrics.becomes(1, "sender", "accept_to_sent_seconds_count", channel="sms")
    await metrics.becomes(1, "ingest", "persisted_total", stream="OUTBOUND")
    await metrics.becomes(1, "ingest", "persisted_total", stream="EVENTS")

    await stack.sms.inbound()
    await metrics.becomes(1, "gateway", "accepted_total", channel="sms", kind="webhook")
    await metrics.becomes(1, "ingest", "persisted_total", stream="INBOUND")

    sent = await stack.message_becomes(message["id"], "sent")
    await stack.sms.receipt(provider_message_id=sent["provider_message_id"], status="undelivered")
    await metrics.becomes(1, "gateway", "accepted_total", channel="sms", kind="receipt")
    await metrics.becomes(1, "gateway", "receipts_total", channel="sms", status="undelivered")


async def test_a_retry_is_counted_and_adds_to_the_time_to_send(stack: Stack, metrics: Metrics) -> None:
    await stack.sms.behave(status=500, times=1)
    await stack.send()
    await metrics.becomes(1, "sender", "retries_total", **PROVIDER, code="http_500")
    await metrics.becomes(1, "sender", "send_attempts_total", **PROVIDER, outcome="http_500")
    await metrics.becomes(1, "sender", "accept_to_sent_seconds_count", channel="sms")
    waited = await metrics.value("sender", "accept_to_sent_seconds_sum", channel="sms")
    assert waited is not None
    assert waited > 0.15


async def test_a_dead_letter_is_counted_and_its_replay_does_not_count_as_a_slow_send(
    stack: Stack, metrics: Metrics
) -> None:
    await stack.sms.behave(status=400, times=1)
    message = await stack.send()
    await metrics.becomes(1, "sender", "dead_letters_total", **FAILED, reason="http_400")
    await metrics.becomes(1, "ingest", "persisted_total", stream="DEADLETTER")
    await stack.message_becomes(message["id"], "failed")

    [letter] = await stack.items("/api/dead-letters")
    await stack.post(f"/api/dead-letters/{letter['id']}/replay", None)
    await metrics.becomes(1, "gateway", "accepted_total", channel="sms", kind="replay")
    await metrics.becomes(1, "sender", "send_attempts_total", **PROVIDER, outcome="sent")
    await stack.message_becomes(message["id"], "sent")
    assert await metrics.value("sender", "accept_to_sent_seconds_count", channel="sms") is None


async def test_a_provider_is_paused_until_it_accepts_a_message(stack: Stack, metrics: Metrics) -> None:
    await stack.sms.behave(status=401, times=1)
    await stack.send()
    await metrics.becomes(1, "sender", "provider_paused", **PROVIDER)
    await metrics.becomes(1, "sender", "breaker_open", **PROVIDER)
    await metrics.becomes(1, "sender", "deferrals_total", **PROVIDER, code="http_401")
    # The message is redelivered and accepted.
    await metrics.becomes(0, "sender", "provider_paused", **PROVIDER)
    await metrics.becomes(0, "sender", "breaker_open", **PROVIDER)


async def test_unreadable_and_expired_messages_are_counted(metrics: Metrics, publisher: Publisher) -> None:
    event = messages.accepted(messages.request(expires_at=messages.now() - timedelta(minutes=1)))
    message = event.data.message
    subject = outbound_subject(message.channel, message.conversation_key)
    await _publish(publisher, subject, event)
    await metrics.becomes(1, "sender", "expired_total", channel="sms")

    await publisher.publish(Stream.OUTBOUND, Outgoing(subject, None, b"poison"))
    for service in ("sender", "ingest"):  # each of them reads the stream
        await metrics.becomes(1, service, "dead_letters_total", **FAILED, reason="not_json")


async def _publish(publisher: Publisher, subject: str, event: Event[DeliveryRequest]) -> None:
    await publisher.publish(Stream.OUTBOUND, Outgoing(subject, event.id, event.encode()))


async def test_without_nats_the_lag_is_unknown_and_no_service_is_ready(
    tmp_path: Path, database_url: str
) -> None:
    async with infrastructure.nats(tmp_path / "nats") as server:
        client = await nats_client.connect(server.url)
        await provision(client.jetstream())
        await client.close()
        async with running_stack(tmp_path, database_url=database_url, nats_url=server.url) as stack:
            metrics = Metrics(stack)

            async def all_known() -> bool:
                lags = await metrics.lags()
                return len(lags) == len(CONSUMERS) and not any(map(math.isnan, lags.values()))

            async def all_unknown() -> bool:
                return all(map(math.isnan, (await metrics.lags()).values()))

            await eventually(all_known)
            await server.kill()
            await eventually(all_unknown)
            for service in ("gateway", "ingest", "sender"):
                await metrics.becomes(0, service, "ready")
            await server.start()
            await eventually(all_known)
            await metrics.becomes(1, "sender", "ready")
