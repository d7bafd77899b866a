"""Sending webhooks to the gateway. Each API signs its own."""

import asyncio
from collections.abc import Mapping

import httpx
from pydantic import BaseModel, JsonValue

Payload = dict[str, JsonValue]

MAX_CONCURRENT = 64
"""Webhooks that are sent to the gateway at the same time. The others wait for their turn, however long."""


def make_client(*, timeout: float) -> httpx.AsyncClient:
    """Create the client for webhooks; `timeout` is in seconds, from the time when a request is made."""
    # The pool has no limit: waiting for a connection would count towards the timeout, and an overload would
    # make each webhook that waits fail, and be sent again. No proxy of the environment is used.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=MAX_CONCURRENT)
    return httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False)


class GatewayUnreachableError(Exception):
    """The gateway did not respond."""


class NotConnectedError(GatewayUnreachableError):
    """No connection was made, so the gateway cannot have received the webhook."""


class WebhookResult(BaseModel):
    """A webhook that was sent, and the gateway's response to it."""

    status: int
    payload: JsonValue
    response: JsonValue

    @classmethod
    def of(cls, payload: JsonValue, response: httpx.Response) -> "WebhookResult":
        return cls(status=response.status_code, payload=payload, response=_content(response))


def _content(response: httpx.Response) -> JsonValue:
    try:
        content: JsonValue = response.json()
    except ValueError:
        return response.text
    return content


class Gateway:
    """The gateway, as the recipient of webhooks.

    Args:
        client: Makes the requests, with its own timeouts.
        url: The address of the gateway, without a slash at the end.
        public_url: The address at which providers reach the gateway, if it is a different one. Some
            signatures cover the URL of a webhook, and then the gateway verifies them against this one.
    """

    def __init__(self, client: httpx.AsyncClient, url: str, public_url: str | None = None) -> None:
        self._client = client
        self._url = url
        self._places = asyncio.Semaphore(MAX_CONCURRENT)
        self.public_url = public_url or url

    async def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """Post a webhook to a URL. A URL below `public_url` is posted to the gateway itself.

        Raises:
            GatewayUnreachableError: There was no response.
        """
        is_public = url.startswith(f"{self.public_url}/")
        address = self._url + url.removeprefix(self.public_url) if is_public else url
        try:
            async with self._places:
                return await self._client.post(address, content=content, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            raise NotConnectedError(f"no connection to {address}: {exc!r}") from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise GatewayUnreachableError(f"no response from {address}: {exc!r}") from exc
