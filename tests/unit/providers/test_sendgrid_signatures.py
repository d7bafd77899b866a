"""The signatures of SendGrid's webhooks, as SendGrid's own library verifies them."""

import base64
import string
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from sendgrid.helpers.eventwebhook import EventWebhook

from shared.providers.registry import create_verifier
from shared.providers.sendgrid import SENDGRID
from shared.providers.sendgrid.signature import SendGridKey
from shared.providers.webhooks import (
    Refusal,
    WebhookRequest,
)
from shared.settings import SettingsError
from tests.unit.providers.parsing import (
    flipped,
    flips,
    request,
)
from tests.webhooks import (
    DELIVERED,
    JSON,
    KEY,
    PUBLIC_KEY,
    SENDGRID_EVENTS,
    by_sendgrid,
    events,
)

SIGNATURE = "x-twilio-email-event-webhook-signature"
TIMESTAMP = "x-twilio-email-event-webhook-timestamp"
OTHER_KEY = ec.derive_private_key(7, ec.SECP256R1())

verify = SendGridKey.parse(PUBLIC_KEY).verify


def signed(body: bytes, **changes: Any) -> WebhookRequest:  # noqa: ANN401 - arguments of `by_sendgrid`
    return given_headers(body, by_sendgrid(body, JSON, **changes)["headers"])


def given_headers(body: bytes, headers: Mapping[str, str]) -> WebhookRequest:
    return request(body, headers, path=SENDGRID_EVENTS, received_at=datetime.now(UTC))


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_a_genuine_request_also_passes_the_library_of_sendgrid(text: str) -> None:
    genuine = signed(text.encode())

    assert EventWebhook(PUBLIC_KEY).verify_signature(
        text, genuine.headers[SIGNATURE], genuine.headers[TIMESTAMP]
    )
    assert verify(genuine) is None


@given(
    st.binary(min_size=1, max_size=200),
    st.sampled_from(["body", SIGNATURE, TIMESTAMP]),
    st.integers(0),
    flips,
)
def test_a_flipped_byte_is_refused(body: bytes, target: str, position: int, by: int) -> None:
    headers = dict(signed(body).headers)
    if target == "body":
        body = flipped(body, position, by)
    else:
        headers[target] = flipped(headers[target].encode(), position, by).decode("latin-1")

    assert verify(given_headers(body, headers)) is not None


@given(st.integers(0), flips)
def test_a_flipped_byte_of_the_key_makes_an_invalid_or_another_key(position: int, by: int) -> None:
    der = flipped(base64.b64decode(PUBLIC_KEY), position, by)
    try:
        key = SendGridKey.parse(base64.b64encode(der).decode())
    except ValueError:
        return
    assert key.verify(signed(b"[]")) is Refusal.WRONG_SIGNATURE


def test_a_signature_by_another_key_is_refused() -> None:
    assert verify(signed(events(DELIVERED), key=OTHER_KEY)) is Refusal.WRONG_SIGNATURE
    assert verify(signed(b"\xff", key=OTHER_KEY)) is Refusal.WRONG_SIGNATURE


@pytest.mark.parametrize("signature", ["", "*", "a", "é", "AAAA", "MAYCAQECAQE=", "A" * 5_000])
def test_a_malformed_signature_is_refused(signature: str) -> None:
    headers = {**signed(b"[]").headers, SIGNATURE: signature}

    assert verify(given_headers(b"[]", headers)) is Refusal.WRONG_SIGNATURE


def test_a_signature_has_one_spelling() -> None:
    genuine = next(each for each in map(signed, [b"[]"] * 99) if each.headers[SIGNATURE].endswith("="))
    signature = genuine.headers[SIGNATURE]
    bare = signature.rstrip("=")
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    other = bare[:-1] + alphabet[alphabet.index(bare[-1]) ^ 1] + signature[len(bare) :]

    assert base64.b64decode(other) == base64.b64decode(signature)
    headers = {**genuine.headers, SIGNATURE: other}
    assert verify(given_headers(b"[]", headers)) is Refusal.WRONG_SIGNATURE


@pytest.mark.parametrize(("age", "refusal"), [(290, None), (-290, None), (301, "expired"), (-310, "expired")])
def test_a_signature_is_valid_for_five_minutes(age: float, refusal: str | None) -> None:
    assert verify(signed(b"[]", age=age)) == refusal


@pytest.mark.parametrize("timestamp", ["", "soon", "1e9", "-1", "٣", "9" * 5_000, "nan", "1730469600.0"])
def test_a_malformed_timestamp_is_refused(timestamp: str) -> None:
    signature = base64.b64encode(KEY.sign(timestamp.encode() + b"[]", ec.ECDSA(SHA256()))).decode()
    headers = {SIGNATURE: signature, TIMESTAMP: timestamp}

    assert verify(given_headers(b"[]", headers)) is Refusal.EXPIRED


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
def test_the_key_has_to_be_on_its_curve(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        create_verifier(SENDGRID, sendgrid_webhook_public_key=text)
    fault = "SENDGRID_WEBHOOK_PUBLIC_KEY: must be a public key on the curve P-256, in base64"
    assert caught.value.faults == (fault,)


@pytest.mark.usefixtures("no_environment")
def test_the_verifier_needs_the_key() -> None:
    assert create_verifier(SENDGRID) is None
    verifier = create_verifier(SENDGRID, sendgrid_webhook_public_key=PUBLIC_KEY)
    assert verifier
    assert verifier(signed(b"[]")) is None
