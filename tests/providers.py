"""The mock providers, run in the test's own event loop and controlled over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import httpx

from mock_providers.api import Channel
from mock_providers.app import create_app
from mock_providers.server import listen, serving, url_of
from mock_providers.webhooks import Gateway


class MockProvider:
    """The controls of a mock provider, wherever it runs."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self.url = url

    async def behave(self, **behaviour: Any) -> None:  # noqa: ANN401 - any behaviour of the mock
        (await self._client.put(f"{self.url}/mock/behaviour", json=behaviour)).raise_for_status()

    async def recover(self) -> None:
        (await self._client.delete(f"{self.url}/mock/behaviour")).raise_for_status()

    async def messages(self) -> list[dict[str, Any]]:
        """Return the messages that it has accepted, in order."""
        answer = await self._client.get(f"{self.url}/mock/messages")
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    async def stats(self) -> dict[str, int]:
        stats: dict[str, int] = (await self._client.get(f"{self.url}/mock/stats")).json()
        return stats

    async def inbound(self, **payload: Any) -> httpx.Response:  # noqa: ANN401 - any field of a webhook
        return await self._client.post(f"{self.url}/mock/inbound", json=payload)

    async def receipt(self, **payload: Any) -> httpx.Response:  # noqa: ANN401 - any field of a receipt
        return await self._client.post(f"{self.url}/mock/receipts", json=payload)


@asynccontextmanager
async def running(
    channel: Channel, *, gateway_url: str = "http://127.0.0.1:9"
) -> AsyncIterator[MockProvider]:
    listener = listen("127.0.0.1", 0)
    async with httpx.AsyncClient(trust_env=False) as client:
        app = create_app(channel, Gateway(client, gateway_url), Random(1))
        async with serving({listener: app}):
            yield MockProvider(client, url_of(listener))
