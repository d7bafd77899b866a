"""Tokens of the links by which recipients unsubscribe, signed so that nobody else can create one."""

from dataclasses import astuple, dataclass
from hashlib import sha256
from typing import Self

from itsdangerous import BadData, URLSafeSerializer

from shared.channels import Channel

_SALT = "unsubscribe"


@dataclass(frozen=True, slots=True)
class Subscription:
    """The fact that `theirs` receives messages from `ours`; both are keys of addresses."""

    channel: Channel
    ours: str
    theirs: str

    def sign(self, secret: str) -> str:
        """Return the token, which consists of characters that a URL needs not escape."""
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
