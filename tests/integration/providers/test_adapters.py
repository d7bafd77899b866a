"""The contract of the adapters: the requests that they build, and the errors for all possible responses.

A new provider adds its rows here. The provider of `docs/providers.md` is tested as it stands on the page.
"""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import parse_qs, unquote

import pytest

from shared.addresses import Address
from shared.channels import Channel, MessageType
from shared.message import Message
from shared.providers.base import (
    Adapter,
    CredentialsError,
    File,
    NotReachedError,
    Provider,
    ProviderError,
    RejectedError,
    TemporaryError,
    UnknownOutcomeError,
)
from shared.providers.generic.email import GENERIC_EMAIL
from shared.providers.generic.sms import GENERIC_SMS
from shared.providers.http import HttpClient, make_client, send
from shared.providers.registry import PROVIDERS, create_adapter
from shared.providers.sendgrid import SENDGRID
from shared.providers.twilio import TWILIO
from shared.settings import Settings, SettingsError, read
from shared.unsubscribe import Subscription
from tests import messages
from tests.integration.providers.documented import documented_rows
from tests.stand_in import Answer, ReceivedRequest, StandIn, standing_in

WRITTEN = "2024-11-01T14:00:00Z"


@dataclass(frozen=True)
class Row:
    """A message, the request that sends it, and the meaning of the provider's responses.

    Attributes:
        url_setting: the setting that has the address of the provider.
        headers: some headers that the request must have.
        accepts: the response of the provider when it accepts the message as `id`.
        settings: further settings.
        json: the body of the request; or else `form`.
        refusals: the errors that differ from those of `FAILURES`, by status.
        unreadable: a 2xx response without an id.
    """

    provider: Provider[Any]
    url_setting: str
    message: Message
    path: str
    headers: Mapping[str, str]
    accepts: Answer
    id: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    json: Any = None
    form: Mapping[str, list[str]] | None = None
    refusals: Mapping[int, tuple[type[ProviderError], str]] = field(default_factory=dict)
    unreadable: Answer = Answer(200, body=b"<html>")  # noqa: RUF009 - it is frozen

    def create_adapter(self, url: str) -> Adapter[Any]:
        return create_adapter(self.provider, **{self.url_setting: url, **self.settings})

    @property
    def secrets(self) -> list[str]:
        """The credentials, and the headers that contain them, which must not be shown anywhere."""
        sent = self.headers.get("authorization", "").split(" ")[-1:]
        secret = [value for name, value in self.settings.items() if _is_secret(self.provider.settings, name)]
        return secret + [value for value in sent if value]


def _is_secret(settings: type[Settings], name: str) -> bool:
    return "SecretStr" in repr(settings.model_fields[name])


def generic_sms(**request: Any) -> dict[str, Any]:  # noqa: ANN401 - any field of it
    common = {"from": messages.ALICE, "to": messages.BOB, "attachments": [], "timestamp": WRITTEN}
    return {**common, **request}


def generic_email(**request: Any) -> dict[str, Any]:  # noqa: ANN401 - any field of it
    common = {"from": "ann@example.com", "to": "ben@example.org", "attachments": [], "timestamp": WRITTEN}
    return {**common, **request}


PICTURE = "https://example.com/a.png"
TEXT = messages.message(timestamp=WRITTEN)
PICTURES = messages.message(type=MessageType.MMS, body="", attachments=[PICTURE, "https://example.com/b.png"])
MMS = messages.message(type=MessageType.MMS, body="", attachments=[PICTURE], timestamp=WRITTEN)
MAIL = messages.email(timestamp=WRITTEN)
SUBJECT = messages.email(subject="Greetings", body="<b>Hi</b>", timestamp=WRITTEN)
ANSWERED = messages.email(
    body="<p>See <a href='https://example.com'>here</a></p>", attachments=[PICTURE], in_reply_to="<1@b.c>"
)
COPIED = messages.email(
    from_="office@bücher.example",
    to="ben@bücher.example",
    from_name="Casey's Garage",
    to_name="李雷",
    subject="Greetings",
    body="<p>Hi</p>",
    body_type="html",
    text="Hello",
    reply_to=[Address("a@b.example", "a@b.example")],
    cc=[Address("ann@bücher.example", "ann@bücher.example", "Doe, Jane")],
    bcc=[Address("eve@b.example", "eve@b.example")],
    references=["<0@b.c>", "<1@b.c>"],
    in_reply_to="<1@b.c>",
    timestamp=WRITTEN,
)
REPLIES = [messages.address("a@b.example"), Address("b@b.example", "b@b.example", "Bea")]
ANYBODY = messages.email(timestamp=WRITTEN, reply_to=REPLIES)
ACCOUNT, TOKEN = "AC" + "0" * 32, "f00dfeedf00dfeedf00dfeedf00dfeed"
SID = "SM" + "1" * 32
BASIC = base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
KEY = "SG.aaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbbb"


def generic(
    provider: Provider[Any],
    url_setting: str,
    id_field: str,
    message: Message,
    request: Any,  # noqa: ANN401
) -> Row:
    return Row(
        provider,
        url_setting,
        message,
        "/messages",
        {"idempotency-key": str(message.id), "content-type": "application/json"},
        Answer(202, body=json.dumps({id_field: "g-1"}).encode()),
        "g-1",
        json=request,
    )


def twilio(message: Message, form: dict[str, list[str]], **settings: str) -> Row:
    return Row(
        TWILIO,
        "twilio_url",
        message,
        f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json",
        {"authorization": f"Basic {BASIC}", "content-type": "application/x-www-form-urlencoded"},
        Answer(201, body=json.dumps({"sid": SID, "status": "queued", "error_code": None}).encode()),
        SID,
        settings={"twilio_account_sid": ACCOUNT, "twilio_auth_token": TOKEN, **settings},
        form=form,
    )


def sendgrid(message: Message, *files: File, **request: Any) -> Row:  # noqa: ANN401 - any field of it
    root = f"<{message.conversation_key}@example.com>"
    common = {
        "personalizations": [{"to": [{"email": "ben@example.org"}]}],
        "from": {"email": "ann@example.com"},
        "headers": {"Message-ID": f"<{message.id}@example.com>", "References": root},
        "custom_args": {"message_id": str(message.id)},
    }
    return Row(
        SENDGRID,
        "sendgrid_url",
        message,
        "/v3/mail/send",
        {"authorization": f"Bearer {KEY}", "content-type": "application/json"},
        Answer(202, {"X-Message-Id": "14c5d75ce93"}),
        "14c5d75ce93",
        settings={"sendgrid_api_key": KEY},
        files=files,
        json={**common, **request},
    )


FROM_TO = {"From": [messages.ALICE], "To": [messages.BOB]}
ROWS = {
    "generic_sms": generic(
        GENERIC_SMS, "sms_provider_url", "messaging_provider_id", TEXT, generic_sms(type="sms", body="Hello")
    ),
    "generic_sms, a picture": generic(
        GENERIC_SMS,
        "sms_provider_url",
        "messaging_provider_id",
        MMS,
        generic_sms(type="mms", body="", attachments=[PICTURE]),
    ),
    "generic_email": generic(
        GENERIC_EMAIL, "email_provider_url", "xillio_id", MAIL, generic_email(body="Hello")
    ),
    "generic_email, with a subject": generic(
        GENERIC_EMAIL,
        "email_provider_url",
        "xillio_id",
        SUBJECT,
        generic_email(subject="Greetings", body="<b>Hi</b>"),
    ),
    "generic_email, with all fields": generic(
        GENERIC_EMAIL,
        "email_provider_url",
        "xillio_id",
        COPIED,
        {
            **generic_email(body="<p>Hi</p>", subject="Greetings", body_type="html", text="Hello"),
            "from": "office@xn--bcher-kva.example",
            "to": "ben@xn--bcher-kva.example",
            "from_name": "Casey's Garage",
            "to_name": "李雷",
            "reply_to": ["a@b.example"],
            "cc": ['"Doe, Jane" <ann@xn--bcher-kva.example>'],
            "bcc": ["eve@b.example"],
        },
    ),
    "twilio": twilio(TEXT, {**FROM_TO, "Body": ["Hello"]}),
    "twilio, two pictures, a service and a callback": twilio(
        PICTURES,
        {
            **FROM_TO,
            "MediaUrl": [PICTURE, "https://example.com/b.png"],
            "MessagingServiceSid": ["MG1"],
            "StatusCallback": [
                f"https://us.example/base/api/webhooks/twilio/status?message_id={PICTURES.id}#rc=5&rp=all"
            ],
        },
        twilio_messaging_service_sid="MG1",
        public_base_url="https://us.example/base/",
    ),
    "sendgrid": sendgrid(MAIL, subject="Hello", content=[{"type": "text/plain", "value": "Hello"}]),
    "sendgrid, HTML with a subject": sendgrid(
        SUBJECT,
        subject="Greetings",
        content=[{"type": "text/plain", "value": "Hi"}, {"type": "text/html", "value": "<b>Hi</b>"}],
    ),
    "sendgrid, an answer with a file": sendgrid(
        ANSWERED,
        File("a.png", "image/png", b"\x89PNG"),
        subject="See here (https://example.com)",
        content=[
            {"type": "text/plain", "value": "See here (https://example.com)"},
            {"type": "text/html", "value": ANSWERED.body},
        ],
        headers={
            "Message-ID": f"<{ANSWERED.id}@example.com>",
            "In-Reply-To": "<1@b.c>",
            "References": "<1@b.c>",
        },
        attachments=[
            {"content": "iVBORw==", "filename": "a.png", "type": "image/png", "disposition": "attachment"}
        ],
    ),
}
COPIED_ROW = sendgrid(
    COPIED,
    subject="Greetings",
    content=[{"type": "text/plain", "value": "Hello"}, {"type": "text/html", "value": "<p>Hi</p>"}],
    personalizations=[
        {
            "to": [{"email": "ben@xn--bcher-kva.example", "name": "李雷"}],
            "cc": [{"email": "ann@xn--bcher-kva.example", "name": '"Doe, Jane"'}],
            "bcc": [{"email": "eve@b.example"}],
        }
    ],
    reply_to={"email": "a@b.example"},
    headers={
        "Message-ID": f"<{COPIED.id}@xn--bcher-kva.example>",
        "In-Reply-To": "<1@b.c>",
        "References": "<0@b.c> <1@b.c>",
    },
    custom_args={"message_id": str(COPIED.id), "recipient": "ben@xn--bcher-kva.example"},
    **{"from": {"email": "office@xn--bcher-kva.example", "name": "Casey's Garage"}},
)
UNSUBSCRIBING = {
    "sendgrid_api_key": KEY,
    "public_base_url": "https://us.example/base/",
    "unsubscribe_secret": "a secret of some length",
}
ROWS["sendgrid, with all fields, and without a link to unsubscribe"] = replace(
    COPIED_ROW, settings=UNSUBSCRIBING
)
ROWS["sendgrid, with two addresses for replies"] = sendgrid(
    ANYBODY,
    subject="Hello",
    content=[{"type": "text/plain", "value": "Hello"}],
    reply_to_list=[{"email": "a@b.example"}, {"email": "b@b.example", "name": "Bea"}],
)
LINK = Subscription(Channel.EMAIL, "ann@example.com", "ben@example.org").sign("a secret of some length")
ROWS["sendgrid, with a link to unsubscribe, in a group"] = replace(
    sendgrid(
        MAIL,
        subject="Hello",
        content=[{"type": "text/plain", "value": "Hello"}],
        headers={
            **sendgrid(MAIL).json["headers"],
            "List-Unsubscribe": f"<https://us.example/base/unsubscribe/{LINK}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        },
        asm={"group_id": 7},
    ),
    settings={**UNSUBSCRIBING, "sendgrid_unsubscribe_group": "7"},
)
ALL_ROWS: dict[str, Row] = {**ROWS, **documented_rows(globals())}

FAILURES: dict[str, tuple[Answer, type[ProviderError], str]] = {
    "400": (Answer(400), RejectedError, "http_400"),
    "401": (Answer(401), CredentialsError, "http_401"),
    "403": (Answer(403), CredentialsError, "http_403"),
    "404": (Answer(404), RejectedError, "http_404"),
    "408": (Answer(408), TemporaryError, "http_408"),
    "413": (Answer(413), RejectedError, "http_413"),
    "422": (Answer(422), RejectedError, "http_422"),
    "429": (Answer(429), TemporaryError, "http_429"),
    "500": (Answer(500), UnknownOutcomeError, "http_500"),
    "502": (Answer(502), UnknownOutcomeError, "http_502"),
    "503": (Answer(503), TemporaryError, "http_503"),
    "dropped": (Answer(ending="drop"), UnknownOutcomeError, "connection_lost"),
    "hanging": (Answer(ending="hang"), UnknownOutcomeError, "timeout"),
}

TWILIO_CODES: list[tuple[int, int, type[ProviderError], str]] = [
    (400, 21211, RejectedError, "twilio_21211"),
    (400, 21610, RejectedError, "opted_out"),
    (403, 21610, RejectedError, "opted_out"),
    (403, 21408, RejectedError, "twilio_21408"),
    (400, 21614, RejectedError, "twilio_21614"),
    (401, 20003, CredentialsError, "twilio_20003"),
    (403, 20403, CredentialsError, "twilio_20403"),
    (404, 20404, CredentialsError, "twilio_20404"),
    (429, 20429, TemporaryError, "http_429"),
    (400, 21611, TemporaryError, "twilio_21611"),
    (429, 30001, TemporaryError, "twilio_30001"),
    (500, 21611, UnknownOutcomeError, "http_500"),
    (500, 20500, UnknownOutcomeError, "http_500"),
    (400, 7, RejectedError, "http_400"),
]


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[HttpClient]:
    async with make_client(timeout=1.0) as client:
        yield client


@pytest.fixture
async def provider() -> AsyncIterator[StandIn]:
    async with standing_in() as stand_in:
        yield stand_in


@pytest.fixture(params=ALL_ROWS)
def row(request: pytest.FixtureRequest) -> Row:
    return ALL_ROWS[request.param]


Send = Callable[[], Awaitable[str]]


@pytest.fixture
def send_row(row: Row, provider: StandIn, client: HttpClient) -> Send:
    """Return a function that sends the message of the row."""
    return lambda: send(client, row.create_adapter(provider.url), row.message, row.files)


def test_every_registered_provider_has_rows() -> None:
    assert {row.provider.name for row in ROWS.values()} == PROVIDERS.keys()


async def test_the_request_is_that_of_the_provider(row: Row, provider: StandIn, send_row: Send) -> None:
    provider.answer = lambda _: row.accepts
    assert await send_row() == row.id
    [request] = provider.requests
    assert (request.method, request.path) == ("POST", row.path)
    assert {name: request.headers.get(name) for name in row.headers} == row.headers
    if row.form is not None:
        assert parse_qs(request.body.decode(), keep_blank_values=True) == row.form
    else:
        assert json.loads(request.body) == row.json


@pytest.mark.parametrize(
    ("answer", "with_keys", "without_keys"),
    [
        (Answer(429), True, True),
        (Answer(503, headers={"Retry-After": "7"}), True, False),
        (Answer(503), False, False),
        (Answer(500, headers={"Retry-After": "7"}), False, False),
        (Answer(408), False, False),
    ],
)
async def test_a_provider_that_refuses_a_request_for_now_throttles_us(
    row: Row,
    provider: StandIn,
    send_row: Send,
    answer: Answer,
    *,
    with_keys: bool,
    without_keys: bool,
) -> None:
    provider.answer = lambda _: answer
    with pytest.raises(ProviderError) as caught:
        await send_row()
    expected = with_keys if row.provider.adapter.honours_idempotency_keys else without_keys
    assert (caught.value.throttled, caught.value.sender_only) == (expected, False)
    assert caught.value.retry_after == (timedelta(seconds=7) if answer.headers else None)


@pytest.mark.parametrize(("status", "code", "sender_only"), [(429, 20429, False), (400, 21611, True)])
async def test_a_full_queue_at_twilio_affects_only_its_number(
    provider: StandIn, client: HttpClient, status: int, code: int, *, sender_only: bool
) -> None:
    row = ROWS["twilio"]
    provider.answer = lambda _: Answer(status, body=json.dumps({"code": code}).encode())
    with pytest.raises(TemporaryError) as caught:
        await send(client, row.create_adapter(provider.url), row.message, row.files)
    assert (caught.value.throttled, caught.value.sender_only) == (True, sender_only)


@pytest.mark.parametrize("failure", FAILURES)
async def test_each_failure_is_the_right_error(
    row: Row, provider: StandIn, send_row: Send, failure: str
) -> None:
    answer, error, code = FAILURES[failure]
    if answer.status >= 500 and not row.provider.adapter.honours_idempotency_keys:
        error = UnknownOutcomeError
    provider.answer = lambda _: answer
    with pytest.raises(ProviderError) as caught:
        await send_row()
    assert (type(caught.value), caught.value.code) == (error, code)
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    ("row", "status"),
    [(row, status) for row in ALL_ROWS.values() for status in row.refusals],
)
async def test_some_statuses_have_a_special_meaning(
    row: Row, provider: StandIn, client: HttpClient, status: int
) -> None:
    error, code = row.refusals[status]
    provider.answer = lambda _: Answer(status)
    with pytest.raises(error) as caught:
        await send(client, row.create_adapter(provider.url), row.message, row.files)
    assert caught.value.code == code


async def test_an_accepted_message_is_not_sent_again_if_the_response_is_unreadable(
    row: Row, provider: StandIn, send_row: Send
) -> None:
    provider.answer = lambda _: row.unreadable
    with pytest.raises(RejectedError) as caught:
        await send_row()
    assert caught.value.code == "unreadable_answer"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(202, ending="break"),
        Answer(202, {"Content-Encoding": "gzip"}, b"no gzip"),
    ],
    ids=["broken off", "not decodable"],
)
async def test_an_incomplete_acceptance_is_repeated_only_if_that_is_harmless(
    row: Row, provider: StandIn, send_row: Send, answer: Answer
) -> None:
    provider.answer = lambda _: answer
    harmless = row.provider.adapter.honours_idempotency_keys
    with pytest.raises(UnknownOutcomeError if harmless else RejectedError):
        await send_row()


@pytest.mark.parametrize(("status", "kind"), [(400, RejectedError), (429, TemporaryError)])
@pytest.mark.parametrize(
    ("headers", "body", "ending"),
    [
        ({}, b"", "break"),
        ({"Content-Encoding": "gzip"}, b"no gzip", "whole"),
        ({"Content-Type": "application/json; charset=none"}, b"\xff\xfe{", "whole"),
        ({"Retry-After": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, b"[" * 100_000, "whole"),
    ],
    ids=["broken off", "not decodable", "no text", "too deep"],
)
async def test_an_error_response_counts_even_if_the_rest_of_it_is_unreadable(
    provider: StandIn,
    send_row: Send,
    status: int,
    kind: type[ProviderError],
    headers: dict[str, str],
    body: bytes,
    ending: Literal["whole", "break"],
) -> None:
    provider.answer = lambda _: Answer(status, headers, body, ending=ending)
    with pytest.raises(kind) as caught:
        await send_row()
    assert (caught.value.status_code, caught.value.retry_after) == (status, None)


async def test_an_unreachable_provider_did_not_get_the_message(row: Row, client: HttpClient) -> None:
    with pytest.raises(NotReachedError):
        await send(client, row.create_adapter("http://127.0.0.1:9"), row.message, row.files)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"X-RateLimit-Reset": "9999999999"}, 86_400),
        ({"X-RateLimit-Reset": "12"}, 12),
        ({"Retry-After": "7", "X-RateLimit-Reset": "12"}, 7),
        # The difference between two times of the provider, whatever our own clock shows.
        ({"Retry-After": "Sun, 01 Mar 2026 12:00:30 GMT", "Date": "Sun, 01 Mar 2026 12:00:00 GMT"}, 30),
        ({"X-RateLimit-Reset": "1"}, 1),
        ({"X-RateLimit-Reset": "1000000000"}, 0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_the_pause_that_a_provider_requests_is_part_of_the_error(
    provider: StandIn, send_row: Send, headers: dict[str, str], seconds: float, status: int
) -> None:
    provider.answer = lambda _: Answer(status, headers)
    with pytest.raises(ProviderError) as caught:
        await send_row()
    assert caught.value.retry_after == timedelta(seconds=seconds)


@pytest.mark.parametrize(("status", "code", "error", "name"), TWILIO_CODES)
async def test_the_codes_of_twilio_are_more_precise(
    provider: StandIn,
    client: HttpClient,
    status: int,
    code: int,
    error: type[ProviderError],
    name: str,
) -> None:
    body = json.dumps({"code": code, "message": "No", "more_info": "x", "status": status}).encode()
    provider.answer = lambda _: Answer(status, body=body)
    with pytest.raises(ProviderError) as caught:
        await send(client, ROWS["twilio"].create_adapter(provider.url), TEXT)
    assert (type(caught.value), caught.value.code) == (error, name)
    assert caught.value.status_code == status


def chain(exc: BaseException | None) -> str:
    """Return the texts of an exception and of its causes."""
    texts = ""
    while exc is not None:
        texts += f"{exc!r} {exc} "
        exc = exc.__cause__ or exc.__context__
    return texts


def echo(answer: Answer, row: Row) -> Callable[[ReceivedRequest], Answer]:
    def repeat(request: ReceivedRequest) -> Answer:
        body = json.dumps({"code": 21211, "headers": dict(request.headers), "secrets": row.secrets})
        return Answer(answer.status, answer.headers, body.encode(), answer.ending)

    return repeat


@pytest.mark.parametrize("failure", [*FAILURES, "unreadable"])
async def test_no_error_contains_credentials_even_if_the_provider_repeats_them(
    row: Row, provider: StandIn, send_row: Send, failure: str
) -> None:
    answer = row.unreadable if failure == "unreadable" else FAILURES[failure][0]
    provider.answer = echo(answer, row)
    with pytest.raises(ProviderError) as caught:
        await send_row()
    texts = chain(caught.value)
    assert [secret for secret in row.secrets if secret in texts] == []


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("user_info", ["user:hunter%402@", "api-key-42@", ":hunter%402@"])
async def test_no_error_contains_credentials_in_the_url_of_a_provider(
    provider: StandIn, client: HttpClient, name: str, user_info: str
) -> None:
    row = ROWS[name]
    url = provider.url.replace("://", f"://{user_info}")
    adapter = row.create_adapter(url)

    def repeat(request: ReceivedRequest) -> Answer:
        body = {
            "code": 21211,
            "url": f"{url}{request.path}",
            "seen": unquote(user_info[:-1]),
            **request.headers,
        }
        return Answer(400, body=json.dumps(body).encode())

    provider.answer = repeat
    with pytest.raises(ProviderError) as caught:
        await send(client, adapter, row.message, row.files)

    texts = chain(caught.value)
    user, _, password = unquote(user_info[:-1]).partition(":")
    basic = base64.b64encode(f"{user}:{password}".encode()).decode()
    assert [secret for secret in ("hunter", "api-key-42", basic) if secret in texts] == []


@pytest.mark.parametrize("name", [name for name, row in ALL_ROWS.items() if row.secrets])
def test_settings_do_not_show_credentials(name: str) -> None:
    row = ALL_ROWS[name]
    settings = read(row.provider.settings, **row.settings)
    assert [secret for secret in row.secrets if secret in f"{settings!r} {settings}"] == []


@pytest.mark.parametrize("value", ["", " ", "two words", "line\nbreak", "ümlaut", "\0"])
def test_a_credential_has_to_fit_into_a_header(value: str) -> None:
    with pytest.raises(SettingsError, match=r"^SENDGRID_API_KEY: ") as caught:
        create_adapter(SENDGRID, sendgrid_api_key=value)
    assert "ümlaut" not in str(caught.value)
