"""The permissions in deploy/nats/nats-server.conf: each service can do its work and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import nats
import pytest
from pydantic import BaseModel
from structlog.testing import capture_logs

from dev.local_stack.readiness import NotReadyError, answers_jetstream
from dev.local_stack.servers import NatsServer
from services.gateway.operations.service import OperationsService
from services.sender.pauses import Pauses
from services.sender.reporter import Reporter
from services.sender.schedule import Limit, Schedules
from shared import supervision
from shared.bus.client import Bus, connect
from shared.bus.concurrent import ConcurrentReader
from shared.bus.consumer import ConsumerLoop, Done, Outcome, StreamMessage
from shared.bus.key_value import KeyValueStore
from shared.bus.membership import Membership
from shared.bus.processing import Begin
from shared.bus.provision import provision
from shared.bus.publisher import Publisher, publishing
from shared.bus.streams import Streams
from shared.bus.suppression_list import SuppressionList
from shared.bus.topology import (
    CONSUMERS,
    IDEMPOTENCY_BUCKET,
    LIMITS_BUCKET,
    WEBHOOK_POSITIONS_BUCKET,
    Consumer,
    Stream,
    inbound_message_subject,
    sender_shards,
)
from shared.bus.webhook_positions import PositionStore
from shared.channels import Channel
from shared.ids import new_endpoint_id, new_message_id
from shared.provider_states import ProviderCondition, ProviderState, SenderReport, SendingLimit
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState
from shared.webhook_endpoints import Positions
from tests import messages
from tests.ports import free_port
from tests.rights import (
    ADMIN,
    ADMINISTRATION,
    BUCKETS,
    CONFIGURATION,
    CONVERSATION,
    GATEWAY,
    INGEST,
    NOTIFIER,
    READ_BY,
    RECORD_OPT_OUTS,
    SENDER,
    SERVICES,
    SUBJECTS,
    ConfiguredNats,
    fill,
    outgoing,
    probing,
    provisioned_server,
)
from tests.waiting import eventually

pytestmark = pytest.mark.integration


class Value(BaseModel):
    """A value for a bucket."""

    text: str


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ConfiguredNats]:
    async with provisioned_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


async def published_by(server: ConfiguredNats, subject: str) -> set[str]:
    """Return the services that may publish to a subject."""
    allowed = set()
    for service in SERVICES:
        async with probing(server, service) as probe:
            if await probe.may_publish(subject):
                allowed.add(service)
    return allowed


@asynccontextmanager
async def working(server: ConfiguredNats, service: str) -> AsyncIterator[tuple[Bus, Publisher]]:
    """Connect as the service does, and check that the server denies nothing during the block."""
    with capture_logs() as logs:
        async with connect(server.url_for(service), name=service) as bus, publishing(bus) as publisher:
            await bus.until_connected()
            yield bus, publisher
            assert [entry for entry in logs if entry["log_level"] != "info"] == []


async def accept(messages: Sequence[StreamMessage]) -> Sequence[Outcome]:
    return [Done()] * len(messages)


async def accept_one(_: StreamMessage, begin: Begin) -> Outcome:
    begin()
    return Done()


def cases() -> Iterator[tuple[Stream, str, str]]:
    for stream, subjects in SUBJECTS.items():
        for subject, publishers in subjects.items():
            for publisher in publishers:
                yield stream, subject, publisher


@pytest.mark.parametrize(("stream", "subject", "service"), sorted(cases()))
async def test_a_service_publishes_to_its_streams(
    server: ConfiguredNats, stream: Stream, subject: str, service: str
) -> None:
    async with working(server, service) as (_, publisher):
        # Messages that are published at the same time may go as an atomic batch.
        sequences = await asyncio.gather(
            *(publisher.publish(stream, outgoing(subject)) for _ in range(3)), return_exceptions=True
        )
    assert all(isinstance(sequence, int) for sequence in sequences)


@pytest.mark.parametrize(
    ("subject", "services"),
    [case for subjects in SUBJECTS.values() for case in subjects.items()],
)
async def test_only_these_services_may_publish_to_a_subject(
    server: ConfiguredNats, subject: str, services: set[str]
) -> None:
    assert await published_by(server, subject) == services


@pytest.mark.parametrize(
    ("name", "service"), sorted((name, service) for name, services in BUCKETS.items() for service in services)
)
async def test_only_these_services_may_use_a_bucket(server: ConfiguredNats, name: str, service: str) -> None:
    async with working(server, service) as (bus, publisher):
        bucket, key = KeyValueStore.bucket(bus, publisher, name, Value), str(new_message_id())
        assert await bucket.get(key) is None
        first = await bucket.put(key, Value(text="first"), after=None)
        second = await bucket.put(key, Value(text="second"), after=first)
        assert await bucket.get(key) == second

    assert await published_by(server, f"$KV.{name}.{key}") == BUCKETS[name]
    # Ingest looks up whether a bounce was reported before.
    # The gateway shows what the senders report on their providers.
    others = {IDEMPOTENCY_BUCKET: {INGEST}, LIMITS_BUCKET: {GATEWAY}}
    readers = BUCKETS[name] | others.get(name, set())
    assert await published_by(server, f"$JS.API.DIRECT.GET.KV_{name}") == readers


@pytest.mark.parametrize(
    ("stream", "services"),
    [
        (Stream.INBOUND, {GATEWAY, INGEST, SENDER}),
        (Stream.OUTBOUND, {INGEST, SENDER}),
        (Stream.DELAYED, {INGEST, SENDER}),
        (Stream.EVENTS, {INGEST}),
        (Stream.SUPPRESSIONS, {GATEWAY, SENDER, INGEST}),
        (Stream.NOTIFICATIONS, {GATEWAY, NOTIFIER}),
        (Stream.WEBHOOK_RETRIES, {NOTIFIER}),
        (Stream.WEBHOOK_ATTEMPTS, {INGEST}),
    ],
)
async def test_only_these_services_may_read_the_messages_of_a_stream(
    server: ConfiguredNats, stream: Stream, services: set[str]
) -> None:
    assert await published_by(server, f"$JS.API.DIRECT.GET.{stream}") == services


@pytest.mark.parametrize("service", sorted(RECORD_OPT_OUTS))
async def test_opt_outs_are_checked(server: ConfiguredNats, service: str) -> None:
    async with working(server, service) as (bus, publisher):
        suppressions, recipient = SuppressionList(bus, publisher), str(uuid4())
        change = SuppressionChange(
            channel=Channel.SMS,
            theirs=recipient,
            state=SuppressionState.OPTED_OUT,
            source=SuppressionSource.API,
            occurred_at=messages.now(),
        )
        await suppressions.record(change)
        for _ in range(3):
            assert await suppressions.suppression_of(messages.message(to=recipient))
            assert await suppressions.suppression_of(messages.message(to=str(uuid4()))) is None


async def test_the_gateway_reads_several_inbound_messages_at_once(server: ConfiguredNats) -> None:
    async with working(server, GATEWAY) as (bus, _):
        subjects = [inbound_message_subject(Channel.EMAIL, CONVERSATION), "inbound.message.email.0.x"]
        assert (await bus.last_messages(Stream.INBOUND, subjects)).is_complete


@pytest.mark.parametrize("service", READ_BY)
async def test_a_service_reads_its_consumers_and_acknowledges(server: ConfiguredNats, service: str) -> None:
    consumers = READ_BY[service]

    async def all_are_finished() -> bool:
        return await unfinished(server, consumers) == set()

    await fill(server)
    assert await unfinished(server, consumers) == {consumer.name for consumer in consumers}
    async with working(server, service) as (bus, _):
        loops = [
            ConcurrentReader(bus, consumer, accept_one, capacity=100)
            if service == SENDER
            else ConsumerLoop(bus, consumer, accept, batch=100)
            for consumer in consumers
        ]
        running = [asyncio.create_task(loop.run()) for loop in loops]
        await eventually(all_are_finished)
        for loop in loops:
            loop.stop()
        await asyncio.gather(*running)


async def unfinished(server: ConfiguredNats, consumers: Sequence[Consumer]) -> set[str]:
    """Return the names of the consumers that have not acknowledged every message."""
    client = await nats.connect(server.url_for(ADMIN))
    jetstream = client.jetstream()
    infos = [await jetstream.consumer_info(consumer.stream, consumer.name) for consumer in consumers]
    await client.close()
    return {info.name for info in infos if info.num_ack_pending or info.num_pending}


async def test_only_its_own_service_may_read_a_consumer_or_acknowledge(server: ConfiguredNats) -> None:
    for service in SERVICES:
        own = READ_BY.get(service, ())
        async with probing(server, service) as probe:
            for consumer in CONSUMERS:
                place = f"{consumer.stream}.{consumer.name}"
                unpin = f"$JS.API.CONSUMER.UNPIN.{place}"
                assert await probe.may_publish(unpin) == (consumer in own and consumer.is_pinned)
                for subject in (
                    f"$JS.API.CONSUMER.MSG.NEXT.{place}",
                    f"$JS.ACK.{place}.1.1.1.1700000000000000000.0",
                    # The server reads this one as the same acknowledgement.
                    f"$JS.ACK.{place}.DELAYED.1.1.1700000000000000000.0",
                ):
                    assert await probe.may_publish(subject) == (consumer in own), (service, subject)


@pytest.mark.parametrize("service", READ_BY)
async def test_a_service_measures_the_lag_of_its_consumers(server: ConfiguredNats, service: str) -> None:
    async with working(server, service) as (bus, _):
        for consumer in READ_BY[service]:
            assert await Streams(bus).lag(consumer) is not None


async def test_a_sender_finds_its_shards(server: ConfiguredNats) -> None:
    async with working(server, SENDER) as (bus, _):
        found = await Streams(bus).consumers_of(Stream.OUTBOUND)
    assert {shard.name for channel in Channel for shard in sender_shards(channel)} <= set(found)
    assert await published_by(server, f"$JS.API.CONSUMER.NAMES.{Stream.OUTBOUND}") == {GATEWAY, SENDER}
    assert await published_by(server, f"$JS.API.CONSUMER.NAMES.{Stream.INBOUND}") == set()


async def test_the_gateway_shows_the_state_of_consumers_and_providers(server: ConfiguredNats) -> None:
    state = ProviderState(
        name="generic_sms",
        channel=Channel.SMS,
        state=ProviderCondition.HEALTHY,
        until=None,
        in_progress=0,
        concurrency=1,
        rate=None,
        paused_senders=0,
    )
    limit = SendingLimit(name="campaign", senders=("+12025550100",), rate=4, per_day=None)
    report = SenderReport(providers=(state,), limits=(limit,))
    async with working(server, SENDER) as (_, publisher), working(server, GATEWAY) as (bus, _):
        operations = OperationsService(bus, keeps_media=True)
        async with supervision.running("reporter", Reporter(publisher, lambda: report).run()):

            async def is_reported() -> bool:
                return bool((await operations.get()).providers)

            await eventually(is_reported)
        shown = await operations.get()
    assert [each.name for each in shown.providers] == [state.name]
    assert [each.model_dump(mode="json") for each in shown.sending_limits] == [limit.model_dump(mode="json")]
    assert all(each.pending is not None for each in shown.consumers)
    assert {each.name for each in shown.consumers} == {consumer.name for consumer in CONSUMERS}


async def test_a_notifier_records_positions_that_the_gateway_reads(server: ConfiguredNats) -> None:
    endpoint, positions = new_endpoint_id(), Positions(after=1, events=2)
    async with working(server, NOTIFIER) as (bus, publisher):
        await PositionStore(bus, publisher).put(endpoint, positions)
    async with working(server, GATEWAY) as (bus, publisher):
        assert await PositionStore(bus, publisher).get(endpoint, 1) == positions
    assert await published_by(server, f"$KV.{WEBHOOK_POSITIONS_BUCKET}.{endpoint}") == {NOTIFIER}


async def test_ingest_reads_the_messages_of_advisories(server: ConfiguredNats) -> None:
    await fill(server)
    async with working(server, INGEST) as (bus, _):
        streams = Streams(bus)
        for stream in {consumer.stream for consumer in CONSUMERS}:
            await streams.message(stream, 1)  # raises without the permission


async def test_senders_discover_each_other(server: ConfiguredNats) -> None:
    async with working(server, SENDER) as (bus, _), working(server, SENDER) as (other_bus, _):
        members = [Membership(each, f"sender.{Channel.SMS}") for each in (bus, other_bus)]
        running = [asyncio.create_task(member.run()) for member in members]

        async def share() -> bool:
            return [len(member.share_of(["a", "b"])) for member in members] == [1, 1]

        await eventually(share)
        for task in running:
            task.cancel()
        await asyncio.wait(running)


async def test_senders_share_limits_and_pauses(server: ConfiguredNats) -> None:
    async with working(server, SENDER) as (bus, publisher), working(server, SENDER) as (other_bus, _):
        limit, schedules = Limit("a@example.com", rate=1), Schedules(bus, publisher)
        for _ in range(2):
            assert len(await schedules.reserve(limit, wanted=1, needed=1)) == 1

        heard: list[str | None] = []
        pauses, other = Pauses(bus, publisher), Pauses(other_bus, publisher)
        other.listen("twilio", lambda sender, _: heard.append(sender))
        running = asyncio.create_task(other.run())
        await other.until_known()
        pauses.record("twilio", None, 60)
        pauses.record("twilio", messages.ALICE, 60)

        async def are_heard() -> bool:
            return set(heard) == {None, messages.ALICE}

        await eventually(are_heard)
        running.cancel()
        await asyncio.wait([running])


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_administers_nothing(server: ConfiguredNats, service: str) -> None:
    async with probing(server, service) as probe:
        assert [subject for subject in ADMINISTRATION if await probe.may_publish(subject)] == []


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_receives_nothing_of_the_others(server: ConfiguredNats, service: str) -> None:
    client = await nats.connect(server.url_for(service))
    everything = await client.subscribe(">")
    await client.flush()
    await fill(server)
    for other in SERVICES:
        if other != service:
            async with probing(server, other) as probe:
                await probe.may_publish(f"_INBOX_{service}.1")
                await probe.may_publish(f"presence.sender.{Channel.SMS}")
    await client.publish("the.end")
    assert (await everything.next_msg()).subject == "the.end"
    await client.close()


@pytest.mark.parametrize("user", [None, *SERVICES, ADMIN])
async def test_nobody_can_connect_without_the_password(server: ConfiguredNats, user: str | None) -> None:
    with pytest.raises(NotReadyError, match=r"(?i)authorization"):
        await answers_jetstream(server.url if user is None else server.url_for(user, "another"))


async def test_the_streams_of_a_server_without_accounts_are_kept(tmp_path: Path) -> None:
    earlier = NatsServer(tmp_path / "data", free_port(), log=tmp_path / "earlier.log", durable=False)
    await earlier.start()
    client = await nats.connect(earlier.url)
    await provision(client.jetstream(timeout=30))
    await client.jetstream().publish("events.sms.sent", b"stored")
    await client.jetstream().reset_consumer(Stream.EVENTS, "ingest-events", 2)
    await client.close()
    await earlier.stop()
    for _ in range(2):
        server = ConfiguredNats(tmp_path / "data", free_port(), log=tmp_path / "log")
        await server.start()
        try:
            client = await nats.connect(server.url_for(ADMIN))
            jetstream = client.jetstream()
            assert (await jetstream.get_msg(Stream.EVENTS, 1)).data == b"stored"
            assert (await jetstream.consumer_info(Stream.EVENTS, "ingest-events")).num_pending == 0
            await client.close()
        finally:
            await server.kill()


async def test_acknowledged_messages_are_on_the_disk() -> None:
    assert "  sync_interval: always" in CONFIGURATION.read_text().splitlines()
