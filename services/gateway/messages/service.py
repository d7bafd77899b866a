"""Takes in what clients and providers bring. What it returns from is stored in a stream."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from services.gateway.messages import factory
from services.gateway.http.errors import (
    ConflictError,
    Fault,
    InvalidRequestError,
    ProblemError,
    RecipientOptedOutError,
)
from services.gateway.messages.idempotency import Memory, fingerprint
from services.gateway.http.deadline import patience
from services.gateway.schemas import Receipt, Send, Webhook
from shared.observability import tracing
from shared.bus.key_value import Values
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import (
    SEND_WINDOW,
    Stream,
    inbound_message_subject,
    inbound_receipt_subject,
    outbound_subject,
)
from shared.channels import Channel
from shared.suppressions import SuppressionList
from shared.events import (
    DeliveryRequest,
    InboundMessage,
    Message,
    MessageAccepted,
    MessageReceived,
    ReceiptReceived,
    decode,
)
from shared.ids import idempotent_message_id, new_message_id
from shared.keywords import Keyword
from shared.observability.metrics import ACCEPTED, RECEIPTS, SUPPRESSED

_log = structlog.get_logger()

_CLOCK_SKEW = timedelta(minutes=1)
"""By how much a client's clock may be behind, so that its "now" is no time in the past."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request, and what they say about it beside its body.

    Attributes:
        name: of the API key.
        idempotency_key: names the request, so that it can be repeated.
        trace: headers of the trace that the request is part of (W3C); where we trace, our own go first.
    """

    name: str
    idempotency_key: str | None = None
    trace: Mapping[str, str] = field(default_factory=dict)


def trace_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Pick the trace out of a request's headers; nothing else of them goes any further."""
    trace = headers.get("traceparent", "")
    return {"traceparent": trace} if _TRACEPARENT.fullmatch(trace) else {}


@dataclass(frozen=True, slots=True)
class Intake:
    """Makes events of what comes in, and publishes them.

    Every method raises BusUnavailableError when JetStream does not acknowledge. The event may then be
    stored all the same; to bring it again does no harm.

    Attributes:
        inbound: the stream of what came in.
        validity: how long after its acceptance a message may still be sent.
        clock: tells the time, in UTC.
    """

    publisher: Publisher
    memory: Memory
    suppressions: SuppressionList
    inbound: Values
    validity: timedelta
    clock: Callable[[], datetime]

    async def send(self, send: Send, caller: Caller) -> MessageAccepted:
        """Accept a message for sending.

        Raises:
            ConflictError: its recipient has opted out.
            InvalidRequestError: its idempotency key was used for another message, or its time has passed or
                is too far ahead.
        """
        now = self.clock()
        key = caller.idempotency_key
        id_ = new_message_id() if key is None else idempotent_message_id(caller.name, key)
        message = compose.outbound_message(send, id_=id_, now=now)
        _follow(message)
        async with patience():
            refusal = _refusal_by_time(send.send_at, now) or await self._refusal_by_consent(message)
            answer = await self._answer(message)
            request = DeliveryRequest(message=answer, expires_at=message.expiry(self.validity, now))
            event = MessageAccepted.of(request, time=now)
            if key is not None:
                event = await self._first_with_its_key(event, fingerprint(send, message), refusal)
            elif refusal:
                raise refusal
            await self._publish_accepted(event, caller.trace)
        ACCEPTED.labels(message.channel, "send").inc()
        _log.info("message_accepted", type=message.type, client=caller.name)
        return event

    async def receive(self, webhook: Webhook, raw: object, trace: Mapping[str, str]) -> Message:
        """Take in a message that somebody sent us; `raw` is what the provider wrote."""
        message = compose.inbound_message(webhook, now=self.clock())
        _follow(message)
        if change := compose.change_by_keyword(message, webhook.keyword):
            # YES alone says nothing, unless there is something to take back.
            unless_so = webhook.keyword is Keyword.YES
            await self.suppressions.record(change, cause=message.id, unless_so=unless_so)
        event = MessageReceived.of(InboundMessage(message=message, raw=raw))
        subject = inbound_message_subject(message.channel, message.conversation_key)
        await self.publisher.publish(Stream.INBOUND, Outgoing(subject, event.id, event.encode(), trace))
        ACCEPTED.labels(message.channel, "webhook").inc()
        _log.info("message_received", type=message.type, provider=message.provider)
        return message

    async def report(self, receipt: Receipt, raw: object, trace: Mapping[str, str]) -> ReceiptReceived:
        """Take in what became of a message that a provider had taken."""
        event = compose.receipt_event(receipt, raw, now=self.clock())
        subject = inbound_receipt_subject(receipt.channel, receipt.provider)
        await self.publisher.publish(Stream.INBOUND, Outgoing(subject, event.id, event.encode(), trace))
        ACCEPTED.labels(receipt.channel, "receipt").inc()
        RECEIPTS.labels(receipt.channel, receipt.status).inc()
        _log.info(
            "receipt_received",
            provider=receipt.provider,
            provider_message_id=receipt.provider_message_id,
            status=receipt.status,
        )
        return event

    async def _answer(self, message: Message) -> Message:
        """Let an e-mail answer the newest one that came in its conversation, if the stream still has that."""
        if message.channel is not Channel.EMAIL:
            return message
        newest = await self.inbound.get(inbound_message_subject(message.channel, message.conversation_key))
        event = decode(newest.data) if newest else None
        if not isinstance(event, MessageReceived):
            return message
        return message.model_copy(update={"in_reply_to": event.data.message.email_id})

    async def _refusal_by_consent(self, message: Message) -> ConflictError | None:
        suppression = await self.suppressions.suppression_of(message)
        if suppression is None:
            return None
        SUPPRESSED.labels(message.channel).inc()
        return RecipientOptedOutError(suppression)

    async def _first_with_its_key(
        self, event: MessageAccepted, print_: str, refusal: ProblemError | None
    ) -> MessageAccepted:
        if refusal is None:
            first = await self.memory.settle(event, print_)
        elif known := await self.memory.recall(event.data.message.id, print_):
            first = known  # which there was nothing against
        else:
            raise refusal
        # It may have been refused long ago, and be accepted only now.
        data = first.data.model_copy(update={"expires_at": event.data.expires_at})
        return first.model_copy(update={"data": data})

    async def _publish_accepted(self, event: MessageAccepted, trace: Mapping[str, str]) -> None:
        message = event.data.message
        subject = outbound_subject(message.channel, message.conversation_key)
        await self.publisher.publish(Stream.OUTBOUND, Outgoing(subject, event.id, event.encode(), trace))


def _follow(message: Message) -> None:
    """Name the message in all that is logged and traced of the request."""
    structlog.contextvars.bind_contextvars(message_id=str(message.id))
    tracing.annotate(
        message_id=message.id, conversation_key=message.conversation_key, channel=message.channel
    )


def _refusal_by_time(send_at: datetime | None, now: datetime) -> InvalidRequestError | None:
    if send_at is None:
        return None
    if send_at < now - _CLOCK_SKEW:
        return InvalidRequestError(Fault("send_at", "is in the past"))
    if send_at > now + SEND_WINDOW:
        return InvalidRequestError(Fault("send_at", f"is more than {SEND_WINDOW.days} days ahead"))
    return None
