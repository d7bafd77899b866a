"""Every stream, bucket, consumer and subject, declared once.

Limits retention throughout: what was acknowledged stays and can be replayed. A full stream refuses
(`discard: new`) rather than drop what nobody has read yet.

The sender reads OUTBOUND through lanes: consumers of a few partitions each that have one message out at a
time. That keeps the messages of a conversation in order across any number of sender processes, and the
number of lanes is how many messages of a channel are being sent at once.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from nats.js.api import ConsumerConfig, DiscardPolicy, StorageType, StreamConfig

from shared.channels import Channel
from shared.ids import PARTITIONS, ConversationKey, MessageId, SuppressionKey, partition_of
from shared.lifecycle import Status


class Stream(StrEnum):
    INBOUND = "INBOUND"
    OUTBOUND = "OUTBOUND"
    DELAYED = "DELAYED"
    EVENTS = "EVENTS"
    DEADLETTER = "DEADLETTER"
    SUPPRESSIONS = "SUPPRESSIONS"
    ADVISORIES = "ADVISORIES"


LANES = 32
"""Per channel; a divisor of the number of partitions."""

DELIVERIES_BUCKET = "DELIVERIES"
"""The ledger: what was done with each message, by message id."""

IDEMPOTENCY_BUCKET = "IDEMPOTENCY"
"""The gateway's memory of requests with an `Idempotency-Key`, by message id."""

SEND_WINDOW = timedelta(days=7)
"""How far ahead a message can be scheduled, and how long the log is kept."""

_LEDGER_MEMORY = 2 * SEND_WINDOW + timedelta(days=1)
"""Longer than any replay can reach: a message that is scheduled for the last day of the window and replayed
from the last day of the log is still known."""

ACK_WAIT = timedelta(seconds=30)
"""After this time without a sign of life a message is given to another process."""

MAX_DELIVER = 20
"""A guard against messages that kill their consumer, not a retry policy: retries are scheduled."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """A durable pull consumer.

    Attributes:
        max_ack_pending: how many messages may be out at once, over all processes.
    """

    stream: Stream
    name: str
    filter_subjects: tuple[str, ...] = ()
    max_ack_pending: int = 5_000

    def config(self, replicas: int) -> ConsumerConfig:
        return ConsumerConfig(
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
)
ADVISORY_CONSUMER = Consumer(Stream.ADVISORIES, "ingest-advisories")


def sender_lanes(channel: Channel) -> tuple[Consumer, ...]:
    return tuple(
        Consumer(
            Stream.OUTBOUND,
            f"sender-{channel}-{lane:02}",
            tuple(f"outbound.{channel}.{partition}.*" for partition in range(lane, PARTITIONS, LANES)),
            max_ack_pending=1,
        )
        for lane in range(LANES)
    )


def sender_delayed(channel: Channel) -> Consumer:
    """Read what is due again; its order was given up, so many may be out at once."""
    return Consumer(
        Stream.DELAYED, f"sender-delayed-{channel}", (f"delayed.due.{channel}.>",), max_ack_pending=256
    )


CONSUMERS = (
    *INGEST_CONSUMERS,
    ADVISORY_CONSUMER,
    *(lane for channel in Channel for lane in sender_lanes(channel)),
    *(sender_delayed(channel) for channel in Channel),
)


def streams(*, replicas: int, max_bytes: int) -> tuple[StreamConfig, ...]:
    """List the streams and, as the streams that they are, the buckets.

    Args:
        replicas: copies of each in a cluster, 1 to 5.
        max_bytes: limit of each, after which it refuses; -1 for none.
    """

    def log(name: Stream, *subjects: str, keep: timedelta | None = SEND_WINDOW) -> StreamConfig:
        return StreamConfig(
            name=name,
            subjects=list(subjects),
            discard=DiscardPolicy.NEW,
            storage=StorageType.FILE,
            max_age=keep.total_seconds() if keep else 0,
            max_bytes=max_bytes,
            duplicate_window=600,
            num_replicas=replicas,
            allow_direct=True,
            allow_atomic=True,
        )

    def schedules(name: Stream, *subjects: str) -> StreamConfig:
        # The server has schedules only in streams that discard the old, so this one has no limit that could
        # make it do so; and it is kept for longer than anything can be scheduled, since a schedule that
        # outlives its stream's age vanishes.
        return StreamConfig(
            name=name,
            subjects=list(subjects),
            discard=DiscardPolicy.OLD,
            storage=StorageType.FILE,
            max_age=_LEDGER_MEMORY.total_seconds(),
            # Of each message the newest step is enough: the ledger has gone beyond all others.
            max_msgs_per_subject=1,
            duplicate_window=600,
            num_replicas=replicas,
            allow_direct=True,
            allow_msg_schedules=True,
        )

    def bucket(name: str) -> StreamConfig:
        return StreamConfig(
            name=f"KV_{name}",
            subjects=[f"$KV.{name}.>"],
            discard=DiscardPolicy.NEW,
            storage=StorageType.FILE,
            max_age=_LEDGER_MEMORY.total_seconds(),
            max_msgs_per_subject=1,
            max_bytes=max_bytes,
            duplicate_window=120,
            num_replicas=replicas,
            allow_direct=True,
            allow_atomic=True,
            deny_delete=True,
        )

    return (
        log(Stream.INBOUND, "inbound.message.*.*.*", "inbound.receipt.*.*"),
        log(Stream.OUTBOUND, "outbound.*.*.*"),
        schedules(Stream.DELAYED, "delayed.wait.*", "delayed.due.*.*.*.*"),
        log(Stream.EVENTS, "events.*.*"),
        log(Stream.DEADLETTER, "deadletter.*.*", keep=timedelta(days=90)),
        # The last message of a subject is what holds, however old it is.
        log(Stream.SUPPRESSIONS, "suppression.*.*", keep=None),
        log(
            Stream.ADVISORIES,
            "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>",
            "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>",
        ),
        bucket(DELIVERIES_BUCKET),
        bucket(IDEMPOTENCY_BUCKET),
    )


def inbound_message_subject(channel: Channel, conversation: ConversationKey) -> str:
    return f"inbound.message.{channel}.{partition_of(conversation)}.{conversation}"


def inbound_receipt_subject(channel: Channel, provider: str) -> str:
    return f"inbound.receipt.{channel}.{provider}"


def outbound_subject(channel: Channel, conversation: ConversationKey) -> str:
    return f"outbound.{channel}.{partition_of(conversation)}.{conversation}"


def delayed_wait_subject(message_id: MessageId) -> str:
    """Name the schedule of a message: one at a time, a newer one replaces it."""
    return f"delayed.wait.{message_id}"


def delayed_due_subject(channel: Channel, conversation: ConversationKey, message_id: MessageId) -> str:
    return f"delayed.due.{channel}.{partition_of(conversation)}.{conversation}.{message_id}"


def event_subject(channel: Channel, status: Status) -> str:
    return f"events.{channel}.{status}"


def dead_letter_subject(direction: str, channel: Channel | None) -> str:
    return f"deadletter.{direction}.{channel or 'unknown'}"


def dead_letter_resolved_subject(channel: Channel | None) -> str:
    """Name where it is told what became of a dead letter: its own stream, so that both are kept as long."""
    return f"deadletter.resolved.{channel or 'unknown'}"


def suppression_subject(channel: Channel, key: SuppressionKey) -> str:
    return f"suppression.{channel}.{key}"
