"""Messages, and the models around their delivery: requests, status reports and receipts."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.addresses import Address
from shared.channels import Channel, Direction, MessageType
from shared.ids import ConversationKey, MessageId, conversation_key, inbound_message_id
from shared.keywords import Keyword
from shared.media import Media
from shared.status import IN_DOUBT, RETURNED, Status, Step

_END_OF_TIME = datetime.max.replace(tzinfo=UTC)

BodyType = Literal["html", "text"]


class FrozenModel(BaseModel):
    """A value; it is created with the names of its fields and serialised with their aliases."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)


class Priority(StrEnum):
    """The precedence of a message over others that are waiting to be sent."""

    TRANSACTIONAL = "transactional"
    BULK = "bulk"


class Message(FrozenModel):
    """A message of either direction, normalised.

    Attributes:
        to: the recipient; the first one of a message to a group.
        from_key: the author's address, normalised for comparison; `to_key` likewise.
        recipients: the keys of all recipients of a message to a group, in the order that was given; empty for
            other messages.
        from_name: the display name of the author of an e-mail; `to_name` likewise.
        text: the plain text of an e-mail whose body is HTML.
        body_type: whether the body of an e-mail is HTML, if that was declared.
        reply_to: where replies to an e-mail should be sent, if not to its author.
        cc: further recipients of an e-mail; `bcc` likewise. They do not take part in the conversation.
        files: the attachments that came with an inbound e-mail; `attachments` has the URLs of others.
        timestamp: when the message was written, according to its sender.
        created_at: when the gateway accepted the message.
        send_at: the time before which the message must not be sent; only for outbound messages.
        priority: bulk messages give way to transactional ones that are ready to be sent.
        email_id: Message-ID of an inbound e-mail (RFC 5322, 3.6.4), if its provider reports it.
        in_reply_to: Message-ID of the e-mail that this one replies to.
        references: Message-IDs of the e-mails before this one in its thread, oldest first.
        provider: the provider that delivered the message to us; only for inbound messages.
        provider_message_id: that provider's id for the message.
        warnings: the parts of an inbound message that could not be read, in words.
        reference: the client's own id for an outbound message.
        metadata: the client's own data about an outbound message.
    """

    id: MessageId
    conversation_key: ConversationKey
    channel: Channel
    direction: Direction
    type: MessageType
    from_: str = Field(alias="from")
    to: str
    from_key: str
    to_key: str
    recipients: list[str] = Field(default_factory=list)
    from_name: str | None = None
    to_name: str | None = None
    subject: str | None = None
    body: str
    text: str | None = None
    body_type: BodyType | None = None
    reply_to: list[Address] = Field(default_factory=list)
    cc: list[Address] = Field(default_factory=list)
    bcc: list[Address] = Field(default_factory=list)
    attachments: list[str]
    files: list[Media] = Field(default_factory=list)
    timestamp: AwareDatetime
    created_at: AwareDatetime
    send_at: AwareDatetime | None = None
    priority: Priority = Priority.TRANSACTIONAL
    email_id: str | None = None
    in_reply_to: str | None = None
    references: list[str] = Field(default_factory=list)
    provider: str | None = None
    provider_message_id: str | None = None
    warnings: list[str] = Field(default_factory=list)
    reference: str | None = None
    metadata: dict[str, str] | None = None

    @classmethod
    def between(
        cls,
        from_: Address,
        to: Address | Sequence[Address],
        *,
        type: MessageType,  # noqa: A002 - a field of the model
        **fields: Any,  # noqa: ANN401 - fields of the model
    ) -> Self:
        """Create a message; the fields that follow from its type and its addresses are filled in."""
        if unknown := fields.keys() - cls.model_fields.keys():
            raise TypeError(f"a message has no {', '.join(sorted(unknown))}")
        channel = type.channel
        recipients = [to] if isinstance(to, Address) else to
        keys = [recipient.key for recipient in recipients]
        to = recipients[0]
        return cls(
            conversation_key=conversation_key(channel, (from_.key, *keys)),
            channel=channel,
            type=type,
            from_=from_.spelling,
            to=to.spelling,
            from_key=from_.key,
            to_key=to.key,
            **{
                "recipients": keys if len(keys) > 1 else [],
                "from_name": from_.name,
                "to_name": to.name,
                **fields,
            },
        )

    @property
    def participants(self) -> list[str]:
        """The keys of the addresses in the conversation, sorted and unique."""
        return sorted({self.from_key, *self.recipient_keys})

    @property
    def recipient_keys(self) -> list[str]:
        """The keys of all recipients in the conversation; there are several in a group."""
        return self.recipients or [self.to_key]

    @property
    def media(self) -> list[Media]:
        """The files of an inbound message: those that came with it, and those at its URLs."""
        if self.direction is Direction.OUTBOUND:
            return []
        urls = enumerate(dict.fromkeys(self.attachments), len(self.files))
        return [*self.files, *(Media.at(self.id, position, url) for position, url in urls)]

    @property
    def copies(self) -> list[Address]:
        """The recipients other than `to`."""
        return [*self.cc, *self.bcc]

    def expiry(self, validity: timedelta, now: datetime) -> datetime:
        """Return the time until which the message may be sent if it is accepted or replayed now."""
        start = max(now, self.send_at or now)
        return start + min(validity, _END_OF_TIME - start)


EMAIL_FIELDS = ("from_name", "to_name", "text", "body_type", "reply_to", "cc", "bcc")
"""The fields that only e-mails have, apart from the subject; the database has one column for all of them."""


class AttemptError(FrozenModel):
    """The reason why an attempt to send a message failed."""

    attempt: int
    code: str
    detail: str
    provider: str | None = None
    status_code: int | None = None
    at: AwareDatetime


class DeliveryRequest(FrozenModel):
    """A message to be handed to a provider.

    Attributes:
        generation: 0, and one higher after each replay of the message's dead letter.
        attempt: number of the attempt that is due, from 1.
        deferral_count: how often this attempt was deferred without being used up.
        errors: the errors of the previous attempts, oldest first.
        caller: the name of the API key with which the message was accepted; None if an earlier version did.
    """

    message: Message
    caller: str | None = None
    generation: int = Field(default=0, ge=0)
    attempt: int = Field(default=1, ge=1)
    deferral_count: int = Field(default=0, ge=0)
    errors: list[AttemptError] = Field(default_factory=list)
    expires_at: AwareDatetime

    @property
    def step(self) -> Step:
        return Step(self.generation, self.attempt, self.deferral_count)


class StatusReport(FrozenModel):
    """A report on an outbound message by the sender, or by the gateway when it cancels the message.

    Attributes:
        in_doubt: whether a provider may have the message although it failed.
    """

    message_id: MessageId
    channel: Channel
    status: Status
    generation: int = Field(ge=0)
    attempt: int = Field(ge=1)
    provider: str | None = None
    provider_message_id: str | None = None
    error: AttemptError | None = None
    in_doubt: bool = False
    next_attempt_at: AwareDatetime | None = None

    @property
    def precedence(self) -> int:
        return IN_DOUBT if self.in_doubt else self.status.precedence


class IncomingMessage(FrozenModel):
    """A message that a provider delivered to us.

    Attributes:
        keyword: the keyword that the message consists of, such as STOP.
        opt_out_group: the group of our addresses that opt-outs concern at the provider, if there is one.
        raw: the provider's payload, from which a later release can parse the message again.
    """

    message: Message
    keyword: Keyword | None = None
    opt_out_group: str | None = None
    raw: Any

    @classmethod
    def of(  # noqa: PLR0913 - as keywords
        cls,
        *,
        provider: str,
        provider_message_id: str,
        from_: Address,
        to: Address | Sequence[Address],
        raw: object,
        content: Sequence[str] = (),
        keyword: Keyword | None = None,
        opt_out_group: str | None = None,
        **fields: Any,  # noqa: ANN401 - further fields of the message
    ) -> Self:
        """Create an incoming message; each delivery of the same webhook creates the same one.

        Args:
            provider: the provider's name.
            provider_message_id: the provider's id of the message.
            from_: the address of its author.
            to: our address that it was sent to, or all recipients of a message to a group.
            raw: the provider's payload.
            content: what distinguishes the message from others for which the provider used the same id.
            keyword: the keyword that the message consists of.
            opt_out_group: the group of our addresses that opt-outs concern at the provider.
            fields: further fields of the message: its `type`, `body` and `attachments`, `timestamp` and
                `created_at`, and optional ones.
        """
        message = Message.between(
            from_,
            to,
            id=inbound_message_id(provider, provider_message_id, *content),
            direction=Direction.INBOUND,
            provider=provider,
            provider_message_id=provider_message_id,
            **fields,
        )
        return cls(message=message, keyword=keyword, opt_out_group=opt_out_group, raw=raw)


class IncomingReceipt(FrozenModel):
    """A provider's report on an outbound message, which need not be known to us.

    Attributes:
        provider_message_id: the provider's id of the message.
        message_id: our id of the message, if the provider returns it.
        key: distinguishes the receipts for one message, so that a repeated receipt is recognised.
        is_bounce: whether the recipient, which the report does not name, must not be sent any more messages.
        error_code: the provider's code for a failure, or its status if that is not known to us.
        occurred_at: when it happened, according to the provider, or else when the receipt arrived.
        raw: the provider's payload.
    """

    channel: Channel
    provider: str
    provider_message_id: str
    message_id: MessageId | None = None
    key: str
    status: Status
    is_bounce: bool = False
    error_code: str | None = None
    error_detail: str | None = None
    occurred_at: AwareDatetime
    raw: Any

    @property
    def precedence(self) -> int:
        is_returned = self.channel.rules.may_return and self.status in {Status.UNDELIVERED, Status.FAILED}
        return RETURNED if is_returned else self.status.precedence
