"""Twilio's API, as its official SDK and the SDK's signature validator see it."""

import asyncio
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import parse_qsl
from uuid import uuid4

import httpx
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from twilio.base.exceptions import TwilioRestException
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from mock_providers.twilio.signature import sign
from mock_providers.twilio.webhooks import INBOUND_PATH, post
from mock_providers.webhooks import Gateway, GatewayUnreachableError
from tests.unit.mock_providers.conftest import PUBLIC_URL, Mocks, Webhook
from tests.waiting import eventually

T = TypeVar("T")

OURS, THEIRS = "+12025550110", "+12025550111"
SERVICE = "MG" + "a" * 32
MESSAGE: dict[str, Any] = {"from_": OURS, "to": THEIRS, "body": "See you at nine"}


def client_of(mocks: Mocks, **replaced: str) -> Client:
    given = {
        "username": mocks.twilio.twilio_account_sid,
        "password": mocks.twilio.twilio_auth_token,
    }
    client = Client(**given | replaced)
    client.api.base_url = mocks.sms.url
    return client


@pytest.fixture
def client(mocks: Mocks) -> Client:
    return client_of(mocks)


async def send(client: Client, **changes: object) -> Any:  # noqa: ANN401 - the client has no types
    """Send a message, without the fields that are changed to None."""
    fields = {name: value for name, value in (MESSAGE | changes).items() if value is not None}
    return await asyncio.to_thread(client.messages.create, **fields)


async def refusal(call: Callable[[], object]) -> tuple[int, int]:
    """Return the HTTP status and the error code that the SDK raises."""
    with pytest.raises(TwilioRestException) as caught:
        await asyncio.to_thread(call)
    return caught.value.status, caught.value.code


def callback_url() -> str:
    """Return a URL that belongs to one message only."""
    return f"{PUBLIC_URL}/callbacks/{uuid4().hex}?by=test"


def posted_to(url: str) -> Callable[[Webhook], bool]:
    return lambda webhook: PUBLIC_URL + webhook.path == url


def form(webhook: Webhook) -> dict[str, str]:
    return dict(parse_qsl(webhook.body.decode(), keep_blank_values=True, strict_parsing=True))


class MultiDict:
    """Parameters as web frameworks represent them, with several values of a name."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs

    def __iter__(self) -> Any:  # noqa: ANN401 - an iterator over names
        return iter([name for name, _ in self._pairs])

    def getlist(self, wanted: str) -> list[str]:
        return [value for name, value in self._pairs if name == wanted]


class TestSending:
    async def test_the_response_to_a_new_message(self, mocks: Mocks) -> None:
        await mocks.sms.behave(outcome="queued")
        sid = mocks.twilio.twilio_account_sid
        response = await mocks.http.post(
            f"{mocks.sms.url}/2010-04-01/Accounts/{sid}/Messages.json",
            data={"From": OURS, "To": THEIRS, "Body": "Grüße"},
            auth=(sid, mocks.twilio.twilio_auth_token),
        )
        message = response.json()
        assert response.status_code == 201
        assert re.fullmatch("SM[0-9a-f]{32}", message["sid"])
        assert re.fullmatch(
            r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000", message["date_created"]
        )
        assert message == {
            "account_sid": sid,
            "api_version": "2010-04-01",
            "body": "Grüße",
            "date_created": message["date_created"],
            "date_sent": None,
            "date_updated": message["date_created"],
            "direction": "outbound-api",
            "error_code": None,
            "error_message": None,
            "from": OURS,
            "messaging_service_sid": None,
            "num_media": "0",
            "num_segments": "1",
            "price": None,
            "price_unit": "USD",
            "sid": message["sid"],
            "status": "queued",
            "subresource_uris": {"media": f"/2010-04-01/Accounts/{sid}/Messages/{message['sid']}/Media.json"},
            "to": THEIRS,
            "uri": f"/2010-04-01/Accounts/{sid}/Messages/{message['sid']}.json",
        }

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({}, {"num_segments": "1", "num_media": "0", "status": "queued", "from_": OURS}),
            ({"body": "a" * 161}, {"num_segments": "2"}),
            ({"body": "😀" * 70}, {"num_segments": "3"}),
            ({"media_url": ["https://example.org/1.png"] * 2}, {"num_segments": "1", "num_media": "2"}),
            ({"media_url": ["https://example.org/1.png"], "body": None}, {"num_media": "1", "body": ""}),
            (
                {"messaging_service_sid": SERVICE, "from_": None},
                {"status": "accepted", "from_": None, "num_segments": "0", "messaging_service_sid": SERVICE},
            ),
            ({"messaging_service_sid": SERVICE}, {"status": "accepted", "from_": OURS}),
            ({"from_": "38657"}, {"from_": "38657"}),
            ({"from_": "Dentist 9"}, {"from_": "Dentist 9"}),
            ({"validity_period": 36000}, {"status": "queued"}),
        ],
    )
    async def test_valid_messages(
        self, client: Client, changes: dict[str, Any], expected: dict[str, Any]
    ) -> None:
        message = await send(client, **changes)
        assert {name: getattr(message, name) for name in expected} == expected
        assert message.sid.startswith("MM" if "media_url" in changes else "SM")

    async def test_the_form_is_recorded(self, mocks: Mocks, client: Client) -> None:
        media = ["https://example.org/1.png", "https://example.org/2.png"]
        message = await send(client, media_url=media, validity_period=60, status_callback=callback_url())
        (item,) = await mocks.sms.messages()
        assert (item["id"], item["idempotency_key"]) == (message.sid, None)
        assert item["payload"] == item["payload"] | {
            "To": THEIRS,
            "From": OURS,
            "Body": MESSAGE["body"],
            "MediaUrl": media,
            "ValidityPeriod": "60",
        }

    async def test_a_repeated_request_is_another_message(self, mocks: Mocks, client: Client) -> None:
        assert len({(await send(client)).sid for _ in range(3)}) == 3
        assert await mocks.sms.stats() == {"requests": 3, "accepted": 3, "refused": 0, "repeated_keys": 0}

    async def test_the_asynchronous_sdk(self, mocks: Mocks) -> None:
        async with AsyncTwilioHttpClient() as http:
            client = Client(mocks.twilio.twilio_account_sid, mocks.twilio.twilio_auth_token, http_client=http)
            client.api.base_url = mocks.sms.url
            sent = await client.messages.create_async(**MESSAGE)
            assert (await client.messages(sent.sid).fetch_async()).body == MESSAGE["body"]

    async def test_headers_about_requests(self, mocks: Mocks) -> None:
        response = await mocks.http.post(f"{mocks.sms.url}/2010-04-01/Accounts/AC1/Messages.json")
        assert response.headers["twilio-concurrent-requests"] == "1"
        assert re.fullmatch("RQ[0-9a-f]{32}", response.headers["twilio-request-id"])


class TestErrors:
    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"to": ""}, 21604),
            ({"from_": None}, 21603),
            ({"body": None}, 21602),
            ({"body": ""}, 21602),
            ({"body": "a" * 1601}, 21617),
            ({"to": "2025550111"}, 21211),
            ({"to": "+0"}, 21211),
            ({"to": "38657"}, 21211),
            ({"from_": "+1 202 555 0110"}, 21212),
            ({"from_": "much too long a name"}, 21212),
            ({"to": OURS}, 21266),
            ({"messaging_service_sid": "MG1"}, 21701),
            ({"media_url": ["https://example.org/1.png"] * 11}, 21623),
            ({"media_url": ["cat.png"]}, 21620),
            ({"status_callback": "ftp://example.org"}, 21609),
            ({"validity_period": 0}, 90007),
            ({"validity_period": 36001}, 90007),
            # Numbers that cause an error.
            ({"to": "+15005550001"}, 21211),
            ({"to": "+15005550002"}, 21612),
            ({"to": "+15005550003"}, 21408),
            ({"to": "+15005550004"}, 21610),
            ({"to": "+15005550009"}, 21614),
            ({"from_": "+15005550001"}, 21212),
            ({"from_": "+15005550007"}, 21606),
            ({"from_": "+15005550008"}, 21611),
        ],
    )
    async def test_invalid_messages(
        self, mocks: Mocks, client: Client, changes: dict[str, Any], code: int
    ) -> None:
        fields = {name: value for name, value in (MESSAGE | changes).items() if value is not None}
        assert await refusal(lambda: client.messages.create(**fields)) == (400, code)
        assert await mocks.sms.messages() == []
        assert (await mocks.sms.stats())["refused"] == 1

    @pytest.mark.parametrize(
        "wrong",
        [{"password": "guess"}, {"username": "AC" + "1" * 32}, {"account_sid": "AC" + "1" * 32}],
        ids=["token", "account", "another account's messages"],
    )
    async def test_wrong_credentials(self, mocks: Mocks, wrong: dict[str, str]) -> None:
        stranger = client_of(mocks, **wrong)
        sid = (await send(client_of(mocks))).sid
        for call in (
            lambda: stranger.messages.create(**MESSAGE),
            stranger.messages.list,
            stranger.messages(sid).fetch,
            lambda: stranger.messages(sid).update(body=""),
        ):
            with pytest.raises(Exception, match=r"401|Unable to fetch page"):
                await asyncio.to_thread(call)
        assert await refusal(lambda: stranger.messages.create(**MESSAGE)) == (401, 20003)
        assert len(await mocks.sms.messages()) == 1

    @pytest.mark.parametrize(
        ("behaviour", "expected"),
        [
            ({"status": 429}, (429, 20429)),
            ({"status": 401}, (401, 20003)),
            ({"status": 403}, (403, 20003)),
            ({"status": 404}, (404, 20404)),
            ({"status": 500}, (500, 20500)),
            ({"status": 503}, (503, 20503)),
            ({"status": 599}, (599, 20599)),
            ({"status": 400, "error_code": 21610}, (400, 21610)),
            ({"status": 429, "error_code": 30001}, (429, 30001)),
            # The response is not JSON, so the SDK uses the status as the code.
            ({"status": 502, "html": True}, (502, 502)),
        ],
    )
    async def test_simulated_errors(
        self, mocks: Mocks, client: Client, behaviour: dict[str, Any], expected: tuple[int, int]
    ) -> None:
        await mocks.sms.behave(**behaviour, times=1)
        assert await refusal(lambda: client.messages.create(**MESSAGE)) == expected
        await send(client)
        assert await mocks.sms.stats() == {"requests": 2, "accepted": 1, "refused": 1, "repeated_keys": 0}

    async def test_the_format_of_an_error(self, mocks: Mocks) -> None:
        await mocks.sms.behave(status=429, retry_after=7)
        sid = mocks.twilio.twilio_account_sid
        response = await mocks.http.post(f"{mocks.sms.url}/2010-04-01/Accounts/{sid}/Messages.json")
        assert response.headers["retry-after"] == "7"
        assert response.json() == {
            "code": 20429,
            "message": "Too Many Requests",
            "more_info": "https://www.twilio.com/docs/errors/20429",
            "status": 429,
        }

    async def test_an_ambiguous_failure_accepts_the_message(self, mocks: Mocks, client: Client) -> None:
        await mocks.sms.behave(ambiguous=True, times=1)
        with pytest.raises(requests.ConnectionError):
            await send(client)
        await send(client)
        assert len(await mocks.sms.messages()) == 2

    async def test_a_dropped_connection_accepts_nothing(self, mocks: Mocks, client: Client) -> None:
        await mocks.sms.behave(drop_connection=True, times=1)
        with pytest.raises(requests.ConnectionError):
            await send(client)
        assert await mocks.sms.messages() == []

    async def test_a_hanging_request_gets_no_response(self, mocks: Mocks, client: Client) -> None:
        await mocks.sms.behave(hang=True)
        client.http_client.timeout = 0.2
        with pytest.raises(requests.ReadTimeout):
            await send(client)
        assert await mocks.sms.messages() == []

    async def test_only_new_messages_are_affected(self, mocks: Mocks, client: Client) -> None:
        sid = (await send(client)).sid
        await mocks.sms.behave(status=500)
        assert (await asyncio.to_thread(client.messages(sid).fetch)).sid == sid
        assert len(await asyncio.to_thread(client.messages.list)) == 1


class TestReading:
    async def test_a_message_is_fetched(self, client: Client) -> None:
        sent = await send(client)

        async def fetched() -> Any:  # noqa: ANN401 - the client has no types
            message = await asyncio.to_thread(sent.fetch)
            return message if message.status == "delivered" else None

        message = await eventually(fetched)
        assert (message.sid, message.body, message.to) == (sent.sid, MESSAGE["body"], THEIRS)
        assert sent.date_sent is None
        assert sent.date_created <= message.date_sent <= datetime.now(UTC)

    async def test_unknown_messages(self, mocks: Mocks, client: Client) -> None:
        answer = await mocks.http.post(
            f"{mocks.sms.url}/messages",
            json={"from": OURS, "to": THEIRS, "type": "sms", "body": "", "timestamp": "2026-03-01T08:00:00Z"},
        )
        # A message of the generic API is not one of Twilio's.
        for sid in ("SM" + "0" * 32, answer.json()["messaging_provider_id"]):
            assert await refusal(client.messages(sid).fetch) == (404, 20404)
        assert await asyncio.to_thread(client.messages.list) == []

    async def test_pages_start_with_the_newest_message(self, client: Client) -> None:
        bodies = [str(number) for number in range(7)]
        for body in bodies:
            await send(client, body=body)
        listed = await asyncio.to_thread(lambda: client.messages.list(page_size=3))
        assert [message.body for message in listed] == bodies[::-1]
        limited = await asyncio.to_thread(lambda: client.messages.list(limit=4))
        assert [message.body for message in limited] == bodies[:2:-1]

    async def test_later_messages_do_not_shift_the_pages(self, client: Client) -> None:
        for body in "abc":
            await send(client, body=body)
        first = await asyncio.to_thread(lambda: client.messages.page(page_size=2))
        await send(client, body="d")
        second = await asyncio.to_thread(first.next_page)
        assert [[message.body for message in page] for page in (first, second)] == [["c", "b"], ["a"]]
        assert await asyncio.to_thread(second.next_page) is None
        back = await asyncio.to_thread(second.previous_page)
        assert [message.body for message in back] == ["d", "c"]

    @pytest.mark.parametrize(
        ("wanted", "count"), [({"to": THEIRS}, 2), ({"from_": OURS}, 1), ({"to": THEIRS, "from_": OURS}, 1)]
    )
    async def test_lists_are_filtered_by_number(
        self, client: Client, wanted: dict[str, str], count: int
    ) -> None:
        await send(client)
        await send(client, from_="+12025550119")
        assert len(await asyncio.to_thread(lambda: client.messages.list(**wanted))) == count


class TestUpdating:
    async def test_a_sent_message_is_redacted(self, mocks: Mocks, client: Client) -> None:
        await mocks.sms.behave(outcome="sent")
        sent = await send(client)
        await eventually(lambda: _has_status(mocks, "sent"))
        assert (await asyncio.to_thread(lambda: sent.update(body=""))).body == ""
        assert (await mocks.sms.messages())[0]["payload"]["Body"] == ""

    async def test_a_queued_message_is_canceled(self, mocks: Mocks, client: Client) -> None:
        await mocks.sms.behave(outcome="queued")
        sent = await send(client)
        assert await refusal(lambda: sent.update(body="")) == (400, 20009)
        assert (await asyncio.to_thread(lambda: sent.update(status="canceled"))).status == "canceled"
        assert await refusal(lambda: sent.update(status="canceled")) == (400, 30409)


async def _has_status(mocks: Mocks, status: str) -> bool:
    """Return whether the only message has this status."""
    (item,) = await mocks.sms.messages()
    return bool(item["progress"]["status"] == status)


class TestCallbacks:
    @pytest.mark.parametrize(
        ("behaviour", "reported"),
        [
            ({}, [("sent", None), ("delivered", None)]),
            ({"outcome": "delivered"}, [("sent", None), ("delivered", None)]),
            ({"outcome": "sent"}, [("sent", None)]),
            ({"outcome": "undelivered"}, [("sent", None), ("undelivered", "30003")]),
            ({"outcome": "undelivered", "error_code": 30006}, [("sent", None), ("undelivered", "30006")]),
            ({"outcome": "failed"}, [("failed", "30008")]),
            ({"outcome": "failed", "error_code": 30007}, [("failed", "30007")]),
        ],
    )
    async def test_the_callbacks_of_each_outcome(
        self, mocks: Mocks, client: Client, behaviour: dict[str, Any], reported: list[tuple[str, str | None]]
    ) -> None:
        await mocks.sms.behave(**behaviour)
        url = callback_url()
        sent = await send(client, status_callback=url)
        forms = [form(webhook) for webhook in await mocks.receiver.wait_for(len(reported), posted_to(url))]
        assert [(fields["MessageStatus"], fields.get("ErrorCode")) for fields in forms] == reported
        for fields in forms:
            assert fields == fields | {
                "MessageSid": sent.sid,
                "SmsSid": sent.sid,
                "SmsStatus": fields["MessageStatus"],
                "AccountSid": mocks.twilio.twilio_account_sid,
                "From": OURS,
                "To": THEIRS,
                "ApiVersion": "2010-04-01",
            }
        message = await asyncio.to_thread(sent.fetch)
        code = reported[-1][1]
        assert (message.status, message.error_code) == (reported[-1][0], code and int(code))

    async def test_a_messaging_service_picks_its_number(self, mocks: Mocks, client: Client) -> None:
        url = callback_url()
        await send(client, from_=None, messaging_service_sid=SERVICE, status_callback=url)
        forms = [form(webhook) for webhook in await mocks.receiver.wait_for(2, posted_to(url))]
        assert {(fields["From"], fields["MessagingServiceSid"]) for fields in forms} == {
            ("+15005550006", SERVICE)
        }

    async def test_callbacks_do_not_wait_for_the_response(self, mocks: Mocks, client: Client) -> None:
        await mocks.sms.behave(latency_ms=600_000, times=1)
        url = callback_url()
        client.http_client.timeout = 20
        waiting = asyncio.create_task(
            mocks.http.post(
                f"{mocks.sms.url}/2010-04-01/Accounts/{client.username}/Messages.json",
                data={"From": OURS, "To": THEIRS, "Body": "x", "StatusCallback": url},
                auth=(client.username, client.password),
            )
        )
        await mocks.receiver.wait_for(2, posted_to(url))
        assert not waiting.done()
        waiting.cancel()

    async def test_callbacks_are_signed(self, mocks: Mocks, client: Client) -> None:
        url = callback_url()
        await send(client, status_callback=url)
        for webhook in await mocks.receiver.wait_for(2, posted_to(url)):
            assert_signature_covers_everything(mocks, url, webhook)

    async def test_callbacks_on_request_in_any_order(self, mocks: Mocks, client: Client) -> None:
        url = callback_url()
        sent = await send(client, status_callback=url)
        await mocks.receiver.wait_for(2, posted_to(url))
        answer = await mocks.http.post(
            f"{mocks.sms.url}/mock/twilio/receipts",
            json={"message_sid": sent.sid, "status": "sent", "error_code": 30005},
        )
        *_, late = await mocks.receiver.wait_for(3, posted_to(url))
        assert answer.json() == {"status": 200, "payload": form(late), "response": ""}
        assert (form(late)["MessageStatus"], form(late)["ErrorCode"]) == ("sent", "30005")
        assert_signature_covers_everything(mocks, url, late)

    @pytest.mark.parametrize("known", [True, False])
    async def test_no_callback_without_a_message_and_its_url(
        self, mocks: Mocks, client: Client, *, known: bool
    ) -> None:
        sid = (await send(client)).sid if known else "SM1"
        answer = await mocks.http.post(
            f"{mocks.sms.url}/mock/twilio/receipts", json={"message_sid": sid, "status": "sent"}
        )
        assert answer.status_code == 404

    @pytest.mark.parametrize(
        ("failure", "tries"), [(httpx.ConnectError("refused"), 2), (httpx.ReadTimeout("slow"), 1)]
    )
    async def test_a_webhook_is_retried_only_without_a_connection(
        self, failure: httpx.HTTPError, tries: int
    ) -> None:
        seen: list[httpx.Request] = []

        def refuse(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            raise failure

        async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as http:
            gateway = Gateway(http, "http://gateway")
            with pytest.raises(GatewayUnreachableError, match="http://gateway/callback"):
                await post(gateway, "token", "http://gateway/callback", [("MessageSid", "SM1")])
        assert len(seen) == tries
        assert len({request.headers["i-twilio-idempotency-token"] for request in seen}) == 1

    @pytest.mark.parametrize("outcome", ["bounce", "nonsense"])
    async def test_unknown_outcomes(self, mocks: Mocks, outcome: str) -> None:
        answer = await mocks.http.put(f"{mocks.sms.url}/mock/behaviour", json={"outcome": outcome})
        assert answer.status_code == 422
        assert (await mocks.http.get(f"{mocks.sms.url}/mock/behaviour")).json()["outcome"] is None


class TestInbound:
    async def receive(self, mocks: Mocks, given: Mapping[str, object]) -> Webhook:
        answer = await mocks.http.post(f"{mocks.sms.url}/mock/twilio/inbound", json=given)
        assert (answer.status_code, answer.json()["status"]) == (200, 200)
        (webhook,) = await mocks.receiver.wait_for(1, posted_to(PUBLIC_URL + INBOUND_PATH))
        return webhook

    async def test_an_example_message(self, mocks: Mocks) -> None:
        webhook = await self.receive(mocks, {})
        given = form(webhook)
        assert given["MessageSid"] == given["SmsSid"] == given["SmsMessageSid"]
        assert re.fullmatch("SM[0-9a-f]{32}", given["MessageSid"])
        assert given["AccountSid"] == mocks.twilio.twilio_account_sid
        assert (given["NumMedia"], given["NumSegments"], given["FromCity"]) == ("0", "1", "")
        assert webhook.headers["content-type"].startswith("application/x-www-form-urlencoded")

    @pytest.mark.parametrize(
        ("given", "sent"),
        [
            (
                {"From": THEIRS, "To": OURS, "Body": "Grüße 👋 & = %"},
                {"From": THEIRS, "Body": "Grüße 👋 & = %"},
            ),
            ({"Body": "STOP", "OptOutType": "STOP"}, {"OptOutType": "STOP"}),
            ({"Body": ""}, {"Body": "", "NumSegments": "1"}),
            ({"Body": "a" * 161}, {"NumSegments": "2"}),
            ({"NumMedia": "x", "Whatever": 1}, {"NumMedia": "x", "Whatever": "1"}),
            ({"MessageSid": "SM1"}, {"SmsSid": "SM1"}),
            (
                {"MediaUrl0": "https://example.org/a", "MediaUrl1": "https://example.org/b.png"},
                {"NumMedia": "2", "MediaContentType0": "image/jpeg", "MediaContentType1": "image/png"},
            ),
        ],
    )
    async def test_given_fields_are_sent_unchanged(
        self, mocks: Mocks, given: dict[str, Any], sent: dict[str, str]
    ) -> None:
        webhook = await self.receive(mocks, given)
        assert sent.items() <= form(webhook).items()
        assert_signature_covers_everything(mocks, PUBLIC_URL + INBOUND_PATH, webhook)

    async def test_omitted_and_repeated_fields(self, mocks: Mocks) -> None:
        webhook = await self.receive(mocks, {"ApiVersion": None, "Tag": ["b", "a", "a"]})
        pairs = parse_qsl(webhook.body.decode(), keep_blank_values=True)
        assert "ApiVersion" not in dict(pairs)
        assert [value for name, value in pairs if name == "Tag"] == ["b", "a", "a"]
        validator = RequestValidator(mocks.twilio.twilio_auth_token)
        signature = webhook.headers["x-twilio-signature"]
        assert validator.validate(PUBLIC_URL + INBOUND_PATH, MultiDict(pairs), signature)
        assert not validator.validate(PUBLIC_URL + INBOUND_PATH, dict(pairs), signature)


def assert_signature_covers_everything(mocks: Mocks, url: str, webhook: Webhook) -> None:
    """Check that the validator accepts the webhook, and refuses it with any change."""
    signature, fields = webhook.headers["x-twilio-signature"], form(webhook)
    right, wrong = (RequestValidator(mocks.twilio.twilio_auth_token + end) for end in ("", "x"))
    assert right.validate(url, fields, signature)
    assert not wrong.validate(url, fields, signature)
    assert not right.validate(f"{url}x", fields, signature)
    assert not right.validate(url.replace("https", "http"), fields, signature)
    assert not right.validate(url, fields, flipped(signature))
    for name, value in fields.items():
        without = {other: kept for other, kept in fields.items() if other != name}
        assert not right.validate(url, fields | {name: f"{value}x"}, signature)
        assert not right.validate(url, without, signature)
    assert not right.validate(url, fields | {"More": ""}, signature)


def flipped(text: str) -> str:
    return ("A" if text[0] != "A" else "B") + text[1:]


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))),
    st.text(st.characters(codec="utf-8"), min_size=1),
)
def test_the_validator_signs_the_same(params: dict[str, str], token: str) -> None:
    url = "https://example.org:8443/x?y=z"
    assert sign(token, url, params.items()) == RequestValidator(token).compute_signature(url, params)
