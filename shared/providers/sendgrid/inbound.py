"""SendGrid's Inbound Parse: e-mails to our addresses, one message for each address."""

import codecs
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from shared.addresses import InvalidAddressError, parse_email
from shared.channels import MessageType
from shared.message import IncomingMessage
from shared.providers.forms import (
    Form,
    MalformedFormError,
    MultipartForm,
    collect,
    cut_to,
    fit_form,
    parse_multipart,
)
from shared.providers.webhooks import (
    InvalidWebhookError,
    UnreadableWebhookError,
    Webhook,
    WebhookContent,
    WebhookRequest,
    validate,
)
from shared.text import NOT_A_LINE, clean_text, message_id_of, references_of, single_line
from shared.validation import MAX_SUBJECT, Email, Fault

if TYPE_CHECKING:
    from hashlib import _Hash as HASH

NAME = "sendgrid"

_MULTIPART = "multipart/form-data"
_MAX_EMAIL = 30 * 1024 * 1024
"""Bytes."""

# Bytes of JSON, out of the 1 MiB that a NATS message can hold.
_ROOM_FOR_BODY = 256 * 1024
_ROOM_FOR_FIELDS = 384 * 1024

_MAX_FILES_LISTED = 100
_MAX_RECIPIENTS = 100
_MAX_LABEL = 100

_PYTHON_CODECS = {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"}
"""Codecs that are not character sets of e-mail."""

_SUPERSETS = {"ascii": "cp1252", "iso8859-1": "cp1252"}
"""Character sets that are often named when a larger one is meant (WHATWG Encoding Standard)."""

_MESSAGE_ID = re.compile(r"(?im)^message-id:[ \t]*(?:\r?\n[ \t]+)?(\S+)")
_REFERENCES = re.compile(r"(?im)^references:(.*(?:\r?\n[ \t].*)*)")
_IN_REPLY_TO = re.compile(r"(?im)^in-reply-to:(.*(?:\r?\n[ \t].*)*)")
_IN_BRACKETS = re.compile(r"<([^<>]*)>\s*$")

_CHARSET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:()+-]{0,39}")

_charsets = TypeAdapter(dict[str, str])


class _Addresses(BaseModel):
    model_config = ConfigDict(strict=True)

    from_: Email = Field(alias="from")
    to: Email


class _Envelope(BaseModel):
    to: list[str] = Field(min_length=1, max_length=_MAX_RECIPIENTS)
    from_: str | None = Field(default=None, alias="from")


class AcceptedEmail(BaseModel):
    """The acknowledgement of an e-mail that was stored."""

    ids: list[UUID] = Field(
        description="The ids of its messages, one for each address that it was delivered to"
    )


def parse_mail(request: WebhookRequest) -> WebhookContent:
    """Parse an e-mail.

    The body of its messages is the HTML, as in the e-mails that we send, or the text if there is none. Its
    files are only listed, in `raw`, because attachments are URLs, and these files have none.

    Raises:
        UnreadableWebhookError: the body is not a multipart form.
        InvalidWebhookError: with the fields at fault.
    """
    form = _form_of(request)
    fields = _decode_fields(form)
    envelope = _envelope(_single(fields, "envelope"))
    content = _Content.of(fields, form)
    sender = _sender(_single(fields, "from"), envelope)
    written_id = _written_id(fields)
    digest = _digest_of(fields, written_id)
    headers = _single(fields, "headers") or ""
    references = references_of(*(_value(pattern, headers) for pattern in (_REFERENCES, _IN_REPLY_TO)))
    messages = []
    for recipient in {address.casefold(): address for address in envelope.to}.values():
        addresses = validate(
            {"from": sender, "to": recipient}, _Addresses, default_region=request.default_region
        )
        messages.append(
            IncomingMessage.of(
                provider=NAME,
                provider_message_id=_provider_message_id(written_id, digest, envelope.from_ or "", recipient),
                from_=addresses.from_,
                to=addresses.to,
                raw=content.raw,
                type=MessageType.EMAIL,
                subject=content.subject,
                body=content.body,
                attachments=[],
                email_id=message_id_of(written_id),
                references=references,
                timestamp=request.received_at,
                created_at=request.received_at,
            )
        )
    return WebhookContent(messages=messages)


@dataclass(frozen=True, slots=True)
class _Content:
    """The content that all messages of an e-mail share.

    Attributes:
        raw: SendGrid's form without the contents of files, cut to what a stream can hold.
    """

    subject: str | None
    body: str
    raw: Mapping[str, Any]

    @classmethod
    def of(cls, fields: Form, form: MultipartForm) -> "_Content":
        subject = single_line(_single(fields, "subject") or "", limit=MAX_SUBJECT) or None
        return cls(subject, _body(_single(fields, "html"), _single(fields, "text")), _raw(fields, form))


def _form_of(request: WebhookRequest) -> MultipartForm:
    try:
        return parse_multipart(request.body, request.headers.get("content-type", ""))
    except MalformedFormError as exc:
        raise UnreadableWebhookError(str(exc)) from exc


def _decode_fields(form: MultipartForm) -> Form:
    given = next((value for name, value in form.fields if name == "charsets"), b"{}")
    try:
        charsets = _charsets.validate_json(given)
    except ValidationError:
        charsets = {}
    return collect((name, _decode(value, charsets.get(name, "utf-8"))) for name, value in form.fields)


def _decode(value: bytes, charset: str) -> str:
    try:
        text = value.decode(_codec(charset), errors="replace")
    except (LookupError, ValueError):
        text = value.decode(errors="replace")
    # UTF-7 can spell lone surrogates.
    return text.encode(errors="replace").decode()


def _codec(charset: str) -> str:
    # Python remembers every name that it has looked up, and e-mails may name anything.
    if not _CHARSET_NAME.fullmatch(charset):
        raise LookupError(charset[:_MAX_LABEL])
    name = codecs.lookup(charset).name
    return "utf-8" if name in _PYTHON_CODECS else _SUPERSETS.get(name, name)


def _single(fields: Form, name: str) -> str | None:
    value = fields.get(name)
    if isinstance(value, list):
        raise InvalidWebhookError(Fault(name, "occurs more than once"))
    return value


def _envelope(text: str | None) -> _Envelope:
    try:
        return _Envelope.model_validate_json(text or "")
    except ValidationError as exc:
        fault = Fault("envelope", "does not contain the addresses that the e-mail was delivered to")
        raise InvalidWebhookError(fault) from exc


def _sender(header: str | None, envelope: _Envelope) -> str:
    """Return the author in the From header, or the envelope's sender if that is not an address."""
    if header is None:
        raise InvalidWebhookError(Fault("from", "is required"))
    in_brackets = _IN_BRACKETS.search(header)
    candidates = (in_brackets[1] if in_brackets else header, envelope.from_ or "")
    return next(filter(_is_address, candidates), header)


def _is_address(text: str) -> bool:
    try:
        parse_email(text)
    except InvalidAddressError:
        return False
    return True


def _body(html: str | None, text: str | None) -> str:
    """Return the HTML, or the text if there is none or the HTML is too long; cut if both are too long."""
    versions = [version for version in (html, text) if version and version.strip()]
    cleaned = (clean_text(version[:_ROOM_FOR_BODY]) for version in versions)
    cut = [cut_to(version, _ROOM_FOR_BODY) for version in cleaned]
    whole = (part for part, version in zip(cut, versions, strict=True) if len(part) == len(version))
    return next(whole, next(iter(cut), ""))


def _digest_of(fields: Form, written_id: str | None) -> "HASH":
    """Return a digest of the identity of an e-mail, which may have megabytes.

    An e-mail without a Message-ID still has other headers, which show when and how it arrived.
    """
    identity = written_id or _single(fields, "headers") or to_json(fields).decode()
    return sha256(f"[{json.dumps(identity)}, ".encode())


def _provider_message_id(written_id: str | None, of_email: "HASH", sender: str, recipient: str) -> str:
    """Return the id of an e-mail to one of our addresses, which is the same each time SendGrid posts it.

    The Message-ID alone is not sufficient, since two senders may well use the same one.
    """
    digest = of_email.copy()
    digest.update(json.dumps([sender, recipient.casefold()])[1:].encode())
    return f"{single_line(written_id or '', limit=_MAX_LABEL)}#{digest.hexdigest()[:32]}"


def _written_id(fields: Form) -> str | None:
    """Return the Message-ID as its author wrote it, which may be malformed."""
    found = _MESSAGE_ID.search(_single(fields, "headers") or "")
    if found is None or len(found[1]) > MAX_SUBJECT or NOT_A_LINE.search(found[1]):
        return None
    return found[1]


def _value(pattern: re.Pattern[str], headers: str) -> str | None:
    found = pattern.search(headers)
    return found[1] if found else None


def _raw(fields: Form, form: MultipartForm) -> Mapping[str, Any]:
    kept, cut = fit_form(fields, _ROOM_FOR_FIELDS)
    files = [
        asdict(file) | {"name": _file_name(file.name), "type": single_line(file.type, limit=_MAX_LABEL)}
        for file in form.files[:_MAX_FILES_LISTED]
    ]
    return {"fields": kept, "files": files, "cut": cut}


def _file_name(text: str) -> str:
    return single_line(re.split(r"[/\\]", text)[-1], limit=_MAX_LABEL)


_FORM: Mapping[str, Any] = {
    "type": "object",
    "required": ["from", "envelope"],
    "properties": {
        "from": {"type": "string", "examples": ["Ann <ann@example.com>"]},
        "envelope": {
            "type": "string",
            "description": "JSON; `to` contains the addresses that the e-mail was delivered to",
            "examples": ['{"to": ["user@usehatchapp.com"], "from": "ann@example.com"}'],
        },
        "subject": {"type": "string"},
        "html": {"type": "string"},
        "text": {"type": "string"},
        "headers": {"type": "string", "description": "The headers of the e-mail, including Message-ID"},
        "charsets": {
            "type": "string",
            "description": "JSON; the character set of each field that is not in UTF-8",
        },
    },
}

INBOUND = Webhook(
    name="receive_sendgrid_email",
    path="sendgrid/inbound",
    summary="Receive an e-mail from SendGrid's Inbound Parse",
    media_type=_MULTIPART,
    body=_FORM,
    parse=parse_mail,
    respond=lambda content: AcceptedEmail(ids=[incoming.message.id for incoming in content.messages]),
    response=AcceptedEmail,
    max_size=_MAX_EMAIL,
)
