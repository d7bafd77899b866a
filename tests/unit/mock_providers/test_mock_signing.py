"""The signature, with the `standardwebhooks` library as the oracle."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from mock_providers.webhooks import decode_secret, sign

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_published_vector() -> None:
    signature = sign(
        decode_secret(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(body=st.text(), seconds=st.integers(0, 4_000_000_000))
def test_the_library_signs_the_same(body: str, seconds: int) -> None:
    expected = Webhook(SECRET).sign("msg_1", datetime.fromtimestamp(seconds, UTC), body)
    assert sign(decode_secret(SECRET), "msg_1", seconds, body.encode()) == expected


def test_a_secret_may_leave_its_padding_out() -> None:
    assert decode_secret("whsec_c2VjcmV0cw") == decode_secret("whsec_c2VjcmV0cw==") == b"secrets"


@pytest.mark.parametrize("malformed", ["", "whsec_", "c2VjcmV0cw==", "whsec_c2Vj*cmV0", "whsec_ä", "whsec_a"])
def test_malformed_secrets(malformed: str) -> None:
    with pytest.raises(ValueError, match="must be whsec_ followed by base64"):
        decode_secret(malformed)
