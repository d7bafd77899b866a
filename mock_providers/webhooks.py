"""What the providers send to the gateway, signed by Standard Webhooks 1.0."""

import hmac
import json
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping
from uuid import NAMESPACE_URL, uuid5

import httpx
from pydantic import BaseModel, JsonValue

Payload = dict[str, JsonValue]

_SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix that makes secrets recognisable, not a secret


class GatewayUnreachableError(Exception):
    """The gateway gave no answer."""


class NotConnectedError(GatewayUnreachableError):
    """The gateway can't have seen the webhook."""


class Delivery(BaseModel):
    """A webhook, and how the gateway answered it."""

    status: int
    payload: JsonValue
    response: JsonValue


def decode_secret(secret: str) -> bytes:
    """The key in a secret. Raises ValueError when it isn't `whsec_` and base64."""
    encoded = secret.removeprefix(_SECRET_PREFIX)
    try:
        key = b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        key = b""
    if encoded == secret or not key:
        raise ValueError(f"must be {_SECRET_PREFIX} followed by base64")
    return key


def sign(key: bytes, webhook_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` of a body sent at `timestamp` (seconds since 1970)."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return f"v1,{b64encode(hmac.digest(key, signed, 'sha256')).decode()}"


class Gateway:
    """The gateway as its providers see it.

    Args:
        client: Makes the requests, with its own timeouts.
        url: Of the gateway, without a slash at the end.
        key: Signs the generic webhooks; without one they go unsigned.
        public_url: Under which the gateway believes to be reached, if not under `url`. URLs that
            begin with it are signed as they are, and looked for at `url`.
    """

    def __init__(
        self, client: httpx.AsyncClient, url: str, key: bytes | None = None, public_url: str | None = None
    ) -> None:
        self._client = client
        self._url = url
        self._key = key
        self.public_url = public_url or url

    async def deliver(self, path: str, event: str, payload: Payload) -> Delivery:
        """Post a webhook. The same path and event get the same `webhook-id`, whenever they are sent.

        Raises:
            GatewayUnreachableError: There was no answer.
        """
        body = json.dumps(payload).encode()
        webhook_id = f"msg_{uuid5(NAMESPACE_URL, f'{path}#{event}').hex}"
        timestamp = int(time.time())
        headers = {
            "content-type": "application/json",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(timestamp),
        }
        if self._key:
            headers["webhook-signature"] = sign(self._key, webhook_id, timestamp, body)
        response = await self.post(self.public_url + path, body, headers)
        return delivery(payload, response)

    async def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """Post to a public URL.

        Raises:
            GatewayUnreachableError: There was no answer.
        """
        within = url.startswith(f"{self.public_url}/")
        address = self._url + url.removeprefix(self.public_url) if within else url
        try:
            return await self._client.post(address, content=content, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            raise NotConnectedError(f"no connection to {address}: {exc!r}") from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise GatewayUnreachableError(f"no answer from {address}: {exc!r}") from exc


def delivery(payload: JsonValue, response: httpx.Response) -> Delivery:
    return Delivery(status=response.status_code, payload=payload, response=_content(response))


def _content(response: httpx.Response) -> JsonValue:
    try:
        content: JsonValue = response.json()
    except ValueError:
        return response.text
    return content
