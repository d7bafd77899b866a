"""Inbound Parse: a received e-mail, as the form that SendGrid posts."""

import codecs
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime, getaddresses
from typing import Annotated
from uuid import uuid4

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _decode_base64(content: object) -> bytes:
    if not isinstance(content, str):
        raise ValueError("must be base64")  # noqa: TRY004 - pydantic expects a ValueError
    return b64decode(content, validate=True)


def _charset(name: str) -> str:
    try:
        codecs.lookup(name)
    except LookupError as exc:
        raise ValueError("unknown charset") from exc
    return name


class ReceivedAttachment(BaseModel):
    filename: str
    type: str = "application/octet-stream"
    content: Annotated[bytes, BeforeValidator(_decode_base64)] = Field(description="In base64")
    content_id: str | None = None


class ReceivedMail(BaseModel):
    """Fields of the form, with examples as defaults. Other fields are added to the form."""

    model_config = ConfigDict(extra="allow")

    from_: str = Field("Casey Customer <customer@example.com>", alias="from")
    to: str = "office@example.org"
    subject: str = "Tomorrow at nine"
    text: str | None = "Is tomorrow at nine still free?\n"
    headers: str | None = None
    charsets: dict[str, Annotated[str, AfterValidator(_charset)]] = Field(
        default={}, description="Charsets of the fields that are not in UTF-8"
    )
    envelope: str | None = Field(default=None, description="JSON")
    attachments: list[ReceivedAttachment] = []


Part = tuple[str, tuple[str | None, bytes] | tuple[str | None, bytes, str]]
"""The name of a field, then its file name, its content, and its media type."""


def form_parts(mail: ReceivedMail) -> Iterator[Part]:
    """Yield the parts of the form, each text in the charset that `charsets` names."""
    given = mail.model_dump(by_alias=True, exclude={"attachments", "charsets"}, exclude_none=True)
    texts: dict[str, str] = {
        "headers": _headers(mail),
        "envelope": _envelope(mail),
        "dkim": "{@example.com : pass}",
        "SPF": "pass",
        "spam_score": "0.1",
        "sender_ip": "192.0.2.1",
        **{name: str(value) for name, value in given.items()},
    }
    charsets: dict[str, str] = {
        **{name: "UTF-8" for name in ("to", "from", "cc", "subject", "text", "html") if name in texts},
        **mail.charsets,
    }
    for name, text in texts.items():
        yield name, (None, text.encode(charsets.get(name, "UTF-8"), errors="replace"))
    yield "charsets", (None, orjson.dumps(charsets))
    yield "attachments", (None, str(len(mail.attachments)).encode())
    yield from _attachment_parts(mail.attachments)


def _attachment_parts(attachments: list[ReceivedAttachment]) -> Iterator[Part]:
    if not attachments:
        return
    info = {
        f"attachment{number}": attachment.model_dump(exclude={"content"}, exclude_none=True)
        | {"name": attachment.filename}
        for number, attachment in enumerate(attachments, 1)
    }
    yield "attachment-info", (None, orjson.dumps(info))
    for number, attachment in enumerate(attachments, 1):
        yield f"attachment{number}", (attachment.filename, attachment.content, attachment.type)


def _headers(mail: ReceivedMail) -> str:
    lines = {
        "From": mail.from_,
        "To": mail.to,
        "Subject": mail.subject,
        "Date": format_datetime(datetime.now(UTC)),
        "Message-ID": f"<{uuid4().hex}@mail.example.com>",
        "MIME-Version": "1.0",
    }
    return "".join(f"{name}: {value}\n" for name, value in lines.items())


def _envelope(mail: ReceivedMail) -> str:
    """Return the SMTP envelope, which names the actual recipients; here, they are the ones in `To`."""
    to = [address for _, address in getaddresses([mail.to])]
    ((_, sender),) = getaddresses([mail.from_])[:1] or [("", "")]
    return orjson.dumps({"to": to, "from": sender}).decode()
