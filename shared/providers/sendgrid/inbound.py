"""SendGrid's Inbound Parse: e-mails to our addresses, one message for each address."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from shared.addresses import Address, read_email, withheld_sender
from shared.channels import MessageType
from shared.ids import media_id
from shared.media import Media, MediaStatus, media_type_of
from shared.message import IncomingMessage
from shared.providers.forms import FormFile, MalformedFormError, MultipartForm, parse_multipart
from shared.providers.mail_headers import (
    Headers,
    author_of,
    decode_words,
    is_address,
    mailboxes,
    message_id_in,
    name_of,
)
from shared.providers.sendgrid.posted_mail import PostedMail
from shared.providers.webhooks import (
    InvalidWebhookError,
    UnreadableWebhookError,
    Webhook,
    WebhookContent,
    WebhookRequest,
)
from shared.text import references_of, single_line
from shared.times import read_time
from shared.validation import Fault

NAME = "sendgrid"

_MULTIPART = "multipart/form-data"
_MAX_EMAIL = 30 * 1024 * 1024
"""Bytes."""

_MAX_RECIPIENTS = 500
_MAX_LABEL = 100


class AcceptedEmail(BaseModel):
    """The acknowledgement of an e-mail that was stored."""

    ids: list[UUID] = Field(
        description="The ids of its messages, one for each address that it was delivered to"
    )


def parse_mail(request: WebhookRequest) -> WebhookContent:
    """Parse an e-mail, whose contents are never a reason to refuse it.

    The body of its messages is the HTML, as in the e-mails that we send, or the text if there is none.

    Raises:
        UnreadableWebhookError: the body is not a multipart form.
        InvalidWebhookError: it names no recipient, or more than 500.
    """
    mail = PostedMail.parse(_form_of(request))
    recipients = _recipients(mail)
    content: dict[str, Any] = {
        "raw": mail.raw(copies=len(recipients)),
        "type": MessageType.EMAIL,
        "subject": mail.subject,
        "body": mail.body,
        "attachments": [],
        "email_id": message_id_in(mail.headers.first("message-id")),
        "references": references_of(mail.headers.first("references"), mail.headers.first("in-reply-to")),
        "timestamp": _written_at(mail.headers, request.received_at),
        "created_at": request.received_at,
        "warnings": mail.warnings,
    }
    author = _author(mail)
    messages = []
    for recipient in recipients:
        id_ = _provider_message_id(mail, recipient)
        messages.append(
            IncomingMessage.of(
                provider=NAME,
                provider_message_id=id_,
                from_=author or withheld_sender(mail.fields.get("from", "").strip("<> "), id_),
                to=recipient,
                **content,
            )
        )
    digests = [sha256(file.content).hexdigest() for file in mail.files]
    return WebhookContent(
        messages=[_with_files(message, mail.files, digests) for message in messages],
        files={digest: file.content for digest, file in zip(digests, mail.files, strict=True)},
    )


def _with_files(
    incoming: IncomingMessage, files: Sequence[FormFile], digests: Sequence[str]
) -> IncomingMessage:
    """Return a message with the descriptions of its files; the gateway stores the files themselves."""
    id_ = incoming.message.id
    media = [
        Media(
            id=media_id(id_, digest, position),
            position=position,
            status=MediaStatus.STORED,
            content_type=media_type_of(file.type),
            size=len(file.content),
            filename=file.name or None,
            digest=digest,
        )
        for position, (file, digest) in enumerate(zip(files, digests, strict=True))
    ]
    message = incoming.message.model_copy(update={"files": media})
    return incoming.model_copy(update={"message": message})


def _form_of(request: WebhookRequest) -> MultipartForm:
    try:
        return parse_multipart(request.body, request.headers.get("content-type", ""))
    except MalformedFormError as exc:
        raise UnreadableWebhookError(str(exc)) from exc


def _recipients(mail: PostedMail) -> list[Address]:
    """Return the addresses that the e-mail was delivered to, without repetitions."""
    given = mail.envelope.get("to")
    entries = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    found = _addresses(mail, entries)
    if not found:
        mail.warn("The envelope names no recipient; the recipients are those in the headers")
        found = _addresses(mail, _recipients_in_headers(mail))
    if not found:
        raise InvalidWebhookError(Fault("envelope", "names no recipient, and neither do the headers"))
    if len(found) > _MAX_RECIPIENTS:
        raise InvalidWebhookError(Fault("envelope", f"names more than {_MAX_RECIPIENTS} recipients"))
    return list(found.values())


def _addresses(mail: PostedMail, entries: Iterable[object]) -> dict[str, Address]:
    """Return addresses by key."""
    found = {}
    for entry in entries:
        address = _address(entry) if isinstance(entry, str) else None
        if address:
            found[address.key] = address
        else:
            mail.warn("A recipient in the envelope could not be read")
    return found


def _address(entry: str) -> Address | None:
    return read_email(entry if is_address(entry) else next(iter(mailboxes(entry)), entry))


def _recipients_in_headers(mail: PostedMail) -> Iterator[str]:
    for name in ("to", "cc"):
        for value in mail.headers.all(name) or [mail.fields.get(name, "")]:
            yield from filter(is_address, mailboxes(value))


def _author(mail: PostedMail) -> Address | None:
    """Return the first author. The sender in the envelope is often an address that only takes bounces."""
    posted = mail.fields.get("from", "")
    written = mail.headers.all("from")
    author = author_of(
        (*written, posted, *(decode_words(each).text for each in written)), mail.headers.all("sender")
    )
    address = read_email(author)
    return address and replace(address, name=name_of(author, (*written, posted)))


def _written_at(headers: Headers, received_at: datetime) -> datetime:
    """Return the time in Date, or the time when SendGrid received the e-mail if there is none.

    The database decides whether a conversation is ordered by it (`place_in_time`).
    """
    written = read_time(headers.first("date"))
    received = read_time(headers.first("received").rpartition(";")[2])
    return min(written or received or received_at, received_at)


def _provider_message_id(mail: PostedMail, recipient: Address) -> str:
    """Return the id of an e-mail to one of our addresses, which is the same each time SendGrid posts it.

    The Message-ID alone is not sufficient, since e-mails may have none, or that of another one.
    """
    label = single_line(mail.headers.first("message-id"), limit=_MAX_LABEL)
    return f"{label}#{mail.digest_for(str(mail.envelope.get('from')), recipient.key)}"


_FORM: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "from": {"type": "string", "examples": ["Ann <ann@example.com>"]},
        "envelope": {
            "type": "string",
            "description": "JSON; `to` contains the addresses that the e-mail was delivered to",
            "examples": ['{"to": ["user@usehatchapp.com"], "from": "ann@example.com"}'],
        },
        "to": {
            "type": "string",
            "description": "The recipients in the headers; used if `envelope` is missing",
        },
        "subject": {"type": "string"},
        "html": {"type": "string"},
        "text": {"type": "string"},
        "headers": {"type": "string", "description": "The headers of the e-mail, including Message-ID"},
        "email": {"type": "string", "description": "The raw e-mail (MIME), instead of `html` and `text`"},
        "charsets": {
            "type": "string",
            "description": "JSON; the character set of each field",
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
