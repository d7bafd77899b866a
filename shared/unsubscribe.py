"""Tokens for unsubscribe links, signed so that nobody else can create them."""

from dataclasses import astuple, dataclass
from hashlib import sha256
from typing import Self

from itsdangerous import BadData, URLSafeSerializer

from shared.channels import Channel

_SALT = "unsubscribe"


@dataclass(frozen=True, slots=True)
class Subscription:
    """A recipient (`theirs`) of messages from one of our addresses (`ours`); both are address keys."""

    channel: Channel
    ours: str
    theirs: str

    def sign(self, secret: str) -> str:
        """Return the token, which consists of characters that need no escaping in a URL."""
        return _serializer(secret).dumps(astuple(self))

    @classmethod
    def verify(cls, token: str, secret: str) -> Self | None:
        """Return the subscription of a token, or None if it was not signed with this secret."""
        try:
            channel, ours, theirs = _serializer(secret).loads(token)
        except BadData:
            return None
        return cls(Channel(channel), ours, theirs)


def _serializer(secret: str) -> URLSafeSerializer:
    return URLSafeSerializer(secret, salt=_SALT, signer_kwargs={"digest_method": sha256})
