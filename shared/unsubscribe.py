"""The tokens in the links by which people unsubscribe: who from whom, signed so that nobody can make one."""

import base64
import hmac
import json
from dataclasses import astuple, dataclass
from typing import Self

from shared.channels import Channel

_SIGNATURE = 32
"""Bytes of HMAC-SHA256."""

_PURPOSE = b"unsubscribe\n"


@dataclass(frozen=True, slots=True)
class Subscription:
    """That `theirs` gets messages from `ours`: keys of addresses."""

    channel: Channel
    ours: str
    theirs: str

    def sign(self, secret: str) -> str:
        """Make the token, of `[A-Za-z0-9_-]`."""
        content = json.dumps(astuple(self), ensure_ascii=False, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(_signature(content, secret) + content).rstrip(b"=").decode()

    @classmethod
    def verify(cls, token: str, secret: str) -> Self | None:
        """Read a token; None if it was not made with this secret."""
        try:
            raw = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        except ValueError:
            return None
        signature, content = raw[:_SIGNATURE], raw[_SIGNATURE:]
        if not hmac.compare_digest(signature, _signature(content, secret)):
            return None
        channel, ours, theirs = json.loads(content)
        return cls(Channel(channel), ours, theirs)


def _signature(content: bytes, secret: str) -> bytes:
    return hmac.digest(secret.encode(), _PURPOSE + content, "sha256")
