"""Twilio's error codes that have a special meaning to us; any other code is only reported."""

from shared.providers import base

OPTED_OUT = 21610
"""The recipient has opted out. The response to a request or a later status callback may contain this code."""

NOT_FOUND = 20404
"""In the response to a request to send: the account does not exist."""

BUSY_NUMBERS = {21_611, 30_001}
"""The queue of the sending number is full."""

ALL = range(10_000, 100_000)

ACCOUNT = range(20_000, 21_000)
"""These concern the account or the request as such; other codes concern one message."""


def name_of(code: int) -> str:
    """Return our name for a code, as errors and the message's history show it."""
    return base.OPTED_OUT if code == OPTED_OUT else f"twilio_{code}"
