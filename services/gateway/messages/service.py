"""Accepts messages for sending. Once `send` has returned, the message is stored in a stream."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import NamedTuple

import structlog

from services.gateway.http.deadline import deadline
from services.gateway.http.errors import (
    ConflictError,
    InvalidRequestError,
    ProblemError,
    RecipientOptedOutError,
)
from services.gateway.messages.idempotency import IdempotencyStore, StoredRequest, fingerprint
from services.gateway.messages.schemas import SendRequest
from shared.bus.key_value import KeyValueStore, UnreadableValueError
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.suppression_list import SuppressionList
from shared.bus.topology import SEND_WINDOW, Stream, inbound_message_subject, outbound_subject
from shared.channels import Direction, MessageType
from shared.events import Event, message_accepted
from shared.ids import MessageId, RequestId, new_message_id, request_id
from shared.message import DeliveryRequest, IncomingMessage, Message, Priority
from shared.observability import tracing
from shared.observability.metrics import ACCEPTED, SUPPRESSED
from shared.suppressions import SuppressionChange
from shared.text import fit_references, message_id_of
from shared.validation import MAX_SUBJECT, Fault

_log = structlog.get_logger()

_CLOCK_SKEW = timedelta(minutes=1)
"""How far a client's clock may be behind ours before its current time is refused as past."""


class Accepted(NamedTuple):
    """An accepted message.

    Attributes:
        event: its acceptance.
        is_replayed: whether an earlier request with the same idempotency key was accepted.
    """

    event: Event[DeliveryRequest]
    is_replayed: bool


@dataclass(frozen=True, slots=True)
class MessageService:
    """Accepts messages.

    Attributes:
        received: the newest inbound message of each conversation.
        validity: how long after its acceptance a message may still be sent.
        can_send: returns whether any provider can send such a message at all.
        clock: returns the time, in UTC.
    """

    publisher: Publisher
    idempotency: IdempotencyStore[StoredRequest]
    suppressions: SuppressionList
    received: KeyValueStore[Event[IncomingMessage]]
    validity: timedelta
    can_send: Callable[[Message], bool]
    clock: Callable[[], datetime]

    async def send(
        self,
        body: SendRequest,
        *,
        caller: str,
        idempotency_key: str | None,
        trace: Mapping[str, str],
        digest: str | None = None,
    ) -> Accepted:
        """Accept a message for sending.

        Args:
            body: the request.
            caller: name of the caller's API key.
            idempotency_key: identifies the request among those of the caller.
            trace: headers of the trace that the request belongs to.
            digest: the fingerprint of the request, if it is not that of the body.

        Raises:
            ConflictError: a recipient has opted out.
            InvalidRequestError: the idempotency key was used for a different request, `send_at` is out of
                range, or no provider can send to a group.
            BusUnavailableError: JetStream does not acknowledge. The event may be stored nevertheless;
                publishing it again does no harm.
        """
        now = self.clock()
        message = outbound_message(body, id_=new_message_id(), now=now)
        _label(message)
        async with deadline():
            [opt_out] = await self.refusals_by_opt_out([message])
            refusal = self.refusal_by_providers(message) or refusal_by_time(body.send_at, now) or opt_out
            reply = await self.as_reply_to_newest(message)
            request = DeliveryRequest(
                message=reply, caller=caller, expires_at=message.expiry(self.validity, now)
            )
            event = message_accepted(request, time=now)
            if idempotency_key:
                id_ = request_id(caller, idempotency_key)
                event = await self._first_with_key(id_, event, digest or fingerprint(body), refusal)
                _label(event.data.message)
            elif refusal:
                raise refusal
            outgoing = Outgoing(_subject_of(message), event.id, event.encode(), trace)
            await self.publisher.publish(Stream.OUTBOUND, outgoing)
        ACCEPTED.labels(message.channel, "send").inc()
        _log.info("message_accepted", type=message.type, caller=caller)
        return Accepted(event, is_replayed=event.data.message.id != message.id)

    async def as_reply_to_newest(self, message: Message) -> Message:
        """Make a message a reply to the newest inbound one in its conversation, if the stream has one."""
        if not message.channel.rules.is_threaded:
            return message
        subject = inbound_message_subject(message.channel, message.conversation_key)
        try:
            newest = await self.received.get(subject)
        except UnreadableValueError as exc:
            _log.warning("newest_message_unreadable", error=str(exc))
            return message
        if newest is None:
            return message
        return as_reply(newest.value.data.message, message)

    def refusal_by_providers(self, message: Message) -> InvalidRequestError | None:
        """Return the refusal of a message to a group that no provider can send to."""
        if self.can_send(message):
            return None
        return InvalidRequestError(Fault("to", "is a group, which no provider of this sender can send to"))

    async def refusals_by_opt_out(self, messages: Sequence[Message]) -> list[ConflictError | None]:
        """Return the refusal of each message whose recipient, or that of a copy, has opted out."""
        suppressions = await self.suppressions.suppressions_of(messages)
        return [
            _refusal_by_opt_out(message, suppression) if suppression else None
            for message, suppression in zip(messages, suppressions, strict=True)
        ]

    async def publish_all(self, events: Sequence[Event[DeliveryRequest]], trace: Mapping[str, str]) -> None:
        """Publish accepted messages together."""
        messages = [event.data.message for event in events]
        outgoing = [
            Outgoing(_subject_of(message), event.id, event.encode(), trace)
            for event, message in zip(events, messages, strict=True)
        ]
        await self.publisher.publish_atomically(Stream.OUTBOUND, outgoing)
        for message in messages:
            ACCEPTED.labels(message.channel, "send").inc()
        _log.info("messages_accepted", message_ids=[str(message.id) for message in messages])

    async def _first_with_key(
        self, id_: RequestId, event: Event[DeliveryRequest], digest: str, refusal: ProblemError | None
    ) -> Event[DeliveryRequest]:
        if refusal is None:
            request = StoredRequest(fingerprint=digest, event=event)
            first = (await self.idempotency.claim(id_, request)).event
        elif known := await self.idempotency.find(id_, digest):
            first = known.event  # accepted earlier, when there was no reason to refuse it
        else:
            raise refusal
        # The first attempt to publish it may have failed long ago, so its validity starts now.
        data = first.data.model_copy(update={"expires_at": event.data.expires_at})
        return first.model_copy(update={"data": data})


def _refusal_by_opt_out(message: Message, suppression: SuppressionChange) -> ConflictError:
    SUPPRESSED.labels(message.channel).inc()
    names = {key: key for key in message.recipients}
    names |= {copy.key: copy.spelling for copy in message.copies}
    return RecipientOptedOutError(suppression, names.get(suppression.theirs))


def _subject_of(message: Message) -> str:
    return outbound_subject(message.channel, message.conversation_key, message.priority)


def _label(message: Message) -> None:
    """Add the message to the log entries and the trace of the request."""
    structlog.contextvars.bind_contextvars(message_id=str(message.id))
    tracing.annotate(
        message_id=message.id, conversation_key=message.conversation_key, channel=message.channel
    )


def as_reply(parent: Message, message: Message) -> Message:
    """Return a message as a reply that continues the thread of its parent, by default under its subject."""
    parent_id = message_id_of(parent.email_id)
    references = fit_references([*parent.references, *([parent_id] if parent_id else [])])
    subject = message.subject if (message.subject or "").strip() else _answered(parent.subject)
    return message.model_copy(update={"in_reply_to": parent_id, "references": references, "subject": subject})


def _answered(subject: str | None) -> str | None:
    """Return the subject of a reply (RFC 5322, 3.6.5)."""
    if not subject:
        return None
    return subject if subject[:3].casefold() == "re:" else f"Re: {subject}"[:MAX_SUBJECT]


def outbound_message(body: SendRequest, *, id_: MessageId, now: datetime) -> Message:
    """Create the message of a request; fields of the same name are copied."""
    names = _common_fields(type(body))
    fields = {name: value for name in names if (value := getattr(body, name)) is not None}
    return Message.between(
        body.from_,
        body.to,
        id=id_,
        direction=Direction.OUTBOUND,
        created_at=now,
        **{
            **fields,
            "type": MessageType.MMS if _is_mms(body) else MessageType(body.type),
            "body": body.body or "",
            "attachments": body.attachments or [],
            "timestamp": body.timestamp or now,
            "priority": body.priority or Priority.TRANSACTIONAL,
        },
    )


def _is_mms(body: SendRequest) -> bool:
    """Return whether providers send a request as an MMS, as they do with any SMS that has attachments."""
    return body.type == MessageType.SMS and bool(body.attachments)


@cache
def _common_fields(model: type[SendRequest]) -> frozenset[str]:
    return frozenset(model.model_fields.keys() & Message.model_fields.keys()) - {"from_", "to"}


def refusal_by_time(send_at: datetime | None, now: datetime) -> InvalidRequestError | None:
    if send_at is None:
        return None
    if send_at < now - _CLOCK_SKEW:
        return InvalidRequestError(Fault("send_at", "is in the past"))
    if send_at - now > SEND_WINDOW:
        return InvalidRequestError(Fault("send_at", f"is more than {SEND_WINDOW.days} days ahead"))
    return None
