"""Both channels and a gateway that only receives, over real HTTP, for the providers' own SDKs."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from random import Random

import httpx
import pytest_asyncio
from fastapi import FastAPI, Request, Response

from mock_providers.app import create_app
from mock_providers.registry import EMAIL, SMS
from mock_providers.sendgrid.settings import SendGridSettings
from mock_providers.server import listen, serving, url_of
from mock_providers.twilio.settings import TwilioSettings
from mock_providers.webhooks import Gateway
from tests.providers import MockProvider
from tests.waiting import eventually

PUBLIC_URL = "https://messages.example.org/base"


@dataclass(frozen=True)
class Webhook:
    path: str
    headers: httpx.Headers
    body: bytes


@dataclass
class Receiver:
    """Keeps the webhooks, and responds with the status that `answer` returns."""

    answer: Callable[[Webhook], int] = lambda _: 200
    received: list[Webhook] = field(default_factory=list)

    async def __call__(self, request: Request) -> Response:
        path = f"{request.url.path}?{request.url.query}".rstrip("?")
        webhook = Webhook(path, httpx.Headers(request.headers.raw), await request.body())
        self.received.append(webhook)
        return Response(status_code=self.answer(webhook))

    async def wait_for(self, count: int, matches: Callable[[Webhook], bool]) -> list[Webhook]:
        """Return the webhooks that match, as soon as there are enough of them."""

        async def found() -> list[Webhook]:
            webhooks = [webhook for webhook in self.received if matches(webhook)]
            return webhooks if len(webhooks) >= count else []

        return await eventually(found)


@dataclass(frozen=True)
class Mocks:
    receiver: Receiver
    sms: MockProvider
    email: MockProvider
    http: httpx.AsyncClient
    twilio: TwilioSettings
    sendgrid: SendGridSettings


@pytest_asyncio.fixture(scope="session")
async def running_mocks() -> AsyncIterator[Mocks]:
    receiver = Receiver()
    twilio, sendgrid = TwilioSettings.model_construct(), SendGridSettings.model_construct()
    app = FastAPI()
    app.add_api_route("/{path:path}", receiver.__call__, methods=["POST"])
    gateway_at, sms_at, email_at = (listen("127.0.0.1", 0) for _ in range(3))
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        gateway = Gateway(http, url_of(gateway_at), public_url=PUBLIC_URL)
        sms, email = (create_app(channel, gateway, Random(1), [twilio, sendgrid]) for channel in (SMS, EMAIL))
        async with serving({gateway_at: app, sms_at: sms, email_at: email}):
            handles = [MockProvider(http, url_of(at)) for at in (sms_at, email_at)]
            yield Mocks(receiver, handles[0], handles[1], http, twilio, sendgrid)


@pytest_asyncio.fixture
async def mocks(running_mocks: Mocks) -> Mocks:
    """Return the running providers in the state in which they started."""
    running_mocks.receiver.received.clear()
    running_mocks.receiver.answer = Receiver.answer
    for provider in (running_mocks.sms, running_mocks.email):
        await provider.recover()
        await running_mocks.http.delete(f"{provider.url}/mock/messages")
    return running_mocks
