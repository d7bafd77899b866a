"""Signatures of the generic webhooks, computed again by the rules of Standard Webhooks."""

import hmac
from base64 import b64encode
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from mock_providers.generic.signature import decode_secret, webhook_headers

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_published_vector() -> None:
    moment = datetime.fromtimestamp(1614265330, UTC)
    signature = Webhook(decode_secret(SECRET)).sign(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", moment, '{"test": 2432232314}'
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(text=st.text())
def test_the_signature_covers_id_timestamp_and_body(text: str) -> None:
    headers = webhook_headers(decode_secret(SECRET), "event", text.encode())
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{text}".encode()
    digest = hmac.digest(decode_secret(SECRET), signed, "sha256")
    assert headers["webhook-signature"] == f"v1,{b64encode(digest).decode()}"


def test_without_a_key_there_is_no_signature() -> None:
    headers = webhook_headers(None, "event", b"{}")
    assert headers.keys() == {"content-type", "webhook-id", "webhook-timestamp"}


def test_the_padding_of_a_secret_is_optional() -> None:
    assert decode_secret("whsec_c2VjcmV0cw") == decode_secret("whsec_c2VjcmV0cw==") == b"secrets"


@pytest.mark.parametrize("malformed", ["", "whsec_", "c2VjcmV0cw==", "whsec_c2Vj*cmV0", "whsec_ä", "whsec_a"])
def test_malformed_secrets(malformed: str) -> None:
    with pytest.raises(ValueError, match="must be whsec_ followed by base64"):
        decode_secret(malformed)
