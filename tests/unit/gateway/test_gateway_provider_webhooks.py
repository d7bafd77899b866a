"""What becomes of Twilio's and SendGrid's webhooks, and that none of them is too much for the gateway."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from services.gateway.app import create_app
from services.gateway.messages.service import Intake
from services.gateway.settings import GatewaySettings
from shared.bus import topology
from shared.bus.publisher import Outgoing
from shared.channels import Channel, MessageType
from shared.suppressions import SuppressionList
from shared.events import (
    SuppressionChange,
    SuppressionChanged,
    DeliveryReceipt,
    InboundMessage,
    Message,
    MessageReceived,
    ReceiptReceived,
    decode,
)
from shared.lifecycle import Status
from tests.jetstream import BusTo, JetStream, PublisherTo
from tests.webhooks import (
    BOUNDARY,
    DELIVERED,
    FORM,
    JSON,
    MAIL,
    MULTIPART,
    SENDGRID_EVENTS,
    SENDGRID_INBOUND,
    SMS,
    STATUS,
    TWILIO_MESSAGES,
    TWILIO_STATUS,
    events,
    multipart,
    urlencoded,
)

NATS_TAKES = 1024 * 1024 - 4 * 1024
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Stream:
    """Stands in for NATS: keeps what is published."""

    def __init__(self) -> None:
        self.published: list[Outgoing] = []

    async def publish(self, _: str, outgoing: Outgoing) -> int:
        assert len(outgoing.payload) <= NATS_TAKES
        decode(outgoing.payload)
        self.published.append(outgoing)
        return len(self.published)

    def data(self) -> list[Any]:
        found = [decode(outgoing.payload) for outgoing in self.published]
        assert all(isinstance(event, MessageReceived | ReceiptReceived) for event in found)
        return [event.data for event in found]


class Gateway:
    def __init__(self, client: httpx.AsyncClient, stream: Stream, server: JetStream) -> None:
        self._client = client
        self._server = server
        self.stream = stream

    def changes(self) -> list[SuppressionChange]:
        stored = [decode(each.payload) for each in self._server.messages(topology.Stream.SUPPRESSIONS)]
        return [event.data for event in stored if isinstance(event, SuppressionChanged)]

    async def post(self, path: str, content: bytes, headers: Mapping[Any, Any]) -> httpx.Response:
        return await self._client.post(path, content=content, headers=headers)

    async def inbound(self, path: str, content: bytes, headers: Mapping[str, str]) -> list[InboundMessage]:
        """Post a webhook, which has to be taken."""
        response = await self.post(path, content, headers)
        assert response.status_code == 200, response.text
        return self.stream.data()

    async def sms(self, **changes: Any) -> Message:  # noqa: ANN401 - any field
        [inbound] = await self.inbound(TWILIO_MESSAGES, urlencoded({**SMS, **changes}), FORM)
        return inbound.message

    async def mail(self, fields: Mapping[str, str | bytes], **more: Any) -> InboundMessage:  # noqa: ANN401
        [inbound] = await self.inbound(SENDGRID_INBOUND, multipart(fields, **more), MULTIPART)
        return inbound

    async def events(self, *given: object) -> list[DeliveryReceipt]:
        response = await self.post(SENDGRID_EVENTS, events(*given), JSON)
        assert response.status_code == 200, response.text
        return self.stream.data()


@asynccontextmanager
async def running() -> AsyncIterator[Gateway]:
    app = create_app(
        GatewaySettings(_env_file=None, nats_url="nats://unused", database_url="postgresql+asyncpg://unused")
    )
    stream: Any = Stream()
    nobody: Any = None
    server = JetStream(lambda: NOW)
    suppressions = SuppressionList(BusTo(server), PublisherTo(server))
    intake = Intake(stream, nobody, suppressions, nobody, timedelta(hours=4), lambda: NOW)
    app.state.gateway = SimpleNamespace(
        default_region="US", intake=intake, suppressions=suppressions, clock=lambda: NOW
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield Gateway(client, stream, server)


@pytest.fixture
async def gateway(settings: GatewaySettings) -> AsyncIterator[Gateway]:  # noqa: ARG001 - clears the environment
    async with running() as gateway:
        yield gateway


def without(fields: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in fields.items() if key != name}


# --- Twilio -------------------------------------------------------------------------------------------


async def test_an_sms(gateway: Gateway) -> None:
    message = await gateway.sms()

    assert (message.type, message.from_, message.to) == (MessageType.SMS, "+18045551234", "+12016661234")
    assert (message.provider, message.provider_message_id) == ("twilio", SMS["MessageSid"])
    assert (message.body, message.attachments) == ("Hello & good day, Zoë!", [])
    assert gateway.stream.data()[0].raw == SMS


async def test_twilio_is_answered_in_its_language(gateway: Gateway) -> None:
    response = await gateway.post(TWILIO_MESSAGES, urlencoded(SMS), FORM)

    assert (response.status_code, response.text) == (200, "<Response/>")
    assert response.headers["content-type"].startswith("text/xml")


async def test_an_mms(gateway: Gateway) -> None:
    media = {f"MediaUrl{number}": f"https://api.twilio.com/media/{number}" for number in range(10)}
    message = await gateway.sms(NumMedia="10", Body="", MediaContentType0="image/png", **media)

    assert (message.type, message.body, message.attachments) == (MessageType.MMS, "", list(media.values()))


async def test_control_characters_cost_no_message(gateway: Gateway) -> None:
    assert (await gateway.sms(Body="a\x00b\x1b[0m\n")).body == "a\ufffdb\ufffd[0m\n"


async def test_fields_that_nobody_knows_are_kept(gateway: Gateway) -> None:
    await gateway.sms(timestamp="soon", type="fax", Twice=["a", "b"], **{"": "", "é": "\x00"})

    raw = gateway.stream.data()[0].raw
    assert (raw["timestamp"], raw["Twice"], raw[""], raw["é"]) == ("soon", ["a", "b"], "", "\x00")


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        *((name, value, name) for name in ("From", "To", "MessageSid") for value in ("", ["+1", "+2"])),
        ("Body", ["a", "b"], "Body"),
        ("From", "nobody in particular", "From"),
        ("From", "whatsapp:+18045551234", "From"),
        ("To", "messenger:12016661234", "To"),
        ("MessageSid", "x" * 256, "MessageSid"),
        ("NumMedia", "many", "NumMedia"),
        ("NumMedia", "-1", "NumMedia"),
        ("NumMedia", "11", "NumMedia"),
        ("NumMedia", "9" * 5_000, "NumMedia"),
        ("NumMedia", "٣", "NumMedia"),
    ],
)
async def test_an_sms_with_a_bad_field_is_refused(
    gateway: Gateway, field: str, value: str | list[str], fault: str
) -> None:
    response = await gateway.post(TWILIO_MESSAGES, urlencoded({**SMS, field: value}), FORM)

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [fault]
    assert gateway.stream.published == []


@pytest.mark.parametrize("field", ["From", "To", "MessageSid", "Body"])
async def test_an_sms_without_a_field_is_refused(gateway: Gateway, field: str) -> None:
    response = await gateway.post(TWILIO_MESSAGES, urlencoded(without(SMS, field)), FORM)

    assert response.status_code == 422
    assert gateway.stream.published == []


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("delivered", Status.DELIVERED),
        ("read", Status.DELIVERED),
        ("undelivered", Status.UNDELIVERED),
        ("failed", Status.UNDELIVERED),
        ("canceled", Status.CANCELED),
    ],
)
async def test_a_status_callback_is_a_receipt(gateway: Gateway, word: str, status: Status) -> None:
    form = {**STATUS, "MessageStatus": word, "ErrorCode": "30003"}
    response = await gateway.post(TWILIO_STATUS, urlencoded(form), FORM)

    [receipt] = gateway.stream.data()
    assert response.status_code == 204
    assert (receipt.provider, receipt.provider_message_id) == ("twilio", STATUS["MessageSid"])
    assert (receipt.status, receipt.error_code, receipt.raw) == (status, "30003", form)


@pytest.mark.parametrize(
    "word", ["queued", "accepted", "scheduled", "sending", "sent", "receiving", "new one"]
)
async def test_other_statuses_are_taken_and_change_nothing(gateway: Gateway, word: str) -> None:
    response = await gateway.post(TWILIO_STATUS, urlencoded({**STATUS, "MessageStatus": word}), FORM)

    assert response.status_code == 204
    assert gateway.stream.published == []


@pytest.mark.parametrize("field", ["MessageSid", "MessageStatus"])
@pytest.mark.parametrize("value", [[], ["a", "b"]])
async def test_a_callback_about_nothing_is_refused(gateway: Gateway, field: str, value: list[str]) -> None:
    response = await gateway.post(TWILIO_STATUS, urlencoded({**STATUS, field: value}), FORM)

    assert response.status_code == 422
    assert gateway.stream.published == []


@pytest.mark.parametrize("body", [b"Body=\xff", b"Body=%ff", b"%c3=x", "Body=é".encode("utf-16")])
async def test_a_form_that_is_not_utf_8_is_refused(gateway: Gateway, body: bytes) -> None:
    assert (await gateway.post(TWILIO_MESSAGES, body, FORM)).status_code == 400


# --- SendGrid's mails ---------------------------------------------------------------------------------


async def test_a_mail(gateway: Gateway) -> None:
    inbound = await gateway.mail(MAIL)

    message = inbound.message
    assert (message.type, message.from_, message.to) == (
        MessageType.EMAIL,
        "ann@example.com",
        "us@example.org",
    )
    assert (message.provider, message.subject, message.body) == ("sendgrid", "Hello", "<p>Hello!</p>")
    assert (message.provider_message_id or "").startswith("<1@example.com>#")
    assert inbound.raw == {"fields": MAIL, "files": [], "cut": []}


@pytest.mark.parametrize(
    ("html", "text", "body"),
    [
        ("<p>a</p>", "a", "<p>a</p>"),
        (" \n", "a", "a"),
        (None, "a", "a"),
        (None, None, ""),
        ("<p>a</p>", None, "<p>a</p>"),
    ],
)
async def test_the_body_is_the_html_or_else_the_text(
    gateway: Gateway, html: str | None, text: str | None, body: str
) -> None:
    given = {"html": html, "text": text}
    fields = without(without(MAIL, "html"), "text") | {name: v for name, v in given.items() if v is not None}

    assert (await gateway.mail(fields)).message.body == body


@pytest.mark.parametrize(
    ("charset", "written", "read"),
    [
        ("UTF-8", "Zoë €".encode(), "Zoë €"),
        ("iso-8859-1", b"Zo\xeb \x80", "Zoë €"),
        ("us-ascii", b"Zo\xeb", "Zoë"),
        ("windows-1251", "Привет".encode("cp1251"), "Привет"),
        ("shift_jis", "こんにちは".encode("shift_jis"), "こんにちは"),
        ("utf-16", "Zoë".encode("utf-16"), "Zoë"),
        ("utf-8", b"a\xffb", "a\ufffdb"),
        ("utf-7", b"+2AA-", "?"),
        ("x-unknown", "Zoë".encode(), "Zoë"),
        ("", "Zoë".encode(), "Zoë"),
        ("zlib", b"a", "a"),
        ("idna", b"a", "a"),
        ("punycode", b"a-b", "a-b"),
        ("unicode_escape", rb"\d", r"\d"),
        ("undefined", b"a", "a"),
        ("a\x00b", b"a", "a"),
        ("é" * 5_000, b"a", "a"),
    ],
)
async def test_text_is_in_the_charset_that_is_named(
    gateway: Gateway, charset: str, written: bytes, read: str
) -> None:
    charsets = json.dumps({"text": charset, "subject": charset})
    inbound = await gateway.mail(
        {**without(MAIL, "html"), "text": written, "subject": written, "charsets": charsets}
    )

    assert inbound.message.body == read
    assert inbound.message.subject == read
    assert inbound.raw["fields"]["text"] == read


@pytest.mark.parametrize(
    "charsets", ["", "utf-8", "[]", "null", '{"text": 5}', '{"text": null}', "[" * 100_000]
)
async def test_charsets_that_cannot_be_read_cost_no_message(gateway: Gateway, charsets: str) -> None:
    assert (await gateway.mail({**MAIL, "charsets": charsets})).message.body == "<p>Hello!</p>"


@pytest.mark.parametrize(
    ("header", "sender"),
    [
        ("Ann Example <ann@example.com>", "ann@example.com"),
        ("ann@example.com", "ann@example.com"),
        ("Ann @ Example, Inc. <ann@example.com>", "ann@example.com"),
        ("x" * 500 + " <Ann@example.com>", "Ann@example.com"),
        ("MAILER-DAEMON", "bounces@example.com"),
        ("", "bounces@example.com"),
        ("<>", "bounces@example.com"),
    ],
)
async def test_who_wrote_a_mail(gateway: Gateway, header: str, sender: str) -> None:
    assert (await gateway.mail({**MAIL, "from": header})).message.from_ == sender


async def test_a_mail_is_one_message_for_each_address_it_was_delivered_to(gateway: Gateway) -> None:
    envelope = '{"to": ["us@example.org", "Ben@example.org", "US@example.org"], "from": ""}'
    inbound = await gateway.inbound(SENDGRID_INBOUND, multipart({**MAIL, "envelope": envelope}), MULTIPART)

    assert [each.message.to for each in inbound] == ["US@example.org", "Ben@example.org"]
    assert len({each.message.conversation_key for each in inbound}) == 2
    assert len({each.message.id for each in inbound}) == 2


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"spam_score": "0.1"}, True),
        ({"headers": "X: y\nMessage-Id:\n <1@example.com>\n"}, True),
        ({"headers": "Message-ID: <2@example.com>\n"}, False),
        ({"headers": "Message-ID:\nSubject: <1@example.com>\n"}, False),
        ({"headers": ""}, False),
        ({"envelope": '{"to": ["us@example.org"], "from": "eve@example.com"}'}, False),
        ({"envelope": '{"to": ["them@example.org"], "from": "bounces@example.com"}'}, False),
    ],
)
async def test_a_mail_is_told_by_its_message_id_and_its_envelope(
    gateway: Gateway, changes: dict[str, str], *, same: bool
) -> None:
    await gateway.mail(MAIL)
    [first, second] = await gateway.inbound(SENDGRID_INBOUND, multipart({**MAIL, **changes}), MULTIPART)

    assert (first.message.id == second.message.id) is same


async def test_a_mail_without_a_message_id_is_one_message(gateway: Gateway) -> None:
    for _ in range(2):
        [*inbound] = await gateway.inbound(SENDGRID_INBOUND, multipart(without(MAIL, "headers")), MULTIPART)

    assert inbound[0].message.id == inbound[1].message.id


async def test_of_files_their_description_is_kept(gateway: Gateway) -> None:
    files = {
        "attachment1": ("C:\\temp\\offer.pdf", "application/pdf", b"\x00\xff" * 500),
        "attachment2": ("../../etc/passwd", "text/plain", b""),
    }
    inbound = await gateway.mail(MAIL, files=files)

    assert inbound.message.attachments == []
    assert inbound.raw["files"] == [
        {"field": "attachment1", "name": "offer.pdf", "type": "application/pdf", "size": 1_000},
        {"field": "attachment2", "name": "passwd", "type": "text/plain", "size": 0},
    ]


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"html": "<p>" + "x" * 2_000_000, "text": "short"}, "short"),
        ({"html": "é" * 1_000_000, "text": "\x00" * 1_000_000}, "é" * 1_000),
        ({"html": "\x01" * 400_000, "text": "\\" * 400_000}, "\ufffd" * 1_000),
        ({"html": '"' * 150_000, "text": "x" * 100_000}, "x" * 1_000),
        ({f"field{number}": "\x01" * 20_000 for number in range(80)}, "<p>Hello!</p>"),
    ],
)
async def test_what_is_too_large_is_cut_and_the_message_is_not_lost(
    gateway: Gateway, fields: dict[str, str], body: str
) -> None:
    inbound = await gateway.mail({**MAIL, **fields})

    assert inbound.message.body.startswith(body)
    assert inbound.raw["cut"]
    assert set(inbound.raw["cut"]) <= set(fields)
    assert inbound.raw["fields"]["envelope"] == MAIL["envelope"]


async def test_a_mail_of_thirty_megabytes_is_taken_and_no_larger_one(gateway: Gateway) -> None:
    room = 30 * 1024 * 1024 - 4 * 1024
    largest = multipart(MAIL, {"attachment1": ("a", "b/c", b"\r\n--xYz" * (room // 7))})
    await gateway.inbound(SENDGRID_INBOUND, largest, MULTIPART)

    assert (await gateway.post(SENDGRID_INBOUND, largest + b" " * 5_000, MULTIPART)).status_code == 413


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        *(({"envelope": envelope}, "envelope") for envelope in
          ("", "{}", "[]", "null", '{"to": []}', '{"to": "us@example.org"}', '{"to": [5]}', "[" * 100_000,
           json.dumps({"to": [f"u{number}@example.org" for number in range(101)]}))),
        ({"envelope": '{"to": ["nobody"]}'}, "to"),
        ({"from": "nobody", "envelope": '{"to": ["us@example.org"], "from": ""}'}, "from"),
    ],
)  # fmt: skip
async def test_a_mail_from_or_to_nobody_is_refused(
    gateway: Gateway, changes: dict[str, str], fault: str
) -> None:
    response = await gateway.post(SENDGRID_INBOUND, multipart({**MAIL, **changes}), MULTIPART)

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [fault]


@pytest.mark.parametrize("field", ["from", "envelope"])
async def test_a_mail_without_a_field_is_refused(gateway: Gateway, field: str) -> None:
    response = await gateway.post(SENDGRID_INBOUND, multipart(without(MAIL, field)), MULTIPART)

    assert response.status_code == 422


@pytest.mark.parametrize("field", ["from", "envelope", "subject", "html", "text", "headers"])
async def test_a_mail_with_a_field_twice_is_refused(gateway: Gateway, field: str) -> None:
    twice = multipart({field: "x"}).removesuffix(f"--{BOUNDARY}--\r\n".encode()) + multipart(MAIL)
    response = await gateway.post(SENDGRID_INBOUND, twice, MULTIPART)

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]


WHOLE = multipart(MAIL)
PART = f"--{BOUNDARY}\r\n".encode()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", MULTIPART),
        (b"garbage", MULTIPART),
        (WHOLE[:-10], MULTIPART),
        (WHOLE[: len(WHOLE) // 2], MULTIPART),
        (WHOLE, {"content-type": "multipart/form-data"}),
        (WHOLE, {"content-type": "multipart/form-data; boundary="}),
        (WHOLE, {"content-type": "multipart/form-data; boundary=other"}),
        (WHOLE, {"content-type": "multipart/form-data; boundary=" + "x" * 300}),
        (PART + b"\r\nvalue\r\n" + WHOLE, MULTIPART),
        (PART + b'Content-Disposition: form-data; name="' + b"x" * 101 + b'"\r\n\r\n\r\n' + WHOLE, MULTIPART),
        (multipart({f"field{number}": "" for number in range(101)}), MULTIPART),
        (multipart(MAIL, {f"file{number}": ("a", "b", b"") for number in range(1_001)}), MULTIPART),
    ],
)
async def test_a_malformed_form_is_refused(
    gateway: Gateway, body: bytes, content_type: dict[str, str]
) -> None:
    assert (await gateway.post(SENDGRID_INBOUND, body, content_type)).status_code == 400


# --- SendGrid's events --------------------------------------------------------------------------------


async def test_a_delivered_mail(gateway: Gateway) -> None:
    [receipt] = await gateway.events(DELIVERED)

    assert (receipt.provider, receipt.provider_message_id) == ("sendgrid", "X-1")
    assert str(receipt.message_id) == DELIVERED["message_id"]
    assert (receipt.status, receipt.error_code, receipt.error_detail) == (Status.DELIVERED, None, None)
    assert receipt.occurred_at == datetime(2024, 11, 1, 14, tzinfo=UTC)
    assert receipt.raw == DELIVERED


@pytest.mark.parametrize(
    ("event", "code", "detail"),
    [
        (
            {"event": "bounce", "status": "5.1.1", "reason": "550 no\r\n such user"},
            "5.1.1",
            "550 no such user",
        ),
        ({"event": "bounce", "type": "blocked"}, "bounce", None),
        ({"event": "dropped", "reason": "Bounced Address"}, "dropped", "Bounced Address"),
        ({"event": "dropped", "status": ["?"], "reason": {"a": 1}}, "['?']", "{'a': 1}"),
        ({"event": "bounce", "status": "x" * 99, "reason": "\x00y" * 900}, "x" * 64, "\ufffdy" * 250),
    ],
)
async def test_an_undelivered_mail_and_why(
    gateway: Gateway, event: dict[str, Any], code: str, detail: str | None
) -> None:
    [receipt] = await gateway.events({**DELIVERED, **event})

    assert (receipt.status, receipt.error_code, receipt.error_detail) == (Status.UNDELIVERED, code, detail)


@pytest.mark.parametrize(
    "kind",
    ["processed", "deferred", "open", "click", "spamreport", "unsubscribe", "group_unsubscribe",
     "group_resubscribe", "something new"],
)  # fmt: skip
async def test_other_events_are_taken_and_kept_nowhere(gateway: Gateway, kind: str) -> None:
    assert await gateway.events({**DELIVERED, "event": kind}, {"event": kind}) == []


WHEN = datetime(2024, 11, 1, 14, tzinfo=UTC)
"""Of the events below, unless they say otherwise."""


@pytest.mark.parametrize(
    ("event", "state", "source"),
    [
        ({"event": "bounce", "type": "bounce"}, "opted_out", "bounce"),
        ({"event": "bounce"}, "opted_out", "bounce"),
        ({"event": "bounce", "sg_message_id": None, "message_id": None}, "opted_out", "bounce"),
        ({"event": "dropped", "reason": "Bounced Address"}, "opted_out", "bounce"),
        ({"event": "dropped", "reason": "Unsubscribed Address"}, "opted_out", "unsubscribe"),
        ({"event": "spamreport"}, "opted_out", "spam_report"),
        ({"event": "unsubscribe"}, "opted_out", "unsubscribe"),
        ({"event": "group_unsubscribe"}, "opted_out", "unsubscribe"),
        ({"event": "group_resubscribe"}, "opted_in", "resubscribe"),
    ],
)
async def test_an_event_tells_who_wants_nothing_more_of_any_of_us(
    gateway: Gateway, event: dict[str, Any], state: str, source: str
) -> None:
    for _ in range(2):
        await gateway.events({**DELIVERED, "email": "Ann@Example.com", **event})

    [change] = gateway.changes()
    assert (change.channel, change.ours, change.theirs) == (Channel.EMAIL, None, "ann@example.com")
    assert (change.state, change.source, change.occurred_at) == (state, source, WHEN)


@pytest.mark.parametrize(
    "event",
    [
        {"event": "bounce", "type": "blocked"},
        {"event": "dropped", "reason": "Invalid"},
        {"event": "delivered"},
        {"event": "unsubscribe", "email": "nobody"},
        {"event": "unsubscribe", "email": None},
    ],
)
async def test_an_event_that_tells_nothing_of_consent(gateway: Gateway, event: dict[str, Any]) -> None:
    await gateway.events({**DELIVERED, **event})

    assert gateway.changes() == []


async def test_an_event_from_the_future_does_not_stand_in_the_way_of_later_ones(gateway: Gateway) -> None:
    await gateway.events({**DELIVERED, "event": "spamreport", "timestamp": int(NOW.timestamp()) + 1_000})

    assert [change.occurred_at for change in gateway.changes()] == [NOW]


@pytest.mark.parametrize(
    ("form", "states"),
    [
        ({"Body": "STOP"}, ["opted_out"]),
        ({"Body": "adieu", "OptOutType": "STOP"}, ["opted_out"]),
        ({"Body": "stop it", "OptOutType": ""}, []),
        ({"Body": "UNSTOP"}, ["opted_in"]),
        ({"Body": "yes"}, []),
        ({"Body": "STOP", "OptOutType": "HELP"}, []),
        ({"Body": "Info"}, []),
    ],
)
async def test_a_text_to_twilio_that_is_a_keyword(
    gateway: Gateway, form: dict[str, str], states: list[str]
) -> None:
    await gateway.sms(**form)

    assert [change.state for change in gateway.changes()] == states
    assert {(change.ours, change.theirs) for change in gateway.changes()} <= {(SMS["To"], SMS["From"])}


async def test_an_event_is_told_by_its_id(gateway: Gateway) -> None:
    again = {**DELIVERED, "timestamp": 1}
    other = {**DELIVERED, "sg_event_id": "event-2"}
    await gateway.events(DELIVERED, again, other)

    first, second, third = [outgoing.id for outgoing in gateway.stream.published]
    assert first == second != third


@pytest.mark.parametrize("own_id", [None, 5, "", "order-5", ["x"], "\u0000"])
async def test_an_id_that_is_none_of_ours_does_no_harm(gateway: Gateway, own_id: object) -> None:
    [receipt] = await gateway.events({**DELIVERED, "message_id": own_id})

    assert receipt.message_id is None


async def test_an_event_may_come_without_sendgrids_own_id(gateway: Gateway) -> None:
    [receipt] = await gateway.events({**DELIVERED, "sg_message_id": None})

    assert str(receipt.message_id) == DELIVERED["message_id"]


BAD_EVENTS: list[object] = [
    None,
    5,
    "delivered",
    [],
    {},
    {**DELIVERED, "event": None},
    {**DELIVERED, "event": ["delivered"]},
    {**DELIVERED, "sg_message_id": 5},
    {**DELIVERED, "sg_message_id": "", "message_id": None},
    {**DELIVERED, "sg_event_id": 5},
    {**DELIVERED, "sg_event_id": "a\nb"},
    {**DELIVERED, "timestamp": "now"},
    {**DELIVERED, "timestamp": True},
    {**DELIVERED, "timestamp": 1.5},
    {**DELIVERED, "timestamp": 10**30},
    {**DELIVERED, "timestamp": 10**12},
    {**DELIVERED, "extra": "\ud800"},
    {"event": "open", "\ud800": 1},
    {**DELIVERED, "extra": "x" * 300_000},
]


@pytest.mark.parametrize("bad", BAD_EVENTS, ids=str)
async def test_a_bad_event_keeps_the_others_and_is_counted(gateway: Gateway, bad: object) -> None:
    def counted() -> float:
        labels = {"provider": "sendgrid", "reason": "invalid_event"}
        return REGISTRY.get_sample_value("messaging_webhooks_refused_total", labels) or 0

    before = counted()
    response = await gateway.post(
        SENDGRID_EVENTS, events(DELIVERED, bad, {**DELIVERED, "sg_event_id": "2"}), JSON
    )

    assert (response.status_code, response.json()) == (
        200,
        {"receipts": 2, "suppressions": 0, "invalid": 1},
    )
    assert len(gateway.stream.published) == 2
    assert counted() == before + 1


@pytest.mark.parametrize("body", [b"{}", b"null", b"5", b'"x"'])
async def test_events_come_as_an_array(gateway: Gateway, body: bytes) -> None:
    assert (await gateway.post(SENDGRID_EVENTS, body, JSON)).status_code == 422


async def test_a_batch_of_events_may_be_larger_than_other_webhooks(gateway: Gateway) -> None:
    batch = [{**DELIVERED, "sg_event_id": f"event-{number}", "url": "x" * 500} for number in range(900)]

    assert len(await gateway.events(*batch)) == 900


# --- Anything at all ----------------------------------------------------------------------------------

anything = st.text(st.characters(codec="utf-8"), max_size=30)
some_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | anything,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
    max_leaves=8,
)
fuzzed = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def changed(fields: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """These fields, with some of them left out or replaced and others added."""
    return st.builds(
        lambda dropped, replaced, added: {
            **{name: value for name, value in fields.items() if name not in dropped},
            **replaced,
            **added,
        },
        st.sets(st.sampled_from(sorted(fields)), max_size=2),
        st.dictionaries(st.sampled_from(sorted(fields)), anything, max_size=3),
        st.dictionaries(anything, anything, max_size=2),
    )


async def check(gateway: Gateway, path: str, body: bytes, headers: Mapping[Any, Any]) -> None:
    gateway.stream.published.clear()
    response = await gateway.post(path, body, headers)
    assert response.status_code < 500, response.text
    assert response.is_success or gateway.stream.published == []
    for data in gateway.stream.data():
        assert isinstance(data, DeliveryReceipt) or (data.message.from_ and data.message.to)


@fuzzed
@given(st.binary(max_size=200) | changed({**SMS, "MediaUrl0": "https://a.example"}).map(urlencoded))
async def test_no_form_is_too_much(gateway: Gateway, body: bytes) -> None:
    await check(gateway, TWILIO_MESSAGES, body, FORM)


@fuzzed
@given(st.binary(max_size=200) | changed({**STATUS, "ErrorCode": "30003"}).map(urlencoded))
async def test_no_callback_is_too_much(gateway: Gateway, body: bytes) -> None:
    await check(gateway, TWILIO_STATUS, body, FORM)


@fuzzed
@given(changed(MAIL), st.text(max_size=20), st.binary(max_size=50), st.text(max_size=20))
async def test_no_mail_is_too_much(
    gateway: Gateway, fields: dict[str, str], charset: str, text: bytes, name: str
) -> None:
    charsets = json.dumps({"text": charset, "html": charset, "from": charset})
    escaped = {name.encode().hex(): value for name, value in fields.items() if name not in MAIL}
    known = {name: value for name, value in fields.items() if name in MAIL}
    file = (name.encode(errors="replace").hex(), "a/b", text)
    body = multipart({**known, **escaped, "charsets": charsets, "text": text}, {"file": file})
    await check(gateway, SENDGRID_INBOUND, body, MULTIPART)


@fuzzed
@given(st.integers(0, len(WHOLE)), st.binary(max_size=8), st.integers(0, 20))
async def test_no_broken_mail_is_too_much(
    gateway: Gateway, position: int, added: bytes, left_out: int
) -> None:
    await check(gateway, SENDGRID_INBOUND, WHOLE[:position] + added + WHOLE[position + left_out :], MULTIPART)


@fuzzed
@given(st.text(st.characters(codec="latin-1", exclude_characters="\r\n\x00"), max_size=60))
async def test_no_content_type_is_too_much(gateway: Gateway, parameters: str) -> None:
    content_type = f"multipart/form-data; boundary={parameters}".encode("latin-1")
    await check(gateway, SENDGRID_INBOUND, WHOLE, {"content-type": content_type})


@fuzzed
@given(st.lists(some_json | st.dictionaries(st.sampled_from(sorted(DELIVERED)), some_json), max_size=4))
async def test_no_event_is_too_much(gateway: Gateway, batch: list[Any]) -> None:
    await check(gateway, SENDGRID_EVENTS, json.dumps(batch).encode(), JSON)
