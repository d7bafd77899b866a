"""A server with the configuration of docker-compose.yml, and what each service may do there."""

import asyncio
import json
import os
import sysconfig
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import nats

from dev.local_stack.processes import Command
from dev.local_stack.readiness import answers_jetstream
from dev.local_stack.servers import HOST, NatsServer
from shared.bus.client import connect
from shared.bus.provision import provision
from shared.bus.publisher import Outgoing, publishing
from shared.bus.topology import (
    ADVISORY_CONSUMER,
    CONSUMERS,
    DELIVERIES_BUCKET,
    IDEMPOTENCY_BUCKET,
    INGEST_CONSUMERS,
    LIMITS_BUCKET,
    MEDIA_CONSUMER,
    WEBHOOK_ENDPOINTS_BUCKET,
    Stream,
    dead_letter_resolved_subject,
    dead_letter_subject,
    delayed_due_subject,
    delayed_wait_subject,
    event_subject,
    inbound_message_subject,
    inbound_receipt_subject,
    media_subject,
    notification_subject,
    outbound_subject,
    sender_delayed,
    sender_shards,
    suppression_subject,
    webhook_attempt_subject,
    webhook_due_subject,
    webhook_wait_subject,
)
from shared.channels import Channel
from shared.ids import (
    PARTITIONS,
    ConversationKey,
    EndpointId,
    EventId,
    MessageId,
    partition_of,
    suppression_key,
)
from shared.message import Priority
from shared.notifications import NotificationType
from shared.status import Status
from tests import messages
from tests.ports import free_port

CONFIGURATION = Path(__file__).parents[1] / "deploy" / "nats" / "nats-server.conf"

START = CONFIGURATION.with_name("start.sh")

ADMIN, GATEWAY, INGEST, SENDER, NOTIFIER = "admin", "gateway", "ingest", "sender", "notifier"
SERVICES = (GATEWAY, INGEST, SENDER, NOTIFIER)
RECORD_OPT_OUTS = {GATEWAY, INGEST, SENDER}
# The server would read digits as a number if they were not quoted, as they are in docker-compose.yml.
PASSWORD = "20240102"

CONVERSATION = messages.message().conversation_key
ENDPOINT = EndpointId(UUID("01936c5b-7d00-7000-8000-000000000001"))
EVENT = EventId(UUID("01936c5b-7d00-7000-8000-000000000002"))
MESSAGE = MessageId(UUID("01936c5b-7d00-7000-8000-000000000000"))

READ_BY = {
    INGEST: (*INGEST_CONSUMERS, ADVISORY_CONSUMER),
    SENDER: (
        *(c for channel in Channel for c in (*sender_shards(channel), sender_delayed(channel))),
        MEDIA_CONSUMER,
    ),
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
    Stream.EVENTS: {
        event_subject(Channel.SMS, Status.SENT): {SENDER, GATEWAY},
        media_subject(Channel.SMS): {SENDER, GATEWAY},
    },
    Stream.DEADLETTER: {
        dead_letter_subject("inbound", Channel.SMS): {INGEST, GATEWAY},
        dead_letter_subject("outbound", None): {INGEST, SENDER, GATEWAY},
        dead_letter_resolved_subject(Channel.SMS): {GATEWAY},
    },
    Stream.SUPPRESSIONS: {
        suppression_subject(Channel.SMS, suppression_key(Channel.SMS, None, messages.BOB)): {
            *RECORD_OPT_OUTS
        },
    },
    Stream.NOTIFICATIONS: {
        notification_subject(NotificationType.MESSAGE_SENT): {INGEST},
        notification_subject(NotificationType.WEBHOOK_ENDPOINT_DISABLED): {INGEST, NOTIFIER},
    },
    Stream.WEBHOOK_RETRIES: {
        webhook_wait_subject(ENDPOINT, 1, EVENT): {NOTIFIER, GATEWAY},
        webhook_due_subject(ENDPOINT, 1, EVENT): set(),  # only the server publishes what is due
    },
    Stream.WEBHOOK_ATTEMPTS: {webhook_attempt_subject(ENDPOINT): {NOTIFIER}},
    Stream.ADVISORIES: {
        "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.OUTBOUND.sender-sms-bulk-00-of-08": set()
    },
}
"""The services that may publish to each subject."""

NO_RESPONDERS = b"NATS/1.0 503"

BUCKETS = {
    IDEMPOTENCY_BUCKET: {GATEWAY},
    DELIVERIES_BUCKET: {SENDER, GATEWAY},
    LIMITS_BUCKET: {SENDER},
    WEBHOOK_ENDPOINTS_BUCKET: {GATEWAY, NOTIFIER},
}

ADMINISTRATION = (
    "$JS.API.INFO",
    "$JS.API.ACCOUNT.PURGE.$G",
    "$JS.API.STREAM.NAMES",
    *(f"$JS.API.STREAM.{verb}.NEW" for verb in ("CREATE", "RESTORE")),
    *(
        f"$JS.API.STREAM.{verb}.{stream}"
        for stream in (*Stream, *(f"KV_{name}" for name in BUCKETS))
        for verb in ("UPDATE", "DELETE", "PURGE", "INFO", "SNAPSHOT", "MSG.GET", "MSG.DELETE")
        if (stream, verb) != (Stream.NOTIFICATIONS, "INFO")
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


class ConfiguredNats(NatsServer):
    """A nats-server with the configuration of docker-compose.yml, on a port and in a folder of the test."""

    async def prepare(self) -> None:
        self._prepare_log()
        self.folder.mkdir(parents=True, exist_ok=True)

    def command(self) -> Command:
        options = {"addr": HOST, "port": self.port, "http_port": free_port()}
        variables = {f"NATS_{user.upper()}_PASSWORD": json.dumps(PASSWORD) for user in (ADMIN, *SERVICES)}
        variables["NATS_STORE_DIR"] = str(self.folder)
        variables["PATH"] = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
        argv = ("sh", str(START), *(f"--{name}={value}" for name, value in options.items()))
        return replace(
            super().command(),
            argv=argv,
            environment=variables,
        )

    async def answers(self) -> None:
        await answers_jetstream(self.url_for(ADMIN))

    def url_for(self, user: str, password: str = PASSWORD) -> str:
        return f"nats://{user}:{password}@{HOST}:{self.port}"


def outgoing(subject: str) -> Outgoing:
    return Outgoing(subject, EventId(uuid4()), b"{}")


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


@asynccontextmanager
async def provisioned_server(folder: Path) -> AsyncIterator[ConfiguredNats]:
    """Run a server that the admin has provisioned, which proves that the admin can."""
    server = ConfiguredNats(folder / "data", free_port(), log=folder / "log")
    await server.start()
    try:
        client = await nats.connect(server.url_for(ADMIN))
        await provision(client.jetstream(timeout=30))
        await client.close()
        yield server
    finally:
        await server.kill()


class Probe:
    """A bare connection of a user, which learns immediately whether a message reaches anything.

    The NATS client cannot be used, since its ping may overtake the command that it is to confirm.
    """

    def __init__(self, user: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._inbox = f"_INBOX_{user}.probe"
        self._reader = reader
        self._writer = writer
        self._requests = 0

    async def connect(self, user: str) -> None:
        options = {"user": user, "pass": PASSWORD, "verbose": False, "headers": True, "no_responders": True}
        assert await self._is_allowed(f"CONNECT {json.dumps(options)}")
        assert await self._is_allowed(f"SUB {self._inbox}.* 1")

    async def may_publish(self, subject: str) -> bool:
        """Publish a message, and return whether it was allowed and reached a subscription."""
        self._requests += 1
        # The payload is neither a valid request to any API nor an acknowledgement.
        return await self._is_allowed(f"PUB {subject} {self._inbox}.{self._requests} 1\r\n-")

    async def may_reply_to(self, subject: str) -> bool:
        """Return whether a request may name a subject for its answer."""
        return await self._is_allowed(f"PUB anything {subject} 0\r\n")

    async def _is_allowed(self, command: str) -> bool:
        self._writer.write(f"{command}\r\nPING\r\n".encode())
        is_allowed = True
        while (line := await self._reader.readline()) != b"PONG\r\n":
            assert line, "the server closed the connection"
            is_allowed &= not line.startswith(b"-ERR")
            if line.startswith((b"MSG", b"HMSG")):
                content = await self._reader.readexactly(int(line.split()[-1]) + 2)
                is_of_this = f"{self._inbox}.{self._requests} ".encode() in line
                is_allowed &= not (is_of_this and content.startswith(NO_RESPONDERS))
        return is_allowed


@asynccontextmanager
async def probing(server: ConfiguredNats, user: str) -> AsyncIterator[Probe]:
    reader, writer = await asyncio.open_connection(HOST, server.port)
    try:
        probe = Probe(user, reader, writer)
        await probe.connect(user)
        yield probe
    finally:
        writer.close()
        await writer.wait_closed()
