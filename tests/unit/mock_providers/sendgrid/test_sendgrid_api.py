"""SendGrid's API, as its official SDK and the SDK's signature verifier see it."""

import asyncio
import json
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from email import message_from_bytes
from random import Random
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from python_http_client import exceptions
from sendgrid import SendGridAPIClient
from sendgrid.helpers.eventwebhook import EventWebhook
from sendgrid.helpers.mail import Mail

from mock_providers.app import create_app
from mock_providers.registry import EMAIL
from mock_providers.sendgrid import api
from mock_providers.sendgrid.signature import decode_private_key, encode_public_key, new_private_key
from mock_providers.server import listen, serving, url_of
from mock_providers.webhooks import Gateway
from tests.unit.mock_providers.conftest import Mocks, Webhook

PERSON = {"email": "customer@example.com", "name": "Casey"}


def mail(**changes: object) -> dict[str, Any]:
    """Return a mail, without the fields that are changed to None."""
    fields = {
        "personalizations": [{"to": [PERSON]}],
        "from": {"email": "office@example.org", "name": "The office"},
        "subject": "Tomorrow",
        "content": [{"type": "text/html", "value": "<p>See you at nine</p>"}],
        "custom_args": {"message": uuid4().hex},
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not None}


async def send(mocks: Mocks, message: object, key: str | None = None) -> Any:  # noqa: ANN401 - the client has no types
    client = SendGridAPIClient(key or mocks.sendgrid.sendgrid_api_key, host=mocks.email.url)
    return await asyncio.to_thread(client.send, message)


def events_of(message: dict[str, Any]) -> Callable[[Webhook], bool]:
    return lambda webhook: message["custom_args"]["message"].encode() in webhook.body


class TestSending:
    async def test_a_mail_is_accepted(self, mocks: Mocks) -> None:
        message = mail()
        response = await send(mocks, message)
        assert (response.status_code, response.body) == (202, b"")
        (item,) = await mocks.email.messages()
        assert (item["id"], item["payload"]) == (response.headers["X-Message-Id"], message)
        assert item["idempotency_key"] is None

    async def test_a_mail_built_by_the_sdk(self, mocks: Mocks) -> None:
        response = await send(
            mocks, Mail("office@example.org", "customer@example.com", "Hi", "text", "<p>html</p>")
        )
        assert response.status_code == 202

    async def test_a_repeated_request_is_another_mail(self, mocks: Mocks) -> None:
        message = mail()
        assert len({(await send(mocks, message)).headers["X-Message-Id"] for _ in range(3)}) == 3
        assert await mocks.email.stats() == {"requests": 3, "accepted": 3, "refused": 0, "repeated_keys": 0}

    @pytest.mark.parametrize(
        "changes",
        [
            {"subject": None, "personalizations": [{"to": [PERSON], "subject": "Of its own"}]},
            {"subject": None, "content": None, "template_id": "d-1"},
            {"content": [{"type": kind, "value": "x"} for kind in ("text/plain", "text/html")]},
            {"reply_to": PERSON, "categories": ["a", "b"], "headers": {"In-Reply-To": "<1@example.org>"}},
            {
                "attachments": [
                    {"content": "aGk=", "filename": "a.txt", "type": "text/plain", "disposition": "inline"}
                ]
            },
            {"personalizations": [{"to": [{"email": f"a{n}@example.com"}]} for n in range(1000)]},
            {"send_at": 1_900_000_000, "tracking_settings": {"click_tracking": {"enable": False}}},
        ],
    )
    async def test_valid_mails(self, mocks: Mocks, changes: dict[str, Any]) -> None:
        await mocks.email.behave(outcome="processed")
        assert (await send(mocks, mail(**changes))).status_code == 202

    async def test_sandbox_mode_reports_nothing(self, mocks: Mocks) -> None:
        sandboxed, later = mail(mail_settings={"sandbox_mode": {"enable": True}}), mail()
        response = await send(mocks, sandboxed)
        assert (response.status_code, response.body, response.headers["X-Message-Id"]) == (200, b"", None)
        await send(mocks, later)
        await mocks.receiver.wait_for(2, events_of(later))
        assert not [*filter(events_of(sandboxed), mocks.receiver.received)]


class TestErrors:
    @pytest.mark.parametrize(
        ("changes", "fields"),
        [
            ({"from": None, "personalizations": None, "content": None}, ["personalizations", "from.email"]),
            ({"from": {"name": "nobody"}}, ["from.email"]),
            ({"from": {"email": "nobody"}}, ["from.email"]),
            ({"from": "office@example.org"}, ["from"]),
            ({"personalizations": []}, ["personalizations"]),
            ({"personalizations": [{"to": [PERSON]}] * 1001}, ["personalizations"]),
            ({"personalizations": [{}]}, ["personalizations.0.to"]),
            ({"personalizations": [{"to": []}]}, ["personalizations.0.to"]),
            ({"personalizations": [{"to": [{"name": "x"}]}]}, ["personalizations.0.to.0.email"]),
            ({"personalizations": [{"to": [{"email": "x"}]}]}, ["personalizations.0.to.0.email"]),
            ({"personalizations": [{"to": [PERSON], "cc": [PERSON]}]}, ["personalizations.0"]),
            (
                {"personalizations": [{"to": [PERSON], "custom_args": {"n": 1}}]},
                ["personalizations.0.custom_args.n"],
            ),
            ({"custom_args": {"n": "x" * 10_000}}, ["personalizations.0.custom_args"]),
            ({"subject": None}, ["subject"]),
            ({"content": None}, ["content"]),
            ({"content": [{"type": "text/html", "value": ""}]}, ["content.0.value"]),
            ({"content": [{"value": "x"}]}, ["content.0.type"]),
            (
                {"content": [{"type": kind, "value": "x"} for kind in ("text/html", "text/plain")]},
                ["content"],
            ),
            ({"attachments": [{"content": "äöü", "filename": "a"}]}, ["attachments.0.content"]),
            ({"attachments": [{"content": "aGk="}]}, ["attachments.0.filename"]),
            ({"categories": ["x"] * 11}, ["categories"]),
            ({"subject": None, "content": None}, ["subject", "content"]),
        ],
    )
    async def test_invalid_mails(self, mocks: Mocks, changes: dict[str, Any], fields: list[str]) -> None:
        with pytest.raises(exceptions.BadRequestsError) as caught:
            await send(mocks, mail(**changes))
        errors = caught.value.to_dict["errors"]
        assert [error["field"] for error in errors] == fields
        assert all(error.keys() == {"message", "field", "help"} and error["message"] for error in errors)
        assert await mocks.email.messages() == []
        assert (await mocks.email.stats())["refused"] == 1

    @pytest.mark.parametrize(
        ("content", "headers", "status"),
        [
            (b"{", {"content-type": "application/json"}, 400),
            (b"", {"content-type": "application/json"}, 400),
            (b"\xff", {"content-type": "application/json"}, 400),
            (b"a=b", {"content-type": "application/x-www-form-urlencoded"}, 415),
            (b"{}", {"content-type": "application/json", "authorization": "SG.mock"}, 401),
            (b"{}", {"content-type": "application/json", "authorization": "Bearer ü".encode()}, 401),
        ],
    )
    async def test_invalid_requests(
        self, mocks: Mocks, content: bytes, headers: dict[str, Any], status: int
    ) -> None:
        authorized = {"authorization": f"Bearer {mocks.sendgrid.sendgrid_api_key}"} | headers
        response = await mocks.http.post(
            f"{mocks.email.url}/v3/mail/send", content=content, headers=authorized
        )
        assert response.status_code == status
        (error,) = response.json()["errors"]
        assert error == {"message": error["message"], "field": None, "help": None}

    async def test_a_wrong_api_key(self, mocks: Mocks) -> None:
        with pytest.raises(exceptions.UnauthorizedError) as caught:
            await send(mocks, mail(), key="SG.guess")
        assert caught.value.to_dict["errors"][0]["field"] is None

    async def test_a_mail_that_is_too_large(self, mocks: Mocks) -> None:
        with pytest.raises(exceptions.PayloadTooLargeError) as caught:
            await send(mocks, mail(subject="x" * api.MAX_BYTES))
        assert caught.value.headers["Content-Type"].startswith("text/html")
        assert b"<html>" in caught.value.body

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (400, exceptions.BadRequestsError),
            (401, exceptions.UnauthorizedError),
            (403, exceptions.ForbiddenError),
            (404, exceptions.NotFoundError),
            (429, exceptions.TooManyRequestsError),
            (500, exceptions.InternalServerError),
            (503, exceptions.ServiceUnavailableError),
            (504, exceptions.GatewayTimeoutError),
        ],
    )
    async def test_simulated_errors(
        self, mocks: Mocks, status: int, error: type[exceptions.HTTPError]
    ) -> None:
        await mocks.email.behave(status=status, times=1)
        with pytest.raises(error) as caught:
            await send(mocks, mail())
        (fault,) = caught.value.to_dict["errors"]
        assert fault.keys() == {"message", "field", "help"}
        assert (await send(mocks, mail())).status_code == 202
        assert await mocks.email.stats() == {"requests": 2, "accepted": 1, "refused": 1, "repeated_keys": 0}

    async def test_simulated_html_errors(self, mocks: Mocks) -> None:
        for behaviour in ({"status": 413}, {"status": 500, "html": True}):
            await mocks.email.behave(**behaviour)
            with pytest.raises(exceptions.HTTPError) as caught:
                await send(mocks, mail())
            assert caught.value.headers["Content-Type"].startswith("text/html")

    @pytest.mark.parametrize("given", [None, 7, "Wed, 21 Oct 2026 07:28:00 GMT"])
    async def test_a_rate_limit_says_when_it_resets(self, mocks: Mocks, given: int | str | None) -> None:
        await mocks.email.behave(status=429, retry_after=given)
        before = int(time.time())
        with pytest.raises(exceptions.TooManyRequestsError) as caught:
            await send(mocks, mail())
        headers = caught.value.headers
        assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("600", "0")
        assert headers["Retry-After"] is None
        wait = 60 if given is None else given
        first, last = (1792567680,) * 2 if isinstance(wait, str) else (before + wait, int(time.time()) + wait)
        assert first <= int(headers["X-RateLimit-Reset"]) <= last

    async def test_an_ambiguous_failure_accepts_the_mail(self, mocks: Mocks) -> None:
        await mocks.email.behave(ambiguous=True, times=1)
        with pytest.raises(ConnectionError):
            await send(mocks, mail())
        assert len(await mocks.email.messages()) == 1


class TestEvents:
    @pytest.mark.parametrize(
        ("outcome", "reported"),
        [
            (None, ["processed", "delivered"]),
            ("processed", ["processed"]),
            ("delivered", ["processed", "delivered"]),
            ("deferred", ["processed", "deferred"]),
            ("bounce", ["processed", "bounce"]),
            ("dropped", ["dropped"]),
            ("spamreport", ["processed", "delivered", "spamreport"]),
            ("unsubscribe", ["processed", "delivered", "unsubscribe"]),
        ],
    )
    async def test_the_events_of_each_outcome(
        self, mocks: Mocks, outcome: str | None, reported: list[str]
    ) -> None:
        await mocks.email.behave(outcome=outcome)
        message = mail(
            personalizations=[
                {
                    "to": [PERSON],
                    "cc": [{"email": "b@example.com"}],
                    "custom_args": {"place": "here", "event": "x"},
                },
                {"to": [{"email": "c@example.com"}]},
            ],
            categories=["reminder"],
        )
        message["custom_args"] |= {"place": "there"}
        response = await send(mocks, message)
        webhooks = await mocks.receiver.wait_for(len(reported), events_of(message))
        batches = [json.loads(webhook.body) for webhook in webhooks]
        assert [[event["event"] for event in batch] for batch in batches] == [[kind] * 3 for kind in reported]
        for batch in batches:
            assert [(event["email"], event["place"]) for event in batch] == [
                (PERSON["email"], "here"),
                ("b@example.com", "here"),
                ("c@example.com", "there"),
            ]
        events = [event for batch in batches for event in batch]
        assert all(event["message"] == message["custom_args"]["message"] for event in events)
        assert all(event["category"] == ["reminder"] for event in events)
        assert len({event["sg_event_id"] for event in events}) == len(events)
        begin = response.headers["X-Message-Id"]
        assert {event["sg_message_id"].startswith(begin) for event in events} == {outcome != "dropped"}
        assert {webhook.path for webhook in webhooks} == {api.EVENTS_PATH}

    async def test_events_are_signed(self, mocks: Mocks) -> None:
        message = mail()
        await send(mocks, message)
        key = (await mocks.http.get(f"{mocks.email.url}/mock/sendgrid/public-key")).text
        for webhook in await mocks.receiver.wait_for(2, events_of(message)):
            assert_signature_covers_everything(key, webhook)

    async def test_events_are_sent_until_the_gateway_accepts_them(
        self, mocks: Mocks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(api, "RETRY_DELAYS", (0, 0, 0))
        await mocks.email.behave(outcome="processed")
        message, statuses = mail(), [503, 500]
        mine = events_of(message)
        mocks.receiver.answer = lambda webhook: statuses.pop(0) if mine(webhook) and statuses else 200
        await send(mocks, message)
        sent = await mocks.receiver.wait_for(3, mine)
        assert len({webhook.body for webhook in sent}) == 1

    async def test_reports_stop_with_the_server(self) -> None:
        listener = listen("127.0.0.1", 0)
        async with httpx.AsyncClient(trust_env=False) as http:
            app = create_app(EMAIL, Gateway(http, "http://127.0.0.1:1"), Random(1))
            before = asyncio.all_tasks()
            async with serving({listener: app}):
                answer = await http.post(
                    f"{url_of(listener)}/v3/mail/send",
                    json=mail(),
                    headers={"Authorization": "Bearer SG.mock"},
                )
                assert answer.status_code == 202
            assert asyncio.all_tasks() <= before

    async def test_events_on_request(self, mocks: Mocks) -> None:
        given = [{"event": "bounce", "type": "blocked", "sg_event_id": "1"}, {"email": 5}]
        answer = await mocks.http.post(f"{mocks.email.url}/mock/sendgrid/events", json=given)
        (webhook,) = await mocks.receiver.wait_for(1, lambda webhook: b"blocked" in webhook.body)
        assert answer.json() == {"status": 200, "payload": json.loads(webhook.body), "response": ""}
        bounced, made_up = json.loads(webhook.body)
        assert bounced == bounced | given[0]
        assert (made_up["event"], made_up["email"]) == ("delivered", 5)
        assert_signature_covers_everything(
            encode_public_key(mocks.sendgrid.sendgrid_webhook_private_key), webhook
        )

    async def test_a_receipt_is_an_event_for_each_recipient(self, mocks: Mocks) -> None:
        await mocks.email.behave(outcome="processed")
        message = mail(personalizations=[{"to": [PERSON], "cc": [{"email": "b@example.com"}]}])
        message_id = (await send(mocks, message)).headers["X-Message-Id"]
        await mocks.receiver.wait_for(1, events_of(message))
        events = await self.receipt(
            mocks,
            provider_message_id=message_id,
            status="bounce",
            error_code="5.2.2",
            timestamp="2026-03-01T08:00:00Z",
        )
        assert [event["email"] for event in events] == [PERSON["email"], "b@example.com"]
        for event in events:
            assert event["sg_message_id"].startswith(message_id)
            assert event == event | {
                "event": "bounce",
                "status": "5.2.2",
                "timestamp": 1772352000,
                "message": message["custom_args"]["message"],
            }

    async def test_a_receipt_of_an_unknown_mail_is_one_event(self, mocks: Mocks) -> None:
        (event,) = await self.receipt(mocks, provider_message_id="unknown", status="delivered")
        assert event["event"] == "delivered"
        assert event["sg_message_id"].startswith("unknown")
        assert event["timestamp"] == pytest.approx(time.time(), abs=60)

    async def receipt(self, mocks: Mocks, **receipt: object) -> list[dict[str, Any]]:
        answer = await mocks.http.post(
            f"{mocks.email.url}/mock/receipts", params={"provider": "sendgrid"}, json=receipt
        )
        assert (answer.status_code, answer.json()["status"]) == (200, 200)
        events: list[dict[str, Any]] = answer.json()["payload"]
        assert json.loads(mocks.receiver.received[-1].body) == events
        return events

    @pytest.mark.parametrize("timestamp", ["yesterday", "2026-03-01T08:00:00"])
    async def test_a_receipt_needs_a_timestamp_with_an_offset(self, mocks: Mocks, timestamp: str) -> None:
        answer = await mocks.http.post(
            f"{mocks.email.url}/mock/receipts",
            params={"provider": "sendgrid"},
            json={"provider_message_id": "1", "status": "delivered", "timestamp": timestamp},
        )
        assert answer.status_code == 422


class TestInbound:
    async def receive(self, mocks: Mocks, given: dict[str, Any]) -> tuple[Webhook, dict[str, Any]]:
        """Return the webhook and the parts of its form."""
        answer = await mocks.http.post(f"{mocks.email.url}/mock/sendgrid/inbound", json=given)
        assert (answer.status_code, answer.json()["status"]) == (200, 200)
        (webhook,) = await mocks.receiver.wait_for(1, lambda webhook: webhook.path == api.INBOUND_PATH)
        head = f"Content-Type: {webhook.headers['content-type']}\r\n\r\n".encode()
        parts = message_from_bytes(head + webhook.body).get_payload()
        assert isinstance(parts, list)
        return webhook, {part.get_param("name", header="content-disposition"): part for part in parts}  # type: ignore[union-attr, misc]  # a multipart message has messages

    async def test_an_example_mail(self, mocks: Mocks) -> None:
        webhook, parts = await self.receive(mocks, {})
        texts = {name: part.get_payload(decode=True).decode() for name, part in parts.items()}
        assert texts.keys() >= {"headers", "from", "to", "subject", "text", "dkim", "SPF", "spam_score"}
        assert "attachment-info" not in texts
        assert json.loads(texts["envelope"]) == {"to": ["office@example.org"], "from": "customer@example.com"}
        assert json.loads(texts["charsets"])["text"] == "UTF-8"
        assert texts["attachments"] == "0"
        assert "Message-ID: <" in texts["headers"]
        assert_signature_covers_everything(
            encode_public_key(mocks.sendgrid.sendgrid_webhook_private_key), webhook
        )

    async def test_given_fields_are_sent_unchanged(self, mocks: Mocks) -> None:
        given = {
            "from": "Jürgen <j@example.com>",
            "to": "A <a@example.org>, b@example.org",
            "text": None,
            "html": "<p>Grüße</p>",
            "headers": "Message-ID: <1@example.com>\n",
            "envelope": '{"to":["hidden@example.org"],"from":"bounce@example.com"}',
            "charsets": {"html": "iso-8859-1", "subject": "utf-16"},
            "subject": "Größe",
            "spam_report": "none",
        }
        _, parts = await self.receive(mocks, given)
        raw = {name: part.get_payload(decode=True) for name, part in parts.items()}
        assert "text" not in raw
        assert raw["html"] == "<p>Grüße</p>".encode("iso-8859-1")
        assert raw["subject"].decode("utf-16") == "Größe"
        assert raw["from"] == "Jürgen <j@example.com>".encode()
        assert json.loads(raw["charsets"]) == {
            "to": "UTF-8",
            "from": "UTF-8",
            "subject": "utf-16",
            "html": "iso-8859-1",
        }
        for name in ("headers", "envelope", "spam_report"):
            assert raw[name].decode() == given[name]

    async def test_a_body_in_another_charset_is_signed(self, mocks: Mocks) -> None:
        webhook, _ = await self.receive(mocks, {"text": "Grüße", "charsets": {"text": "iso-8859-1"}})
        timestamp = webhook.headers["x-twilio-email-event-webhook-timestamp"].encode()
        signature = b64decode(webhook.headers["x-twilio-email-event-webhook-signature"])
        key = mocks.sendgrid.sendgrid_webhook_private_key.public_key()
        key.verify(signature, timestamp + webhook.body, ec.ECDSA(hashes.SHA256()))
        with pytest.raises(InvalidSignature):
            key.verify(signature, timestamp + webhook.body.replace(b"\xfc", b"u"), ec.ECDSA(hashes.SHA256()))

    async def test_attachments(self, mocks: Mocks) -> None:
        content = bytes(range(256))
        files = [
            {
                "filename": "../évil.png",
                "type": "image/png",
                "content": b64encode(content).decode(),
                "content_id": "c",
            },
            {"filename": "empty.bin", "content": ""},
        ]
        _, parts = await self.receive(mocks, {"attachments": files})
        info = json.loads(parts["attachment-info"].get_payload(decode=True))
        assert parts["attachments"].get_payload(decode=True) == b"2"
        assert info["attachment1"] == {
            "filename": "../évil.png",
            "name": "../évil.png",
            "type": "image/png",
            "content_id": "c",
        }
        assert info["attachment2"]["type"] == "application/octet-stream"
        assert parts["attachment1"].get_content_type() == "image/png"
        assert parts["attachment1"].get_payload(decode=True) == content
        assert parts["attachment2"].get_payload(decode=True) == b""

    @pytest.mark.parametrize(
        "wrong",
        [
            {"attachments": [{"filename": "a", "content": "no base64"}]},
            {"attachments": [{"filename": "a", "content": 5}]},
            {"charsets": {"text": "klingon"}},
        ],
    )
    async def test_invalid_inbound_mails(self, mocks: Mocks, wrong: dict[str, Any]) -> None:
        for path in ("/mock/sendgrid/inbound", "/mock/inbound?provider=sendgrid"):
            answer = await mocks.http.post(mocks.email.url + path, json=wrong)
            assert answer.status_code == 422

    async def test_an_inbound_mail_by_the_common_control(self, mocks: Mocks) -> None:
        answer = await mocks.http.post(
            f"{mocks.email.url}/mock/inbound", params={"provider": "sendgrid"}, json={"subject": "Grüße"}
        )
        (webhook,) = await mocks.receiver.wait_for(1, lambda webhook: webhook.path == api.INBOUND_PATH)
        assert answer.json()["payload"]["subject"] == "Grüße"
        assert "Grüße".encode() in webhook.body


def assert_signature_covers_everything(key: str, webhook: Webhook) -> None:
    """Check that the verifier accepts the webhook, and refuses it with any change."""
    body, stranger = webhook.body.decode(), encode_public_key(new_private_key())
    timestamp = webhook.headers["x-twilio-email-event-webhook-timestamp"]
    signature = webhook.headers["x-twilio-email-event-webhook-signature"]
    verified = EventWebhook(key).verify_signature
    assert verified(body, signature, timestamp)
    assert not verified(chr(ord(body[0]) ^ 1) + body[1:], signature, timestamp)
    assert not verified(body[:-1] + chr(ord(body[-1]) ^ 1), signature, timestamp)
    assert not verified(body, signature, str(int(timestamp) + 1))
    assert not EventWebhook(stranger).verify_signature(body, signature, timestamp)


class TestKeys:
    @pytest.mark.parametrize("layout", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
    def test_a_key_from_the_environment(self, layout: PrivateFormat) -> None:
        key = new_private_key()
        encoded = b64encode(key.private_bytes(Encoding.DER, layout, NoEncryption())).decode()
        assert encode_public_key(decode_private_key(encoded)) == encode_public_key(key)

    @pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP256K1()])
    def test_keys_of_other_curves(self, curve: ec.EllipticCurve) -> None:
        der = ec.generate_private_key(curve).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        with pytest.raises(ValueError, match="must be a P-256 private key"):
            decode_private_key(b64encode(der).decode())

    @pytest.mark.parametrize("malformed", ["", "ä", "c2VjcmV0", "MIG*"])
    def test_malformed_keys(self, malformed: str) -> None:
        with pytest.raises(ValueError, match="must be a P-256 private key"):
            decode_private_key(malformed)
