import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.channels import Channel
from shared.unsubscribe import Subscription

SECRET = "a long enough secret"
SUBSCRIPTION = Subscription(Channel.EMAIL, "ann@example.com", "ben@example.org")
TOKEN = SUBSCRIPTION.sign(SECRET)


@given(st.builds(Subscription, st.sampled_from(Channel), st.text(max_size=40), st.text(max_size=40)))
def test_a_token_contains_its_subscription(subscription: Subscription) -> None:
    token = subscription.sign(SECRET)

    assert Subscription.verify(token, SECRET) == subscription
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", token)


def test_the_token_of_a_subscription_is_always_the_same() -> None:
    assert SUBSCRIPTION.sign(SECRET) == TOKEN


@pytest.mark.parametrize("token", ["", "x", "é", TOKEN[:-1], TOKEN[1:], "A" * 100, TOKEN + "AAAA"])
def test_a_token_without_a_valid_signature_is_rejected(token: str) -> None:
    assert Subscription.verify(token, SECRET) is None


def test_a_token_that_was_signed_with_another_secret_is_rejected() -> None:
    assert Subscription.verify(TOKEN, "another long enough secret") is None


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from(string.ascii_letters + string.digits + "_.-"))
def test_a_token_with_any_character_changed_is_never_another_subscription(
    position: int, character: str
) -> None:
    changed = TOKEN[:position] + character + TOKEN[position + 1 :]
    assert Subscription.verify(changed, SECRET) in (None, SUBSCRIPTION)
