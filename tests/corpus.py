"""Webhooks of messages as they come from all countries and from good and bad mail programs."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from tests.mails import malformed_mails, parsed_mails, raw_mails
from tests.webhooks import (
    FORM,
    GENERIC_SMS,
    JSON,
    MAIL,
    MULTIPART,
    SENDGRID_INBOUND,
    SMS,
    TWILIO_MESSAGES,
    multipart,
    urlencoded,
)

AMBIGUOUS = {"BZ", "GM", "IS", "KM", "MM", "NU", "PW", "SC", "ST", "VU"}
"""The regions whose example, without a +, is also a number of the default region."""


@dataclass(frozen=True)
class Post:
    """A webhook.

    Attributes:
        sender: the key of the sender's address in the message, if there is one.
        body: the text in the message; None if nothing in the webhook can be read.
    """

    path: str
    headers: Mapping[str, str]
    content: bytes
    sender: str
    body: str | None


def corpus() -> Iterator[Post]:
    yield from _text_messages()
    yield from _emails()
    yield from _unreadable()


def _text_messages() -> Iterator[Post]:
    """Yield a message from each region in each notation, through each provider."""
    for number, region in enumerate(sorted(phonenumbers.SUPPORTED_REGIONS)):
        for notation, (written, key) in enumerate(_notations(region)):
            body, id_ = f"Hello from {region}, {notation}", f"{number:016x}{notation:016x}"
            form = {**SMS, "From": written, "Body": body, "MessageSid": f"SM{id_}", "SmsSid": f"SM{id_}"}
            yield Post(TWILIO_MESSAGES, FORM, urlencoded(form), key, body)
            payload = {"from": written, "to": "+12016661234", "type": "sms", "body": body}
            posted = json.dumps({**payload, "messaging_provider_id": id_}).encode()
            yield Post(GENERIC_SMS, JSON, posted, key, body)


def _notations(region: str) -> Iterator[tuple[str, str]]:
    mobile = phonenumbers.example_number_for_type(region, PhoneNumberType.MOBILE)
    number = mobile or phonenumbers.example_number(region)
    assert number is not None
    e164 = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    yield e164, e164
    yield e164[1:], f"+1{e164[1:]}" if region in AMBIGUOUS else e164
    yield phonenumbers.format_number(number, PhoneNumberFormat.INTERNATIONAL), e164
    yield f"00{e164[1:]}", e164
    yield f"\u202a{e164}\u202c", e164


def _emails() -> Iterator[Post]:
    for fields, text in (*parsed_mails(), *raw_mails(), *malformed_mails()):
        yield Post(SENDGRID_INBOUND, MULTIPART, multipart(fields), "ann@example.com", text)


def _unreadable() -> Iterator[Post]:
    mail = multipart(MAIL)
    for path, headers, content in (
        (TWILIO_MESSAGES, FORM, b"Body=%ff"),
        (TWILIO_MESSAGES, FORM, b""),
        (GENERIC_SMS, JSON, b'{"from": "+18045551234"'),
        (GENERIC_SMS, JSON, b"[]"),
        (SENDGRID_INBOUND, MULTIPART, b"garbage"),
        (SENDGRID_INBOUND, MULTIPART, mail[: len(mail) // 2]),
    ):
        yield Post(path, headers, content, "", None)
