"""What the services tell one another: CloudEvents 1.0 in structured JSON mode.

An event says everything that its reader needs, because the NATS CLI may drop headers. Its `id` is its
`Nats-Msg-Id` as well, and is computed from what happened, so that an event told twice is one event. Its
`type` carries a version; a reader that meets a type it does not know moves the event to the dead letters.
"""

import base64
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from shared.channels import Channel, Direction, MessageType
from shared.errors import BadMessageError
from shared.ids import (
    SuppressionKey,
    ConversationKey,
    DeadLetterId,
    EventId,
    MessageId,
    suppression_key,
    dead_letter_id,
    event_id,
)
from shared.lifecycle import Status

_TYPE_PREFIX = "messaging"

_LARGEST_COPY = 128 * 1024
"""Bytes of a payload that a dead letter keeps: JSON may spell one byte with six."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True)


class Message(_Model):
    """A message of either direction, normalised.

    Attributes:
        participants: keys of the addresses in the conversation, sorted and unique.
        timestamp: when it was written, as its sender says.
        created_at: when the gateway accepted it.
        send_at: not to be sent before this; only of an outbound message, if it was asked for.
        email_id: Message-ID of an e-mail that came in (RFC 5322, 3.6.4), if its provider tells.
        in_reply_to: the same of the e-mail that this one answers.
        provider: who delivered it to us; only of an inbound message.
    """

    id: MessageId
    conversation_key: ConversationKey
    direction: Direction
    type: MessageType
    from_: str = Field(alias="from")
    to: str
    participants: list[str] = Field(min_length=1)
    subject: str | None = None
    body: str
    attachments: list[str]
    timestamp: AwareDatetime
    created_at: AwareDatetime
    send_at: AwareDatetime | None = None
    email_id: str | None = None
    in_reply_to: str | None = None
    provider: str | None = None
    provider_message_id: str | None = None

    @property
    def channel(self) -> Channel:
        return self.type.channel

    def expiry(self, validity: timedelta, now: datetime) -> datetime:
        """Tell until when it may be sent, if it is accepted or replayed now."""
        return max(now, self.send_at or now) + validity


class AttemptError(_Model):
    """Why an attempt to send failed."""

    attempt: int
    code: str
    detail: str
    provider: str | None = None
    status_code: int | None = None
    at: AwareDatetime


class DeliveryRequest(_Model):
    """A message that a provider is to get.

    Attributes:
        generation: 0, and one more with each replay of its dead letter.
        attempt: number of the attempt that is due, from 1.
        deferral_count: how often it was put off without spending an attempt.
        errors: of the attempts before, oldest first.
    """

    message: Message
    generation: int = Field(default=0, ge=0)
    attempt: int = Field(default=1, ge=1)
    deferral_count: int = Field(default=0, ge=0)
    errors: list[AttemptError] = []
    expires_at: AwareDatetime


class InboundMessage(_Model):
    """A message that came by webhook, with what the provider wrote, for a parser that is mended later."""

    message: Message
    raw: Any


class StatusReport(_Model):
    """What became of an outbound message, as the sender saw it."""

    message_id: MessageId
    channel: Channel
    status: Status
    generation: int = Field(ge=0)
    attempt: int = Field(ge=1)
    provider: str | None = None
    provider_message_id: str | None = None
    error: AttemptError | None = None
    next_attempt_at: AwareDatetime | None = None


class DeliveryReceipt(_Model):
    """What became of an outbound message, as its provider says. It need not be a message we know.

    Attributes:
        message_id: ours, of a provider that gives it back.
    """

    channel: Channel
    provider: str
    provider_message_id: str
    message_id: MessageId | None = None
    status: Status
    error_code: str | None = None
    error_detail: str | None = None
    occurred_at: AwareDatetime
    raw: Any


class Origin(_Model):
    """Where in the streams a dead letter comes from."""

    stream: str
    sequence: int
    subject: str
    consumer: str


class DeadLetter(_Model):
    """Something that was given up, with all that is needed to understand it and to try again.

    Attributes:
        reason: a short stable code.
        detail: the reason in words.
        request: what was to be sent; of a message that could not be delivered.
        payload: what lay in the stream, of a message that could not be read (`payload_base64` where it is
            no text).
        is_cut: only the beginning of the payload is kept, since a message of NATS holds 1 MiB.
    """

    id: DeadLetterId
    direction: Direction
    channel: Channel | None
    reason: str
    detail: str
    message_id: MessageId | None = None
    generation: int = 0
    attempts: int = 0
    errors: list[AttemptError] = []
    request: DeliveryRequest | None = None
    payload: str | None = None
    payload_base64: str | None = None
    is_cut: bool = False
    origin: Origin


class Resolution(StrEnum):
    """What a person decided about a dead letter."""

    REPLAYED = "replayed"
    DISCARDED = "discarded"


MAX_RESOLUTION_REASON = 1_000
"""Characters."""


class DeadLetterResolution(_Model):
    """That a dead letter needs nobody's attention any more.

    Attributes:
        reason: in words; a discard has to have one.
        by: name of the API key, or of whoever used the NATS CLI.
    """

    dead_letter_id: DeadLetterId
    resolution: Resolution
    reason: str | None = Field(default=None, min_length=1, max_length=MAX_RESOLUTION_REASON)
    by: str = Field(min_length=1, max_length=255)

    @model_validator(mode="after")
    def _says_why(self) -> Self:
        if self.resolution is Resolution.DISCARDED and self.reason is None:
            raise ValueError("a discard has no reason")
        return self


class SuppressionState(StrEnum):
    OPTED_OUT = "opted_out"
    OPTED_IN = "opted_in"


class SuppressionSource(StrEnum):
    """What made somebody's consent change.

    Attributes:
        KEYWORD: a text such as STOP.
        PROVIDER: it refused a message, since it knew that its recipient had opted out.
        BOUNCE: there is no such mailbox.
        UNSUBSCRIBE, RESUBSCRIBE: by a link in a mail, ours or the provider's.
    """

    KEYWORD = "keyword"
    PROVIDER = "provider"
    BOUNCE = "bounce"
    SPAM_REPORT = "spam_report"
    UNSUBSCRIBE = "unsubscribe"
    RESUBSCRIBE = "resubscribe"
    API = "api"


MAX_SUPPRESSION_DETAIL = 500
"""Characters."""


class SuppressionChange(_Model):
    """That somebody wants nothing more from us, or something again.

    Attributes:
        ours: key of the address of ours that it is about; None for all of them.
        theirs: key of their address.
        detail: the text, the provider's reason, or that of whoever used the API.
        by: name of the API key.
    """

    channel: Channel
    ours: str | None = None
    theirs: str
    state: SuppressionState
    source: SuppressionSource
    detail: str | None = Field(default=None, max_length=MAX_SUPPRESSION_DETAIL)
    by: str | None = None
    occurred_at: AwareDatetime

    @property
    def key(self) -> SuppressionKey:
        return suppression_key(self.ours, self.theirs)

    def supersedes(self, other: Self) -> bool:
        """Tell whether this is what holds of the two: the later one, or of one moment the opt-out."""
        return self._order > other._order

    @property
    def _order(self) -> tuple[datetime, bool]:
        return self.occurred_at, self.state is SuppressionState.OPTED_OUT


class _Event(_Model):
    specversion: Literal["1.0"] = "1.0"
    id: EventId
    source: str
    subject: str
    time: AwareDatetime
    datacontenttype: Literal["application/json"] = "application/json"

    def encode(self) -> bytes:
        return self.__pydantic_serializer__.to_json(self, by_alias=True)


class MessageAccepted(_Event):
    """The gateway answered 202: this message is to be sent."""

    type: Literal["messaging.message.accepted.v1"] = "messaging.message.accepted.v1"
    data: DeliveryRequest

    @classmethod
    def of(cls, request: DeliveryRequest, *, time: datetime) -> Self:
        message_id = request.message.id
        id_ = event_id(message_id, "accepted", request.generation)
        return cls(id=id_, source="/gateway", subject=str(message_id), time=time, data=request)

    @property
    def status(self) -> Status:
        """What the message is in by this, until the sender reports on it."""
        send_at = self.data.message.send_at
        return Status.SCHEDULED if send_at and send_at > self.time else Status.ACCEPTED


class DeliveryDue(_Event):
    """The time of a delayed attempt has come."""

    type: Literal["messaging.delivery.due.v1"] = "messaging.delivery.due.v1"
    data: DeliveryRequest

    @classmethod
    def of(cls, request: DeliveryRequest, *, time: datetime) -> Self:
        message_id = request.message.id
        id_ = event_id(message_id, "due", request.generation, request.attempt, request.deferral_count)
        return cls(id=id_, source="/sender", subject=str(message_id), time=time, data=request)


class MessageReceived(_Event):
    """A provider delivered a message to us, and was answered 200."""

    type: Literal["messaging.message.received.v1"] = "messaging.message.received.v1"
    data: InboundMessage

    @classmethod
    def of(cls, inbound: InboundMessage) -> Self:
        message = inbound.message
        id_ = event_id(message.id, "received")
        source = f"/providers/{message.provider}"
        return cls(id=id_, source=source, subject=str(message.id), time=message.created_at, data=inbound)


class ReceiptReceived(_Event):
    """A provider reported on a message that it had taken."""

    type: Literal["messaging.receipt.received.v1"] = "messaging.receipt.received.v1"
    data: DeliveryReceipt

    @classmethod
    def of(cls, receipt: DeliveryReceipt, *, id_: EventId, time: datetime) -> Self:
        source = f"/providers/{receipt.provider}"
        return cls(id=id_, source=source, subject=receipt.provider_message_id, time=time, data=receipt)


class StatusChanged(_Event):
    """The sender did something with a message, or it was canceled; `type` ends in the status."""

    type: Literal[
        "messaging.message.scheduled.v1",
        "messaging.message.retrying.v1",
        "messaging.message.sent.v1",
        "messaging.message.failed.v1",
        "messaging.message.expired.v1",
        "messaging.message.canceled.v1",
    ]
    data: StatusReport

    @classmethod
    def of(cls, report: StatusReport, *, time: datetime, source: str = "/sender") -> Self:
        return cls.model_validate(
            {
                "id": event_id(report.message_id, report.status, report.generation, report.attempt),
                "source": source,
                "type": f"{_TYPE_PREFIX}.message.{report.status}.v1",
                "subject": str(report.message_id),
                "time": time,
                "data": report,
            }
        )


class DeadLettered(_Event):
    """Something was given up."""

    type: Literal["messaging.dead-letter.created.v1"] = "messaging.dead-letter.created.v1"
    data: DeadLetter

    @classmethod
    def of(cls, dead_letter: DeadLetter, *, source: str, time: datetime) -> Self:
        subject = str(dead_letter.message_id or dead_letter.id)
        return cls(id=EventId(dead_letter.id), source=source, subject=subject, time=time, data=dead_letter)


class DeadLetterResolved(_Event):
    """A dead letter was replayed, or discarded."""

    type: Literal["messaging.dead-letter.resolved.v1"] = "messaging.dead-letter.resolved.v1"
    data: DeadLetterResolution

    @classmethod
    def of(cls, resolution: DeadLetterResolution, *, time: datetime) -> Self:
        dead_letter = resolution.dead_letter_id
        id_ = event_id(dead_letter, "resolved", resolution.resolution)
        return cls(id=id_, source="/gateway", subject=str(dead_letter), time=time, data=resolution)


class SuppressionChanged(_Event):
    """Somebody opted out, or in again."""

    type: Literal["messaging.suppression.changed.v1"] = "messaging.suppression.changed.v1"
    data: SuppressionChange

    @classmethod
    def of(cls, change: SuppressionChange, *, cause: object = None) -> Self:
        """Make the event; of one `cause`, such as a message, it is the same however often that comes."""
        id_ = event_id(change.key, change.state, cause or change.occurred_at.isoformat())
        return cls(id=id_, source="/suppressions", subject=str(change.key), time=change.occurred_at, data=change)


Event = (
    MessageAccepted
    | DeliveryDue
    | MessageReceived
    | ReceiptReceived
    | StatusChanged
    | DeadLettered
    | DeadLetterResolved
    | SuppressionChanged
)

_events: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


def decode(payload: bytes) -> Event:
    """Read an event.

    Raises:
        BadMessageError: `not_json`, `unknown_type` (a version this release does not know included) or
            `invalid_event`.
    """
    try:
        return _events.validate_json(payload)
    except ValidationError as exc:
        kind = exc.errors(include_url=False, include_input=False, include_context=False)[0]["type"]
        code = {"json_invalid": "not_json", "union_tag_invalid": "unknown_type"}.get(kind, "invalid_event")
        raise BadMessageError(code, _describe(exc)) from exc


def unreadable(payload: bytes, error: BadMessageError, origin: Origin) -> DeadLetter:
    """Make the dead letter of something in a stream that could not be read or applied.

    Its id depends on the place in the stream alone: two consumers that stumble over it make one of it. If it
    was something to send after all, which a consumer died of, it can be found and replayed as that.
    """
    tokens = origin.subject.split(".")
    channel = next((Channel(token) for token in tokens if token in set(Channel)), None)
    text, encoded = _as_text(payload[:_LARGEST_COPY])
    request = _request_in(payload)
    return DeadLetter(
        id=dead_letter_id(origin.stream, origin.sequence),
        direction=Direction.INBOUND if origin.stream == "INBOUND" else Direction.OUTBOUND,
        channel=channel,
        reason=error.code,
        detail=str(error),
        message_id=request and request.message.id,
        generation=request.generation if request else 0,
        attempts=request.attempt if request else 0,
        request=request,
        payload=text,
        payload_base64=encoded,
        is_cut=len(payload) > _LARGEST_COPY,
        origin=origin,
    )


def _request_in(payload: bytes) -> DeliveryRequest | None:
    if rb"\u0000" in payload:
        return None  # PostgreSQL has no such character, and would not store the dead letter either
    try:
        event = decode(payload)
    except BadMessageError:
        return None
    return event.data if isinstance(event, MessageAccepted | DeliveryDue) else None


def _as_text(payload: bytes) -> tuple[str | None, str | None]:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return None, base64.b64encode(payload).decode("ascii")
    return text, None


def _describe(exc: ValidationError) -> str:
    """List what is wrong and where, without the values: they may be somebody's text."""
    faults = exc.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'event'}: {fault['msg']}" for fault in faults[:5])
