"""The `Idempotency-Key` of a request, and the memory of what was answered to it.

A key makes one message: the first request with it writes down the event that it is about to publish. A
repetition publishes the event of the first one again, since that one may have ended before it did so, and
the streams recognise what they have already.
"""

import re
from dataclasses import dataclass
from hashlib import blake2b

from pydantic import BaseModel

from services.gateway.http.errors import Fault, InvalidRequestError
from services.gateway.schemas import Send
from shared.bus.key_value import Bucket, ConflictError
from shared.errors import BusUnavailableError
from shared.events import Message, MessageAccepted
from shared.ids import MessageId

HEADER = "Idempotency-Key"
_MAX_KEY = 255

_BARE = rf"[!#-~][ -~]{{0,{_MAX_KEY - 1}}}"
_QUOTED = rf'"(?:[ !#-\[\]-~]|\\["\\]){{1,{_MAX_KEY}}}"'
PATTERN = f"^(?:{_BARE}|{_QUOTED})$"


def parse_key(values: list[str]) -> str | None:
    r"""Read the header, whose value is a quoted string (RFC 8941) or stands as it is.

    Raises:
        InvalidRequestError: it is empty, too long, or not of printable ASCII.
    """
    if not values:
        return None
    if len(values) > 1:
        raise _invalid("is there more than once")
    value = values[0].strip(" \t")
    if re.fullmatch(_QUOTED, value):
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    if re.fullmatch(_BARE, value):
        return value
    raise _invalid(f"is neither a quoted string nor printable ASCII, of 1 to {_MAX_KEY} characters")


def _invalid(detail: str) -> InvalidRequestError:
    return InvalidRequestError(Fault(HEADER, detail))


def fingerprint(send: Send, message: Message) -> str:
    """Tell apart requests that ask for different messages; when they were made makes no difference."""
    no_matter = {"id", "created_at", "email_id", "in_reply_to"}
    if send.timestamp is None:
        no_matter.add("timestamp")
    if send.send_at is None:  # so that a key that is remembered from before there was such a field still fits
        no_matter.add("send_at")
    normalised = message.model_dump_json(exclude=no_matter)
    return blake2b(normalised.encode(), digest_size=16).hexdigest()


class _Record(BaseModel):
    fingerprint: str
    event: MessageAccepted


@dataclass(frozen=True, slots=True)
class Memory:
    """Remembers, in a bucket of JetStream, the event that each idempotency key stands for."""

    bucket: Bucket

    async def settle(self, event: MessageAccepted, print_: str) -> MessageAccepted:
        """Return the event that holds for the id of its message: this one, if it is the first.

        Raises:
            InvalidRequestError: the key was used for another message.
            BusUnavailableError: it cannot be told.
        """
        message_id = event.data.message.id
        record = _Record(fingerprint=print_, event=event)
        try:
            await self.bucket.put(str(message_id), record.model_dump_json(by_alias=True).encode(), revision=0)
        except ConflictError:
            first = await self.recall(message_id, print_)
            if first is None:
                # A replica of the bucket that has not caught up with its leader.
                raise BusUnavailableError("the idempotency record cannot be read yet") from None
            return first
        return event

    async def recall(self, message_id: MessageId, print_: str) -> MessageAccepted | None:
        """Return the event that was settled for the message, or None; raises as `settle` does."""
        value = await self.bucket.get(str(message_id))
        if value is None:
            return None
        record = _Record.model_validate_json(value.data)
        if record.fingerprint != print_:
            raise _invalid("was used for another message")
        return record.event
