"""The declaration of every stream, key-value bucket, consumer and subject.

All streams retain messages until a limit is reached, so that acknowledged messages can be replayed. A full
stream rejects new messages (`discard: new`), instead of dropping messages that have not been read.

The sender reads OUTBOUND through shards. A shard is a consumer of some partitions of one channel and priority
that serves one process at a time. That process sends the messages of a conversation in order, and those of
different conversations concurrently. The number of shards is chosen when they are provisioned; the senders
read the shards that exist on the server.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Literal

from nats.js.api import ConsumerConfig, DiscardPolicy, StorageType, StreamConfig

from shared.channels import Channel
from shared.ids import (
    PARTITIONS,
    ConversationKey,
    EndpointId,
    EventId,
    MessageId,
    SuppressionKey,
    partition_of,
)
from shared.message import Priority
from shared.status import Status


class Stream(StrEnum):
    INBOUND = "INBOUND"
    OUTBOUND = "OUTBOUND"
    DELAYED = "DELAYED"
    EVENTS = "EVENTS"
    DEADLETTER = "DEADLETTER"
    SUPPRESSIONS = "SUPPRESSIONS"
    ADVISORIES = "ADVISORIES"
    NOTIFICATIONS = "NOTIFICATIONS"
    WEBHOOK_RETRIES = "WEBHOOK_RETRIES"
    WEBHOOK_ATTEMPTS = "WEBHOOK_ATTEMPTS"


DEFAULT_SHARDS = 8
"""The shards of each channel and priority: at most this many processes share the messages."""

NOTIFICATION_SUBJECTS = "notification.*.*"
"""All notifications: their types have two parts."""

PIN_GROUP = "sender"

_PIN_TIMEOUT = timedelta(seconds=5)
"""The time without a request for messages after which a pinned consumer serves another process."""

DELIVERIES_BUCKET = "DELIVERIES"
"""The ledger: the state of each delivery, by message id."""

IDEMPOTENCY_BUCKET = "IDEMPOTENCY"
"""The requests with an `Idempotency-Key` that the gateway has accepted."""

KEY_RETENTION = timedelta(days=1)
"""How long an `Idempotency-Key` is remembered."""

LEDGER_GRACE = KEY_RETENTION + timedelta(hours=6)
"""How long the ledger remembers a message after the end of its validity.

An older request that is replayed is not sent, because its message has expired. The time is longer than
`KEY_RETENTION`, so a request that is repeated with its key always finds the entry of its message.
"""

LIMITS_BUCKET = "LIMITS"
"""The state of the limits and pauses that all sender processes share."""

WEBHOOK_ENDPOINTS_BUCKET = "WEBHOOK_ENDPOINTS"
"""The configuration of webhook endpoints, by id."""

WEBHOOK_POSITIONS_BUCKET = "WEBHOOK_POSITIONS"
"""The position of each webhook endpoint in the stream of events, by id."""

SEND_WINDOW = timedelta(days=7)
"""How far in advance a message can be scheduled, and how long most streams retain messages."""

LONGEST_RETENTION = 2 * SEND_WINDOW + timedelta(days=1)
"""Longer than the streams can be replayed: a message may be scheduled for the end of the window, and replayed
shortly before OUTBOUND drops it."""

ACK_WAIT = timedelta(seconds=15)
"""The time without a heartbeat after which a message is delivered to another process."""

MAX_DELIVER = 30
"""A protection against messages that crash their consumer. Retries are scheduled and do not count.

A crash also interrupts other messages, which are then delivered again as well. They are processed one by one,
in random order, so about half of them are done before the next crash.
"""


@dataclass
class PriorityConsumerConfig(ConsumerConfig):
    """A consumer configuration with the priority groups of ADR-42, which nats-py does not support yet."""

    priority_groups: list[str] | None = None
    priority_policy: str | None = None
    priority_timeout: int | None = None


@dataclass(frozen=True, slots=True)
class Consumer:
    """A durable pull consumer.

    Attributes:
        max_ack_pending: how many messages may be outstanding at the same time, across all processes.
        is_pinned: whether the consumer serves one process at a time (ADR-42 of NATS).
    """

    stream: Stream
    name: str
    filter_subjects: tuple[str, ...] = ()
    max_ack_pending: int = 5_000
    is_pinned: bool = False

    def config(self, replicas: int) -> ConsumerConfig:
        return PriorityConsumerConfig(
            priority_groups=[PIN_GROUP] if self.is_pinned else None,
            priority_policy="pinned_client" if self.is_pinned else None,
            priority_timeout=int(_PIN_TIMEOUT.total_seconds() * 1e9) if self.is_pinned else None,
            durable_name=self.name,
            filter_subjects=list(self.filter_subjects) or None,
            ack_wait=ACK_WAIT.total_seconds(),
            max_deliver=MAX_DELIVER,
            max_ack_pending=self.max_ack_pending,
            max_waiting=512,
            num_replicas=replicas,
        )


INGEST_CONSUMERS = (
    Consumer(Stream.INBOUND, "ingest-inbound"),
    Consumer(Stream.OUTBOUND, "ingest-outbound"),
    Consumer(Stream.EVENTS, "ingest-events"),
    Consumer(Stream.DEADLETTER, "ingest-deadletter"),
    Consumer(Stream.SUPPRESSIONS, "ingest-suppressions"),
    Consumer(Stream.WEBHOOK_ATTEMPTS, "ingest-webhook_attempts"),
)
MEDIA_CONSUMER = Consumer(
    # Files that are tried again later stay outstanding until then.
    Stream.INBOUND,
    "sender-media",
    ("inbound.message.*.*.*",),
    max_ack_pending=10_000,
)
"""The consumer of inbound messages whose media are fetched."""

ADVISORY_CONSUMER = Consumer(Stream.ADVISORIES, "ingest-advisories")


def sender_shards(channel: Channel, count: int = DEFAULT_SHARDS) -> tuple[Consumer, ...]:
    """Return the consumers of new messages, each of which is read by one sender process at a time.

    Args:
        channel: the channel of the messages.
        count: how many shards there are for each priority, from 1 to the number of partitions.
    """
    return tuple(
        Consumer(
            Stream.OUTBOUND,
            # The name contains the total, so shards of different totals cannot be confused.
            f"sender-{channel}-{priority}-{shard:02}-of-{count:02}",
            tuple(_subjects_of(channel, priority, range(shard, PARTITIONS, count))),
            max_ack_pending=10_000,
            is_pinned=True,
        )
        for priority in Priority
        for shard in range(count)
    )


def _subjects_of(channel: Channel, priority: Priority, partitions: Iterable[int]) -> Iterable[str]:
    for partition in partitions:
        yield f"outbound.{channel}.{priority}.{partition}.*"
        if priority is Priority.TRANSACTIONAL:
            # Messages from version 0.1, and replays of their dead letters.
            yield f"outbound.{channel}.{partition}.*"


_SHARD = re.compile(rf"sender-(\w+)-({'|'.join(Priority)})-\d\d-of-\d\d")


def shard_named(name: str, channel: Channel) -> Consumer | None:
    """Return the shard of a channel with this name, without its subjects, or None if there is no match."""
    found = _SHARD.fullmatch(name)
    if found is None or found[1] != channel:
        return None
    return Consumer(Stream.OUTBOUND, name, is_pinned=True)


def missing_shards(names: Collection[str], channel: Channel) -> list[Consumer]:
    """Return the shards of a channel that are not among these consumers, although others of their total are.

    While the total is being changed, either the former or the new shards are complete.
    """
    totals = {int(name[-2:]) for name in names if shard_named(name, channel)}
    missing = (
        [shard for shard in sender_shards(channel, total) if shard.name not in names] for total in totals
    )
    return min(missing, key=len, default=[])


def sender_delayed(channel: Channel) -> Consumer:
    """Return the consumer of deliveries that are due, which need not be in order."""
    name = f"sender-delayed-{channel}"
    return Consumer(Stream.DELAYED, name, (f"delayed.due.{channel}.>",), max_ack_pending=10_000)


def consumers(shards: int = DEFAULT_SHARDS) -> tuple[Consumer, ...]:
    """Return all consumers, with this number of shards for each channel and priority."""
    return (
        *INGEST_CONSUMERS,
        ADVISORY_CONSUMER,
        MEDIA_CONSUMER,
        *(shard for channel in Channel for shard in sender_shards(channel, shards)),
        *(sender_delayed(channel) for channel in Channel),
    )


CONSUMERS = consumers()
"""All consumers, with the default number of shards."""


def streams(*, replicas: int, max_bytes: int) -> tuple[StreamConfig, ...]:
    """Return the streams, including those of the key-value buckets.

    Args:
        replicas: the number of copies of each stream in a cluster, from 1 to 5.
        max_bytes: the size at which each stream rejects messages; -1 for no limit.
    """

    def log(name: Stream, *subjects: str, retention: timedelta | None = SEND_WINDOW) -> StreamConfig:
        return StreamConfig(
            name=name,
            subjects=list(subjects),
            discard=DiscardPolicy.NEW,
            storage=StorageType.FILE,
            max_age=retention.total_seconds() if retention else 0,
            max_bytes=max_bytes,
            duplicate_window=600,
            num_replicas=replicas,
            allow_direct=True,
            allow_atomic=True,
        )

    def schedules(name: Stream, *subjects: str) -> StreamConfig:
        # The server supports schedules only in streams that discard old messages. This stream therefore has
        # no size limit, and retains messages for longer than they can be scheduled in advance.
        return StreamConfig(
            name=name,
            subjects=list(subjects),
            discard=DiscardPolicy.OLD,
            storage=StorageType.FILE,
            max_age=LONGEST_RETENTION.total_seconds(),
            # Only the newest step of each message is needed: according to the ledger, all earlier ones are
            # done.
            max_msgs_per_subject=1,
            duplicate_window=600,
            num_replicas=replicas,
            allow_direct=True,
            allow_msg_schedules=True,
        )

    def bucket(name: str, retention: timedelta | None = LONGEST_RETENTION) -> StreamConfig:
        return StreamConfig(
            name=f"KV_{name}",
            subjects=[f"$KV.{name}.>"],
            discard=DiscardPolicy.NEW,
            storage=StorageType.FILE,
            max_age=retention.total_seconds() if retention else 0,
            max_msgs_per_subject=1,
            max_bytes=max_bytes,
            duplicate_window=120,
            num_replicas=replicas,
            allow_direct=True,
            allow_atomic=True,
            allow_msg_ttl=True,
            deny_delete=True,
        )

    return (
        log(Stream.INBOUND, "inbound.message.*.*.*", "inbound.receipt.*.*"),
        log(Stream.OUTBOUND, "outbound.>"),
        schedules(Stream.DELAYED, "delayed.wait.*", "delayed.due.*.*.*.*"),
        log(Stream.EVENTS, "events.*.*"),
        log(Stream.DEADLETTER, "deadletter.*.*", retention=timedelta(days=90)),
        # The last message of a subject applies, no matter how old it is.
        log(Stream.SUPPRESSIONS, "suppression.*.*", retention=None),
        log(
            Stream.ADVISORIES,
            "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>",
            "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>",
        ),
        log(Stream.NOTIFICATIONS, NOTIFICATION_SUBJECTS),
        bucket(DELIVERIES_BUCKET),
        bucket(IDEMPOTENCY_BUCKET),
        bucket(LIMITS_BUCKET),
        schedules(Stream.WEBHOOK_RETRIES, "webhook.wait.*.*.*", "webhook.due.*.*.*"),
        log(Stream.WEBHOOK_ATTEMPTS, "webhook.attempt.*"),
        bucket(WEBHOOK_ENDPOINTS_BUCKET, retention=None),
        # A position is useless once the streams have dropped what precedes it.
        bucket(WEBHOOK_POSITIONS_BUCKET),
    )


def inbound_message_subject(channel: Channel, conversation: ConversationKey) -> str:
    return f"inbound.message.{channel}.{partition_of(conversation)}.{conversation}"


def inbound_receipt_subject(channel: Channel, provider: str) -> str:
    return f"inbound.receipt.{channel}.{provider}"


def outbound_subject(
    channel: Channel, conversation: ConversationKey, priority: Priority = Priority.TRANSACTIONAL
) -> str:
    """Return the subject of a message to be sent.

    The server keeps every subject in memory. The subject therefore ends with only the first two digits of the
    conversation's key, which narrow down a search for the messages of a conversation.
    """
    return f"outbound.{channel}.{priority}.{partition_of(conversation)}.{str(conversation)[:2]}"


def delayed_wait_subject(message_id: MessageId) -> str:
    """Return the subject of a message's schedule; a newer schedule replaces it."""
    return f"delayed.wait.{message_id}"


def delayed_due_subject(channel: Channel, conversation: ConversationKey, message_id: MessageId) -> str:
    return f"delayed.due.{channel}.{partition_of(conversation)}.{conversation}.{message_id}"


def event_subject(channel: Channel, status: Status) -> str:
    return f"events.{channel}.{status}"


def media_subject(channel: Channel) -> str:
    """Return the subject of reports on media, in the stream EVENTS."""
    return f"events.{channel}.media"


def dead_letter_subject(direction: str, channel: Channel | None) -> str:
    return f"deadletter.{direction}.{channel or 'unknown'}"


def dead_letter_resolved_subject(channel: Channel | None) -> str:
    """Return the subject of a resolution, in the same stream as dead letters and retained as long."""
    return f"deadletter.resolved.{channel or 'unknown'}"


def suppression_subject(channel: Channel, key: SuppressionKey) -> str:
    return f"suppression.{channel}.{key}"


def notification_subject(type_: str) -> str:
    return f"notification.{type_}"


def webhook_wait_subject(endpoint: EndpointId, after: int, event: EventId) -> str:
    """Return the subject of the schedule of an endpoint's next attempt; a newer schedule replaces it.

    Args:
        endpoint: the endpoint.
        after: `WebhookEndpoint.after`, by which schedules from before a pause are recognised.
        event: the event.
    """
    return f"webhook.wait.{endpoint}.{after}.{event}"


def webhook_due_subject(endpoint: EndpointId, after: int, event: EventId | Literal["*"]) -> str:
    """Return the subject of an attempt that is due, or the pattern of all attempts of an endpoint."""
    return f"webhook.due.{endpoint}.{after}.{event}"


WEBHOOKS_DUE = "webhook.due.>"


def webhook_attempt_subject(endpoint: EndpointId) -> str:
    return f"webhook.attempt.{endpoint}"


def limit_key(name: str) -> str:
    """Return the key of a limit's schedule."""
    return f"limit.{_token(name)}"


def pause_key(provider: str, sender: str | None) -> str:
    """Return the key of the pause of a provider, or of one sending address at this provider."""
    return f"pause.{provider}.{_token(sender)}" if sender else f"pause.{provider}"


def report_key(process: str) -> str:
    """Return the key of the report of a sender process on its providers."""
    return f"report.{process}"


PAUSES_SUBJECT = f"$KV.{LIMITS_BUCKET}.pause.>"
REPORTS_SUBJECT = f"$KV.{LIMITS_BUCKET}.report.>"


def _token(text: str) -> str:
    """Encode a text with the characters that a key may contain, such as `=2B12016661234` for a number."""
    return re.sub(rb"[^A-Za-z0-9_-]", lambda found: b"=%02X" % ord(found[0]), text.encode()).decode()
