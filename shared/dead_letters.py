"""Dead letters: messages that a service could not process, and how people resolve them."""

from enum import StrEnum
from typing import Self

from pydantic import AwareDatetime, Field, model_validator

from shared.channels import Channel, Direction
from shared.ids import DeadLetterId, MessageId
from shared.message import AttemptError, DeliveryRequest, FrozenModel

MAX_RESOLUTION_REASON = 1_000
"""Characters."""


class Origin(FrozenModel):
    """The place in the streams that a dead letter comes from."""

    stream: str
    sequence: int
    subject: str
    consumer: str


class PostedWebhook(FrozenModel):
    """A provider's webhook that could not be read, apart from its body.

    Attributes:
        path: the path below the public URL of the gateway.
        query: the text after the `?`; each character is a byte.
        content_type: the media type of the body, with its parameters.
    """

    path: str
    query: str
    content_type: str
    received_at: AwareDatetime


class DeadLetter(FrozenModel):
    """A message that could not be processed, with everything needed to understand it and to try again.

    Attributes:
        reason: a short stable code.
        detail: the reason in words.
        generation: the replay generation of the message.
        request: the request to send the message; only if it was to be sent.
        payload: the payload from the stream, if the message could not be read (`payload_base64` if it is not
            text).
        payload_zlib: the payload, compressed and in base64, if it is the long body of a webhook.
        origin: where the message came from, unless it is a webhook, which was never in a stream.
        webhook: how a webhook was posted that could not be read; the payload is its body.
        is_cut: whether only the beginning of the payload is kept, since a NATS message holds 1 MiB.
    """

    id: DeadLetterId
    direction: Direction = Field(examples=[Direction.OUTBOUND])
    channel: Channel | None
    reason: str = Field(examples=["http_503"])
    detail: str = Field(examples=["The provider responded with HTTP 503"])
    message_id: MessageId | None = None
    generation: int = 0
    attempts: int = 0
    errors: list[AttemptError] = Field(default_factory=list)
    request: DeliveryRequest | None = None
    payload: str | None = None
    payload_base64: str | None = None
    payload_zlib: str | None = None
    is_cut: bool = False
    origin: Origin | None = None
    webhook: PostedWebhook | None = None


class Resolution(StrEnum):
    """The decision of a person about a dead letter."""

    REPLAYED = "replayed"
    DISCARDED = "discarded"


class DeadLetterResolution(FrozenModel):
    """A decision about a dead letter.

    Attributes:
        reason: the reason in words; every discard has one.
        by: name of the API key, or of the person who used the NATS CLI.
    """

    dead_letter_id: DeadLetterId
    resolution: Resolution
    reason: str | None = Field(default=None, min_length=1, max_length=MAX_RESOLUTION_REASON)
    by: str = Field(min_length=1, max_length=255)

    @model_validator(mode="after")
    def _require_reason(self) -> Self:
        if self.resolution is Resolution.DISCARDED and self.reason is None:
            raise ValueError("a discard has no reason")
        return self
