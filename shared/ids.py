"""Ids that every process computes in the same way, without coordination.

They are UUIDv5 (RFC 9562) where the same input must give the same id, and UUIDv7 where each one is new.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import NewType
from uuid import UUID

from uuid_utils.compat import uuid5, uuid7

MessageId = NewType("MessageId", UUID)
RequestId = NewType("RequestId", UUID)
ConversationKey = NewType("ConversationKey", UUID)
EventId = NewType("EventId", UUID)
DeadLetterId = NewType("DeadLetterId", UUID)
SuppressionKey = NewType("SuppressionKey", UUID)
MediaId = NewType("MediaId", UUID)
EndpointId = NewType("EndpointId", UUID)

PARTITIONS = 64

_CONVERSATIONS = UUID("8d0c3c2e-6f0b-5b43-9f3c-0f1f5c7a9e10")
_IDEMPOTENT_REQUESTS = UUID("5be2a1d4-0b0e-5c5f-8a53-7a3c9d0c1b21")
_PROVIDER_MESSAGES = UUID("c9a6f0b3-2d47-5a0e-b8c4-4e6d1f7a8c32")
_EVENTS = UUID("1f7e9b58-93a1-5d8c-a6de-6b8f2c0d4e43")
_DEAD_LETTERS = UUID("a3d1c6e7-48b2-5f69-8e71-2c9b5d3f6a54")
_NOTIFICATIONS = UUID("6e0a7c94-1d3b-5f82-9b47-8c5e2f1a0d76")
_SUPPRESSIONS = UUID("d4b8f2a6-7c15-5e3b-9a84-5f0e6c2b7d65")
_MEDIA = UUID("7e5c1d90-3b2f-5a47-8f16-9c0d4b8e7a76")

_FNV_OFFSET = 0x811C9DC5
_FNV_PRIME = 0x01000193


def new_message_id() -> MessageId:
    return MessageId(uuid7())


def new_endpoint_id() -> EndpointId:
    return EndpointId(uuid7())


def new_event_id() -> EventId:
    """Return the id of an event that no other process can also publish."""
    return EventId(uuid7())


def request_id(client: str, key: str) -> RequestId:
    """Return the id of a client's request with an idempotency key; `client` is the name of its API key."""
    return RequestId(uuid5(_IDEMPOTENT_REQUESTS, f"{client}\n{key}"))


def inbound_message_id(provider: str, provider_message_id: str, *content: str) -> MessageId:
    """Return the id of a provider's message, which is the same each time its webhook is delivered.

    Args:
        provider: the provider's name.
        provider_message_id: its id of the message.
        content: the addresses and the text, if the provider may use the same id for several messages.
    """
    return MessageId(uuid5(_PROVIDER_MESSAGES, "\n".join((provider, provider_message_id, *content))))


def media_id(message_id: MessageId, *file: object) -> MediaId:
    """Return the id of a file of a message, from its URL, or from its digest and its place in the message."""
    return MediaId(uuid5(_MEDIA, "\n".join(map(str, (message_id, *file)))))


def conversation_key(channel: str, participants: Iterable[str]) -> ConversationKey:
    """Return the key of the conversation between these address keys in a channel, whoever wrote first."""
    return ConversationKey(uuid5(_CONVERSATIONS, "\n".join((channel, *sorted(set(participants))))))


def event_id(subject: UUID, *event: object) -> EventId:
    """Return the id of an event of `subject`, by which a repetition of the event is recognised."""
    return EventId(uuid5(_EVENTS, "\n".join(map(str, (subject, *event)))))


def notification_id(type_: str, *cause: object) -> EventId:
    """Return the id of a notification, which is always the same for one cause."""
    return EventId(uuid5(_NOTIFICATIONS, "\n".join(map(str, (type_, *cause)))))


def dead_letter_id(*origin: object) -> DeadLetterId:
    """Return the id of a dead letter, which is computed from its origin."""
    return DeadLetterId(uuid5(_DEAD_LETTERS, "\n".join(map(str, origin))))


def suppression_key(channel: str, ours: str | None, theirs: str) -> SuppressionKey:
    """Return the key of an address key's opt-outs from one of our addresses, or from all of them if None."""
    return SuppressionKey(uuid5(_SUPPRESSIONS, f"{channel}\n{ours or ''}\n{theirs}"))


@lru_cache(maxsize=16_384)
def partition_of(key: ConversationKey) -> int:
    """Return the partition of a conversation, like nats-server's `{{partition(64,n)}}` (FNV-1a, 32 bits)."""
    value = _FNV_OFFSET
    for byte in str(key).encode():
        value = (value ^ byte) * _FNV_PRIME & 0xFFFFFFFF
    return value % PARTITIONS
