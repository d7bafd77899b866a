"""The signing secrets of webhook endpoints. They are encrypted, not hashed, because they sign webhooks."""

import base64
from functools import lru_cache
from secrets import token_bytes
from typing import Annotated, Self

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BeforeValidator, Field, InstanceOf
from pydantic_settings import NoDecode

from shared.errors import ServiceError
from shared.settings import MIN_SECRET, Settings

_PREFIX = "whsec_"
_SECRET_BYTES = 32


class UndecryptableSecretError(ServiceError):
    """A secret was encrypted with a key that is not configured any more."""


def new_secret() -> str:
    """Return a new signing secret, as Standard Webhooks writes it."""
    return _PREFIX + base64.b64encode(token_bytes(_SECRET_BYTES)).decode()


class SecretCipher:
    """Encrypts with the first of several keys, and decrypts with any of them, so that keys can be rotated."""

    def __init__(self, *keys: str) -> None:
        # An endpoint's secret is needed for each webhook, and decrypting it takes longer than signing.
        self._decrypt = lru_cache(maxsize=4_096)(self._decrypt_anew)
        self._fernet = MultiFernet([Fernet(_derive(key)) for key in keys]) if keys else None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse keys of at least 16 characters, separated by commas.

        Raises:
            ValueError: there are no keys, or one is too short; the error does not contain any key.
        """
        keys = [key for each in text.split(",") if (key := each.strip())]
        if not keys:
            raise ValueError("has no entries")
        if any(len(key) < MIN_SECRET for key in keys):
            raise ValueError(f"has an entry of less than {MIN_SECRET} characters")
        return cls(*keys)

    def __bool__(self) -> bool:
        return self._fernet is not None

    def encrypt(self, secret: str) -> str:
        assert self._fernet is not None  # noqa: S101 - callers check that there is a key
        return self._fernet.encrypt(secret.encode()).decode()

    def decrypt(self, ciphertext: str) -> str:
        """Decrypt a secret.

        Raises:
            UndecryptableSecretError: it was encrypted with another key.
        """
        return self._decrypt(ciphertext)

    def _decrypt_anew(self, ciphertext: str) -> str:
        try:
            assert self._fernet is not None  # noqa: S101 - callers check that there is a key
            return self._fernet.decrypt(ciphertext).decode()
        except InvalidToken as exc:
            raise UndecryptableSecretError("WEBHOOK_ENDPOINT_KEY has changed") from exc


def _derive(key: str) -> bytes:
    """Return a key of the length that the cipher needs."""
    derivation = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"webhook endpoints")
    return base64.urlsafe_b64encode(derivation.derive(key.encode()))


class EndpointKeySettings(Settings):
    """The settings of webhook endpoints that the gateway and the notifier share.

    Attributes:
        webhook_endpoint_key: encrypts the signing secrets of endpoints.
        allow_private_webhooks: whether endpoints may be on this machine and its network, and use plain HTTP.
    """

    webhook_endpoint_key: Annotated[
        InstanceOf[SecretCipher], NoDecode, BeforeValidator(SecretCipher.parse)
    ] = Field(default=SecretCipher(), validate_default=False, repr=False)
    allow_private_webhooks: bool = False
