"""Identifiers that any process computes alike, without asking another.

UUIDv5 (RFC 9562) where the same input must give the same id, UUIDv7 where each is new.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import NewType
from uuid import UUID, uuid5

import uuid_utils.compat

MessageId = NewType("MessageId", UUID)
ConversationKey = NewType("ConversationKey", UUID)
EventId = NewType("EventId", UUID)
DeadLetterId = NewType("DeadLetterId", UUID)
SuppressionKey = NewType("SuppressionKey", UUID)

PARTITIONS = 64

_CONVERSATIONS = UUID("8d0c3c2e-6f0b-5b43-9f3c-0f1f5c7a9e10")
_IDEMPOTENT_REQUESTS = UUID("5be2a1d4-0b0e-5c5f-8a53-7a3c9d0c1b21")
_PROVIDER_MESSAGES = UUID("c9a6f0b3-2d47-5a0e-b8c4-4e6d1f7a8c32")
_EVENTS = UUID("1f7e9b58-93a1-5d8c-a6de-6b8f2c0d4e43")
_DEAD_LETTERS = UUID("a3d1c6e7-48b2-5f69-8e71-2c9b5d3f6a54")
_CONSENTS = UUID("d4b8f2a6-7c15-5e3b-9a84-5f0e6c2b7d65")

_FNV_OFFSET = 0x811C9DC5
_FNV_PRIME = 0x01000193


def new_message_id() -> MessageId:
    return MessageId(uuid_utils.compat.uuid7())


def idempotent_message_id(client: str, key: str) -> MessageId:
    """Give every request of `client` (an API key's name) with this idempotency key one message id."""
    return MessageId(uuid5(_IDEMPOTENT_REQUESTS, f"{client}\n{key}"))


def inbound_message_id(provider: str, provider_message_id: str) -> MessageId:
    """Give a provider's message one id, however often its webhook is delivered."""
    return MessageId(uuid5(_PROVIDER_MESSAGES, f"{provider}\n{provider_message_id}"))


def conversation_key(participants: Iterable[str]) -> ConversationKey:
    """Identify the conversation of these address keys, whoever wrote first and however often one occurs."""
    return ConversationKey(uuid5(_CONVERSATIONS, "\n".join(sorted(set(participants)))))


def event_id(subject: UUID, *what: object) -> EventId:
    """Identify what happened to `subject`, so that telling it again is recognised as a repetition."""
    return EventId(uuid5(_EVENTS, "\n".join(map(str, (subject, *what)))))


def dead_letter_id(*origin: object) -> DeadLetterId:
    """Identify a dead letter by where it came from."""
    return DeadLetterId(uuid5(_DEAD_LETTERS, "\n".join(map(str, origin))))


def suppression_key(ours: str | None, theirs: str) -> SuppressionKey:
    """Identify what somebody (an address key) wants of a sender of ours, or of all of them if it is None."""
    return SuppressionKey(uuid5(_CONSENTS, f"{ours or ''}\n{theirs}"))


@lru_cache(maxsize=16_384)
def partition_of(key: ConversationKey) -> int:
    """Spread conversations over partitions as nats-server's `{{partition(64,n)}}` does: FNV-1a, 32 bits."""
    value = _FNV_OFFSET
    for byte in str(key).encode():
        value = (value ^ byte) * _FNV_PRIME & 0xFFFFFFFF
    return value % PARTITIONS
