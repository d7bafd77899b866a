import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.channels import Channel
from shared.unsubscribe import Subscription

SECRET = "a secret of some length"
SUBSCRIPTION = Subscription(Channel.EMAIL, "ann@example.com", "ben@example.org")
TOKEN = SUBSCRIPTION.sign(SECRET)


@given(st.builds(Subscription, st.sampled_from(Channel), st.text(max_size=40), st.text(max_size=40)))
def test_a_token_says_who_from_whom(subscription: Subscription) -> None:
    token = subscription.sign(SECRET)

    assert Subscription.verify(token, SECRET) == subscription
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)


def test_a_link_is_the_same_in_every_mail() -> None:
    assert SUBSCRIPTION.sign(SECRET) == TOKEN


@pytest.mark.parametrize("token", ["", "x", "é", TOKEN[:-1], TOKEN[1:], "A" * 100, TOKEN + "AAAA"])
def test_what_was_not_signed_is_no_token(token: str) -> None:
    assert Subscription.verify(token, SECRET) is None


def test_nor_is_what_was_signed_with_another_secret() -> None:
    assert Subscription.verify(TOKEN, "another secret of some length") is None


@given(st.integers(0), st.integers(0, 7))
def test_no_bit_of_a_token_can_be_changed(position: int, bit: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(TOKEN + "=" * (-len(TOKEN) % 4)))
    raw[position % len(raw)] ^= 1 << bit
    assert Subscription.verify(base64.urlsafe_b64encode(raw).rstrip(b"=").decode(), SECRET) is None
