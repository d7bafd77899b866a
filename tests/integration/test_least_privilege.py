"""The permissions in deploy/nats/nats-server.conf: each service can do its work and nothing else."""

import asyncio
import json
import sysconfig
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import nats
import pytest
from pydantic import BaseModel
from structlog.testing import capture_logs

from dev.local_stack.processes import Command
from dev.local_stack.readiness import NotReadyError, answers_jetstream
from dev.local_stack.servers import HOST, NatsServer
from services.sender.pauses import Pauses
from services.sender.schedule import Limit, Schedules
from shared.bus.client import Bus, connect
from shared.bus.concurrent import ConcurrentReader
from shared.bus.consumer import ConsumerLoop, Done, Outcome, StreamMessage
from shared.bus.key_value import KeyValueStore
from shared.bus.membership import Membership
from shared.bus.processing import Begin
from shared.bus.provision import provision
from shared.bus.publisher import Outgoing, Publisher, publishing
from shared.bus.streams import Streams
from shared.bus.suppression_list import SuppressionList
from shared.bus.topology import (
    ADVISORY_CONSUMER,
    CONSUMERS,
    DELIVERIES_BUCKET,
    IDEMPOTENCY_BUCKET,
    INGEST_CONSUMERS,
    LIMITS_BUCKET,
    Consumer,
    Stream,
    dead_letter_resolved_subject,
    dead_letter_subject,
    delayed_due_subject,
    delayed_wait_subject,
    event_subject,
    inbound_message_subject,
    inbound_receipt_subject,
    outbound_subject,
    sender_delayed,
    sender_shards,
    suppression_subject,
)
from shared.channels import Channel
from shared.ids import (
    PARTITIONS,
    ConversationKey,
    EventId,
    MessageId,
    new_message_id,
    partition_of,
    suppression_key,
)
from shared.message import Priority
from shared.status import Status
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState
from tests import messages
from tests.ports import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.integration

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nats" / "nats-server.conf"

ADMIN, GATEWAY, INGEST, SENDER = "admin", "gateway", "ingest", "sender"
SERVICES = (GATEWAY, INGEST, SENDER)
# The server would read digits as a number if they were not quoted, as they are in docker-compose.yml.
PASSWORD = "20240102"

CONVERSATION = messages.message().conversation_key
MESSAGE = MessageId(UUID("01936c5b-7d00-7000-8000-000000000000"))

READ_BY = {
    INGEST: (*INGEST_CONSUMERS, ADVISORY_CONSUMER),
    SENDER: tuple(c for channel in Channel for c in (*sender_shards(channel), sender_delayed(channel))),
}

SUBJECTS: Mapping[Stream, Mapping[str, set[str]]] = {
    Stream.INBOUND: {
        inbound_message_subject(Channel.SMS, CONVERSATION): {GATEWAY},
        inbound_receipt_subject(Channel.EMAIL, "xillio"): {GATEWAY},
    },
    Stream.OUTBOUND: {
        outbound_subject(Channel.SMS, CONVERSATION): {GATEWAY},
        outbound_subject(Channel.EMAIL, CONVERSATION, Priority.BULK): {GATEWAY},
        f"outbound.sms.0.{CONVERSATION}": {GATEWAY},  # the subjects of version 0.1
    },
    Stream.DELAYED: {
        delayed_wait_subject(MESSAGE): {SENDER},
        delayed_due_subject(Channel.EMAIL, CONVERSATION, MESSAGE): {GATEWAY},
    },
    Stream.EVENTS: {event_subject(Channel.SMS, Status.SENT): {SENDER, GATEWAY}},
    Stream.DEADLETTER: {
        dead_letter_subject("inbound", Channel.SMS): {INGEST, GATEWAY},
        dead_letter_subject("outbound", None): {INGEST, SENDER, GATEWAY},
        dead_letter_resolved_subject(Channel.SMS): {GATEWAY},
    },
    Stream.SUPPRESSIONS: {
        suppression_subject(Channel.SMS, suppression_key(Channel.SMS, None, messages.BOB)): {GATEWAY, SENDER},
    },
    Stream.ADVISORIES: {
        "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.OUTBOUND.sender-sms-bulk-00-of-08": set()
    },
}
"""The services that may publish to each subject."""

BUCKETS = {IDEMPOTENCY_BUCKET: {GATEWAY}, DELIVERIES_BUCKET: {SENDER, GATEWAY}, LIMITS_BUCKET: {SENDER}}

ADMINISTRATION = (
    "$JS.API.INFO",
    "$JS.API.ACCOUNT.PURGE.$G",
    "$JS.API.STREAM.NAMES",
    *(f"$JS.API.STREAM.{verb}.NEW" for verb in ("CREATE", "RESTORE")),
    *(
        f"$JS.API.STREAM.{verb}.{stream}"
        for stream in (*Stream, *(f"KV_{name}" for name in BUCKETS))
        for verb in ("UPDATE", "DELETE", "PURGE", "INFO", "SNAPSHOT", "MSG.GET", "MSG.DELETE")
    ),
    *(f"$JS.API.CONSUMER.CREATE.{stream}.mine" for stream in Stream),
    *(f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.mine" for stream in Stream),
    *(
        f"$JS.API.CONSUMER.{verb}.{consumer.stream}.{consumer.name}"
        for consumer in CONSUMERS
        for verb in ("CREATE", "DELETE", "PAUSE", "RESET")
    ),
    "$SYS.REQ.SERVER.PING",
    "_INBOX_admin.answer",
    "anything",
)


class Value(BaseModel):
    """A value for a bucket."""

    text: str


class ConfiguredNats(NatsServer):
    """A nats-server with the configuration of docker-compose.yml, on a port and in a folder of the test."""

    async def prepare(self) -> None:
        self._prepare_log()
        self.folder.mkdir(parents=True, exist_ok=True)

    def command(self) -> Command:
        options = {
            "config": CONFIGURATION,
            "addr": HOST,
            "port": self.port,
            "http_port": free_port(),
        }
        variables = {f"NATS_{user.upper()}_PASSWORD": PASSWORD for user in (ADMIN, *SERVICES)}
        variables["NATS_STORE_DIR"] = str(self.folder)
        program = Path(sysconfig.get_path("scripts")) / "nats-server"
        argv = (str(program), *(f"--{name}={value}" for name, value in options.items()))
        return replace(
            super().command(),
            argv=argv,
            environment={name: json.dumps(value) for name, value in variables.items()},
        )

    async def answers(self) -> None:
        await answers_jetstream(self.url_for(ADMIN))

    def url_for(self, user: str, password: str = PASSWORD) -> str:
        return f"nats://{user}:{password}@{HOST}:{self.port}"


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ConfiguredNats]:
    """Run a server that the admin has provisioned, which proves that the admin can."""
    folder = tmp_path_factory.mktemp("nats")
    server = ConfiguredNats(folder / "data", free_port(), log=folder / "log")
    await server.start()
    client = await nats.connect(server.url_for(ADMIN))
    await provision(client.jetstream(timeout=30))
    await client.close()
    yield server
    await server.kill()


class Probe:
    """A bare connection of a user, which learns immediately whether a command is allowed.

    The NATS client cannot be used, since its ping may overtake the command that it is to confirm.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def connect(self, user: str) -> None:
        options = {"user": user, "pass": PASSWORD, "verbose": False}
        assert await self._is_allowed(f"CONNECT {json.dumps(options)}")

    async def may_publish(self, subject: str) -> bool:
        # The payload is neither a valid request to any API nor an acknowledgement.
        return await self._is_allowed(f"PUB {subject} 1\r\n-")

    async def may_subscribe(self, subject: str) -> bool:
        return await self._is_allowed(f"SUB {subject} 1")

    async def _is_allowed(self, command: str) -> bool:
        self._writer.write(f"{command}\r\nPING\r\n".encode())
        has_error = False
        while (line := await self._reader.readline()) != b"PONG\r\n":
            assert line, "the server closed the connection"
            has_error |= line.startswith(b"-ERR")
        return not has_error


@asynccontextmanager
async def probing(server: ConfiguredNats, user: str) -> AsyncIterator[Probe]:
    reader, writer = await asyncio.open_connection(HOST, server.port)
    try:
        probe = Probe(reader, writer)
        await probe.connect(user)
        yield probe
    finally:
        writer.close()
        await writer.wait_closed()


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


def outgoing(subject: str) -> Outgoing:
    return Outgoing(subject, EventId(uuid4()), b"{}")


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

    for subject in (f"$KV.{name}.{key}", f"$JS.API.DIRECT.GET.KV_{name}"):
        assert await published_by(server, subject) == BUCKETS[name]


@pytest.mark.parametrize(
    ("stream", "services"),
    [
        (Stream.INBOUND, {GATEWAY, INGEST}),
        (Stream.OUTBOUND, {INGEST}),
        (Stream.SUPPRESSIONS, {GATEWAY, SENDER, INGEST}),
    ],
)
async def test_only_these_services_may_read_the_messages_of_a_stream(
    server: ConfiguredNats, stream: Stream, services: set[str]
) -> None:
    assert await published_by(server, f"$JS.API.DIRECT.GET.{stream}") == services


@pytest.mark.parametrize("service", [GATEWAY, SENDER])
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


async def fill(server: ConfiguredNats) -> None:
    """Publish a message for every consumer."""
    conversations: dict[int, ConversationKey] = {}
    while len(conversations) < PARTITIONS:
        key = messages.message(from_=f"+1201{len(conversations):07}", to=str(uuid4())).conversation_key
        conversations[partition_of(key)] = key
    subjects = [(stream, subject) for stream, subjects in SUBJECTS.items() for subject in subjects]
    for channel in Channel:
        for key in conversations.values():
            subjects += [(Stream.OUTBOUND, outbound_subject(channel, key, each)) for each in Priority]
            subjects.append((Stream.DELAYED, delayed_due_subject(channel, key, MESSAGE)))
    async with connect(server.url_for(ADMIN), name=ADMIN) as bus, publishing(bus) as publisher:
        await bus.until_connected()
        await asyncio.gather(*(publisher.publish(stream, outgoing(subject)) for stream, subject in subjects))


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
                    f"$JS.ACK._.hash.{place}.1.1.1.1700000000000000000.0",
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
    assert await published_by(server, f"$JS.API.CONSUMER.NAMES.{Stream.OUTBOUND}") == {SENDER}
    assert await published_by(server, f"$JS.API.CONSUMER.NAMES.{Stream.INBOUND}") == set()


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
    assert await published_by(server, f"presence.sender.{Channel.SMS}") == {SENDER}


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
async def test_a_service_receives_only_the_replies_to_its_own_requests(
    server: ConfiguredNats, service: str
) -> None:
    others = {f"_INBOX_{user}.>" for user in (ADMIN, *SERVICES) if user != service}
    streams = {
        "outbound.>",
        "inbound.>",
        "delayed.>",
        "events.>",
        "deadletter.>",
        "suppression.>",
        "$KV.>",
        "$JS.>",
        "presence.>",
    }
    async with probing(server, service) as probe:
        assert await probe.may_subscribe(f"_INBOX_{service}.>")
        allowed = [s for s in {">", "_INBOX.>", *others, *streams} if await probe.may_subscribe(s)]
    assert allowed == []


@pytest.mark.parametrize("user", [None, *SERVICES, ADMIN])
async def test_nobody_can_connect_without_the_password(server: ConfiguredNats, user: str | None) -> None:
    with pytest.raises(NotReadyError, match=r"(?i)authorization"):
        await answers_jetstream(server.url if user is None else server.url_for(user, "another"))


async def test_acknowledged_messages_are_on_the_disk() -> None:
    assert "  sync_interval: always" in CONFIGURATION.read_text().splitlines()
