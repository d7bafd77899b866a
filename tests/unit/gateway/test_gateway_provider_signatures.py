"""What the providers' own libraries sign is let in, and nothing that differs from it by a byte."""

import asyncio
import base64
import string
from collections.abc import AsyncIterator, Iterator, Mapping
from hashlib import sha256
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from pydantic import ValidationError
from sendgrid.helpers.eventwebhook import EventWebhook
from twilio.request_validator import RequestValidator

from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from services.gateway.webhooks.guard import Delivery, Refusal
from shared.providers.sendgrid.inbound import SendgridKey
from shared.providers.twilio.receive import TwilioSignatures
from tests.webhooks import (
    DELIVERED,
    FORM,
    JSON,
    KEY,
    MAIL,
    MULTIPART,
    PUBLIC_KEY,
    PUBLIC_URL,
    SENDGRID_EVENTS,
    SENDGRID_INBOUND,
    SMS,
    STATUS,
    TOKEN,
    TWILIO_MESSAGES,
    TWILIO_STATUS,
    by_sendgrid,
    by_twilio,
    events,
    multipart,
    urlencoded,
)

SECRETS = {
    "twilio_auth_token": TOKEN,
    "public_base_url": PUBLIC_URL,
    "sendgrid_webhook_public_key": PUBLIC_KEY,
}
PATHS = (TWILIO_MESSAGES, TWILIO_STATUS, SENDGRID_INBOUND, SENDGRID_EVENTS)
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
values = st.text(st.characters(codec="utf-8"), max_size=40)
forms = st.dictionaries(names, st.lists(values, min_size=1, max_size=3), max_size=8)
flips = st.integers(1, 255)


def make_settings(**given: Any) -> GatewaySettings:  # noqa: ANN401 - any setting
    required = {"nats_url": "nats://unused", "database_url": "postgresql+asyncpg://unused"}
    return GatewaySettings(_env_file=None, **{**required, **given})


async def post(path: str, *, settings: Mapping[str, Any] = SECRETS, **request: Any) -> httpx.Response:  # noqa: ANN401
    """Post to a gateway with nothing behind it, where being let in ends in another status than 403."""
    app = create_app(make_settings(**settings))
    app.state.gateway = SimpleNamespace(default_region="US")
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        return await client.post(path, **request)


def flipped(data: bytes, position: int, by: int) -> bytes:
    position %= len(data)
    return data[:position] + bytes([data[position] ^ by]) + data[position + 1 :]


# --- Twilio -------------------------------------------------------------------------------------------


class _Values(dict[str, list[str]]):
    """What the library takes a form with several values of a name for."""

    def getlist(self, name: str) -> list[str]:
        return self[name]


def twilio_signature(form: Mapping[str, list[str]], url: str = PUBLIC_URL + TWILIO_MESSAGES) -> str:
    signature: str = RequestValidator(TOKEN).compute_signature(url, _Values(form))
    return signature


def delivery(body: bytes, signature: str, query: bytes = b"", path: str = TWILIO_MESSAGES) -> Delivery:
    return Delivery(path, query, {**FORM, "x-twilio-signature": signature}, body)


twilio = TwilioSignatures(TOKEN, PUBLIC_URL)


@given(forms)
def test_what_twilio_signs_is_taken(form: dict[str, list[str]]) -> None:
    assert twilio(delivery(urlencoded(form), twilio_signature(form))) is None


@given(forms, st.integers(0), flips)
def test_of_a_form_with_a_flipped_byte_twilio_thinks_the_same(
    form: dict[str, list[str]], position: int, by: int
) -> None:
    form = {**form, "MessageSid": ["SM1"]}
    signature = twilio_signature(form)
    body = flipped(urlencoded(form), position, by)

    assert (twilio(delivery(body, signature)) is None) == twilio_takes(body, signature)


def twilio_takes(body: bytes, signature: str) -> bool:
    try:
        form = parse_qs(body.decode(), keep_blank_values=True, errors="strict")
        url = PUBLIC_URL + TWILIO_MESSAGES
        return bool(RequestValidator(TOKEN).validate(url, _Values(form), signature))
    except UnicodeError:
        return False


@pytest.mark.parametrize("name", SMS)
@pytest.mark.parametrize("by", [1, 2, 4, 8, 16])
def test_a_flipped_bit_of_a_parameter_is_refused(name: str, by: int) -> None:
    signature = twilio_signature({name: [value] for name, value in SMS.items()})
    other_name = {**SMS, flipped(name.encode(), 1, by).decode(): SMS[name]}
    del other_name[name]
    other_value = {**SMS, name: flipped(SMS[name].encode() or b"0", 0, by).decode()}

    for form in (other_name, other_value):
        assert twilio(delivery(urlencoded(form), signature)) is Refusal.WRONG_SIGNATURE


@given(st.data(), flips)
def test_a_flipped_byte_of_the_url_the_token_or_the_signature_is_refused(
    data: st.DataObject, by: int
) -> None:
    form = {name: [value] for name, value in SMS.items()}
    signature = twilio_signature(form)
    what = data.draw(st.sampled_from(["path", "query", "url", "token", "signature"]))
    position = data.draw(st.integers(0))
    by = by & 0x7F or 1

    def perhaps(name: str, text: str) -> str:
        return flipped(text.encode(), position, by).decode() if what == name else text

    path, query = perhaps("path", TWILIO_MESSAGES), b"\x01" if what == "query" else b""
    host = PUBLIC_URL.removeprefix("https://")
    url = "https://" + (perhaps("url", host) if what == "url" else host)
    try:
        signatures = TwilioSignatures(perhaps("token", TOKEN), url)
    except ValueError:
        return  # no URL any more
    refusal = signatures(delivery(urlencoded(form), perhaps("signature", signature), query, path))
    assert refusal is Refusal.WRONG_SIGNATURE


@pytest.mark.parametrize(
    ("configured", "signed"),
    [
        ("https://a.example", "https://a.example:443"),
        ("https://a.example:8443", "https://a.example"),
        ("http://a.example:8080/", "http://a.example:8080"),
        ("http://[::1]:8080", "http://[::1]"),
        ("http://[::1]", "http://[::1]:80"),
    ],
)
def test_twilio_signs_urls_with_or_without_their_port(configured: str, signed: str) -> None:
    signature = twilio_signature({"a": ["b"]}, signed + TWILIO_MESSAGES)

    assert TwilioSignatures(TOKEN, configured)(delivery(b"a=b", signature)) is None


def test_the_query_is_signed() -> None:
    signature = twilio_signature({"a": ["b"]}, f"{PUBLIC_URL}{TWILIO_MESSAGES}?x=%20y&z")

    assert twilio(delivery(b"a=b", signature, b"x=%20y&z")) is None
    assert twilio(delivery(b"a=b", signature, b"x=+y&z")) is Refusal.WRONG_SIGNATURE


@given(st.binary(max_size=100), st.integers(0), flips)
def test_another_body_than_a_form_is_signed_by_its_hash_in_the_url(
    body: bytes, position: int, by: int
) -> None:
    query = f"bodySHA256={sha256(body).hexdigest()}"
    signature = twilio_signature({}, f"{PUBLIC_URL}{TWILIO_MESSAGES}?{query}")
    headers = {**JSON, "x-twilio-signature": signature}

    def refusal(of: bytes, query: str) -> Refusal | None:
        return twilio(Delivery(TWILIO_MESSAGES, query.encode(), headers, of))

    assert refusal(body, query) is None
    assert refusal(body + b"!", query) is Refusal.WRONG_SIGNATURE
    assert refusal(b"", "") is Refusal.WRONG_SIGNATURE
    if body:
        assert refusal(flipped(body, position, by), query) is Refusal.WRONG_SIGNATURE


@pytest.mark.parametrize("query", [b"a=%C3%A9", b"bodySHA256=%FF", b"\xff", b"&&=&%"])
def test_no_query_is_too_much(query: bytes) -> None:
    asked = Delivery(TWILIO_MESSAGES, query, {**JSON, "x-twilio-signature": "AAAA"}, b"{}")
    assert twilio(asked) is Refusal.WRONG_SIGNATURE


# --- SendGrid -----------------------------------------------------------------------------------------

sendgrid = SendgridKey.parse(PUBLIC_KEY)


def sendgrid_delivery(body: bytes, **changes: Any) -> Delivery:  # noqa: ANN401
    request = by_sendgrid(body, JSON, **changes)
    return Delivery(SENDGRID_EVENTS, b"", request["headers"], body)


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_what_sendgrid_signs_is_taken(text: str) -> None:
    genuine = sendgrid_delivery(text.encode())
    signature = genuine.headers["x-twilio-email-event-webhook-signature"]
    timestamp = genuine.headers["x-twilio-email-event-webhook-timestamp"]

    assert EventWebhook(PUBLIC_KEY).verify_signature(text, signature, timestamp)
    assert sendgrid(genuine) is None


@given(
    st.binary(min_size=1, max_size=200),
    st.sampled_from(["body", "signature", "timestamp"]),
    st.integers(0),
    flips,
)
def test_a_flipped_byte_is_refused(body: bytes, what: str, position: int, by: int) -> None:
    genuine = sendgrid_delivery(body)
    headers = dict(genuine.headers)
    if what == "body":
        body = flipped(body, position, by)
    else:
        name = f"x-twilio-email-event-webhook-{what}"
        headers[name] = flipped(headers[name].encode(), position, by).decode("latin-1")

    assert sendgrid(Delivery(SENDGRID_EVENTS, b"", headers, body)) is not None


@given(st.integers(0), flips)
def test_a_flipped_byte_of_the_key_is_no_key_or_another(position: int, by: int) -> None:
    der = flipped(base64.b64decode(PUBLIC_KEY), position, by)
    try:
        key = SendgridKey.parse(base64.b64encode(der).decode())
    except ValueError:
        return
    assert key(sendgrid_delivery(b"[]")) is Refusal.WRONG_SIGNATURE


def test_a_signature_has_one_spelling() -> None:
    genuine = next(each for each in map(sendgrid_delivery, [b"[]"] * 99) if _signature(each).endswith("="))
    signature = _signature(genuine)
    bare = signature.rstrip("=")
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    other = bare[:-1] + alphabet[alphabet.index(bare[-1]) ^ 1] + signature[len(bare) :]

    assert base64.b64decode(other) == base64.b64decode(signature)
    headers = {**genuine.headers, "x-twilio-email-event-webhook-signature": other}
    assert sendgrid(Delivery(SENDGRID_EVENTS, b"", headers, b"[]")) is Refusal.WRONG_SIGNATURE


def _signature(delivery: Delivery) -> str:
    return delivery.headers["x-twilio-email-event-webhook-signature"]


@pytest.mark.parametrize(("age", "refusal"), [(290, None), (-290, None), (301, "expired"), (-310, "expired")])
def test_a_signature_is_good_for_five_minutes(age: float, refusal: str | None) -> None:
    assert sendgrid(sendgrid_delivery(b"[]", age=age)) == refusal


@pytest.mark.parametrize("timestamp", ["", "soon", "1e9", "-1", "٣", "9" * 5_000, "nan", "1730469600.0"])
def test_a_malformed_timestamp_is_refused(timestamp: str) -> None:
    signature = base64.b64encode(KEY.sign(timestamp.encode() + b"[]", ec.ECDSA(SHA256()))).decode()
    headers = {
        "x-twilio-email-event-webhook-signature": signature,
        "x-twilio-email-event-webhook-timestamp": timestamp,
    }

    assert sendgrid(Delivery(SENDGRID_EVENTS, b"", headers, b"[]")) is Refusal.EXPIRED


def _spki(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> str:
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "topsecret",
        "*",
        "ключ",
        "MFkw",
        _spki(ec.derive_private_key(5, ec.SECP384R1()).public_key()),
        _spki(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()),
    ],
)
def test_a_key_has_to_be_one_of_its_curve(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a public key on the curve P-256, in base64$"):
        SendgridKey.parse(text)


# --- At the door --------------------------------------------------------------------------------------


def genuine(path: str) -> dict[str, Any]:
    """A signed webhook that lacks a field."""
    match path:
        case "/api/webhooks/twilio/messages":
            return by_twilio(path, {**SMS, "From": ""})
        case "/api/webhooks/twilio/status":
            return by_twilio(path, {**STATUS, "MessageSid": ""})
        case "/api/webhooks/sendgrid/inbound":
            return by_sendgrid(multipart({**MAIL, "envelope": ""}), MULTIPART)
        case _:
            return by_sendgrid(b"{}", JSON)


BODIES: dict[str, dict[str, Any]] = {
    TWILIO_MESSAGES: {"content": urlencoded(SMS), "headers": FORM},
    TWILIO_STATUS: {"content": urlencoded(STATUS), "headers": FORM},
    SENDGRID_INBOUND: {"content": multipart(MAIL), "headers": MULTIPART},
    SENDGRID_EVENTS: {"content": events(DELIVERED), "headers": JSON},
}


def refusals(provider: str, reason: str) -> float:
    labels = {"provider": provider, "reason": reason}
    return REGISTRY.get_sample_value("messaging_webhooks_refused_total", labels) or 0


def provider_of(path: str) -> str:
    return path.split("/")[3]


@pytest.mark.parametrize("path", PATHS)
async def test_a_genuine_webhook_is_read(path: str) -> None:
    response = await post(path, **genuine(path))

    assert response.status_code == 422, response.text


@pytest.mark.parametrize("path", PATHS)
async def test_an_unsigned_webhook_is_refused_and_counted(path: str) -> None:
    before = refusals(provider_of(path), "unsigned")
    response = await post(path, **BODIES[path])

    assert response.status_code == 403
    assert response.headers["content-type"] == "application/problem+json"
    assert refusals(provider_of(path), "unsigned") == before + 1


OTHER_KEY = ec.derive_private_key(7, ec.SECP256R1())
MALFORMED = ("", "*", "a", "é", "AAAA", "MAYCAQECAQE=", "A" * 5_000)


def signed_wrongly() -> Iterator[tuple[str, dict[str, Any]]]:
    yield TWILIO_MESSAGES, by_twilio(TWILIO_MESSAGES, SMS, token="another")
    yield TWILIO_MESSAGES, by_twilio(TWILIO_STATUS, SMS)
    yield SENDGRID_EVENTS, by_sendgrid(events(DELIVERED), JSON, key=OTHER_KEY)
    yield SENDGRID_INBOUND, by_sendgrid(b"\xff", MULTIPART, key=OTHER_KEY)
    for signature in MALFORMED:
        yield TWILIO_STATUS, with_header(by_twilio(TWILIO_STATUS, STATUS), "x-twilio-signature", signature)
        yield (
            SENDGRID_EVENTS,
            with_header(
                by_sendgrid(events(DELIVERED), JSON), "x-twilio-email-event-webhook-signature", signature
            ),
        )


def with_header(request: dict[str, Any], name: str, value: str) -> dict[str, Any]:
    return {**request, "headers": {**request["headers"], name: value.encode("latin-1")}}


async def test_a_wrong_signature_is_refused_and_counted() -> None:
    for path, request in signed_wrongly():
        before = refusals(provider_of(path), "wrong_signature")
        response = await post(path, **request)

        assert response.status_code == 403, request
        assert refusals(provider_of(path), "wrong_signature") == before + 1


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"x-forwarded-host": "evil.example"},
        {"forwarded": "host=evil.example;proto=http"},
    ],
)
async def test_what_a_request_says_of_its_url_does_not_matter(headers: dict[str, str]) -> None:
    response = await post(TWILIO_MESSAGES, **by_twilio(TWILIO_MESSAGES, {**SMS, "From": ""}, **headers))

    assert response.status_code == 422


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("settings", "status"),
    [({}, 415), ({"webhook_secret": WEBHOOK_SECRET}, 403)],
)
async def test_without_its_secret_a_webhook_is_open_only_where_all_are(
    path: str, settings: dict[str, str], status: int
) -> None:
    response = await post(path, settings=settings, content=b"", headers={"x-twilio-signature": "x"})

    assert response.status_code == status


async def test_the_document_tells_who_signs() -> None:
    document = create_app(make_settings(**SECRETS)).openapi()

    security = {path: document["paths"][path]["post"]["security"] for path in PATHS}
    assert security == {
        TWILIO_MESSAGES: [{"TwilioSignature": []}],
        TWILIO_STATUS: [{"TwilioSignature": []}],
        SENDGRID_INBOUND: [{"SendgridSignature": []}],
        SENDGRID_EVENTS: [{"SendgridSignature": []}],
    }


def test_twilio_needs_the_url_that_it_signs() -> None:
    with pytest.raises(ValidationError, match="must be set along with TWILIO_AUTH_TOKEN"):
        make_settings(twilio_auth_token=TOKEN)


def test_the_token_is_not_printed() -> None:
    assert TOKEN not in repr(make_settings(**SECRETS))


async def test_of_large_bodies_few_are_read_at_once() -> None:
    transport = httpx.ASGITransport(create_app(make_settings(**SECRETS)))
    headers = {**MULTIPART, "x-twilio-email-event-webhook-signature": "made up"}
    begun, end = asyncio.Semaphore(0), asyncio.Event()

    async def unfinished() -> AsyncIterator[bytes]:
        begun.release()
        yield b"x" * 1_000_000
        await end.wait()

    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:

        async def post(content: AsyncIterator[bytes] | bytes) -> httpx.Response:
            return await client.post(SENDGRID_INBOUND, content=content, headers=headers)

        reading = [asyncio.create_task(post(unfinished())) for _ in range(8)]
        for _ in reading:
            await begun.acquire()
        refused = await post(b"")
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        end.set()
        assert {(await each).status_code for each in reading} == {403}
        assert (await post(b"")).status_code == 403
