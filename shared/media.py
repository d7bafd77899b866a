"""The media of inbound messages: the files of an MMS, and the attachments of an e-mail."""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from shared.channels import Channel
from shared.ids import MediaId, MessageId, media_id

_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")  # RFC 6838


class MediaStatus(StrEnum):
    """Whether the content of a file is stored."""

    PENDING = "pending"
    STORED = "stored"
    FAILED = "failed"


_PRECEDENCE = (MediaStatus.PENDING, MediaStatus.FAILED, MediaStatus.STORED)
"""A file that could not be fetched may be stored later, after a replay."""


class Media(BaseModel):
    """A file of an inbound message.

    Attributes:
        position: the place among the files of the message, from 0.
        url: where the provider offers the file; None if it came with the message.
        content_type: the media type, without parameters, according to the sender of the file.
        size: the size in bytes.
        filename: the name without a path, according to the sender of the file.
        digest: SHA-256 of the bytes, in hexadecimal digits.
        reason: the code of the error, if the status is `failed`.
    """

    model_config = ConfigDict(frozen=True)

    id: MediaId
    position: int
    status: MediaStatus
    url: str | None = None
    content_type: str | None = None
    size: int | None = None
    filename: str | None = None
    digest: str | None = None
    reason: str | None = None

    @classmethod
    def at(cls, message_id: MessageId, position: int, url: str) -> "Media":
        """Return the file at a URL of a message, which has to be fetched."""
        return cls(id=media_id(message_id, url), position=position, url=url, status=MediaStatus.PENDING)


def latest_of(rows: Iterable[Any]) -> list[Media]:
    """Return files in their order, each with its latest status, from rows with all statuses of each."""
    media = sorted(map(Media.model_validate, rows), key=lambda each: _PRECEDENCE.index(each.status))
    latest = {each.id: each for each in media}
    return sorted(latest.values(), key=lambda each: each.position)


class MediaReport(BaseModel):
    """The report that a file of a message was stored, or that it finally cannot be fetched."""

    model_config = ConfigDict(frozen=True)

    message_id: MessageId
    channel: Channel
    media: Media


def media_type_of(content_type: str) -> str:
    """Return the media type of a Content-Type header, or the most general one if it is invalid."""
    essence = content_type.partition(";")[0].strip().lower()
    return essence if _MEDIA_TYPE.fullmatch(essence) else "application/octet-stream"
