import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.sender.circuit_breaker import CircuitBreaker
from services.sender.limits import Limiter
from services.sender.provider_client import ProviderClient
from services.sender.settings import Limits
from shared.channels import Channel
from shared.message import Message
from shared.providers.base import (
    Adapter,
    CredentialsError,
    File,
    HttpAnswer,
    HttpRequest,
    NotReachedError,
    Provider,
    ProviderError,
    RejectedError,
    TemporaryError,
    UnknownOutcomeError,
)
from shared.providers.http import HttpClient
from shared.settings import Settings
from tests import messages

UNREACHABLE = NotReachedError("not_reached", "refused")


class StubAdapter(Adapter[Settings]):
    honours_idempotency_keys = True
    takes_files = True

    def __init__(self, settings: Settings) -> None:  # noqa: ARG002 - as its base
        self.files: Sequence[File] = ()

    def request(self, message: Message, files: Sequence[File]) -> HttpRequest:
        if message.body == "odd":
            raise KeyError("oops")
        self.files = files
        return HttpRequest.json("http://stub", {"id": str(message.id)}, {})

    def message_id(self, answer: HttpAnswer) -> object:
        return answer.field("id")


class StubProvider(HttpClient):
    """Answers with these statuses or exceptions in turn, and after them with acceptances."""

    def __init__(self, *answers: int | Exception) -> None:
        self._answers = list(answers)
        self.requests = 0
        self.in_progress = 0
        self.max_in_progress = 0

    async def post(self, request: HttpRequest) -> HttpAnswer:
        self.requests += 1
        self.in_progress += 1
        self.max_in_progress = max(self.max_in_progress, self.in_progress)
        await asyncio.sleep(0)
        self.in_progress -= 1
        answer = self._answers.pop(0) if self._answers else 200
        if isinstance(answer, Exception):
            raise answer
        return HttpAnswer(answer, {}, request.body)


FILE = File("a.txt", "text/plain", b"A")


async def fetch(urls: Sequence[str]) -> Sequence[File]:
    """Return a file, or fail as the URL says."""
    match urls:
        case ["unreachable"]:
            raise TemporaryError("attachment_unreachable", "x")
        case ["refused"]:
            raise RejectedError("attachment_refused", "x")
        case ["slow"]:
            await asyncio.Event().wait()
        case ["odd"]:
            raise KeyError("oops")
    return [FILE]


STUB: Provider[Any] = Provider(name="stub", channel=Channel.SMS, settings=Settings, adapter=StubAdapter)


def client_of(
    provider: StubProvider,
    *,
    failures: int = 2,
    limits: Limits = Limits(10),  # noqa: B008 - immutable
    adapter: StubAdapter | None = None,
) -> ProviderClient:
    return ProviderClient(
        STUB,
        adapter or StubAdapter(Settings()),
        provider,
        breaker=CircuitBreaker(failures=failures, pause=timedelta(minutes=1), clock=messages.now),
        limiter=Limiter(limits),
        fetch=fetch,
    )


async def test_the_number_of_requests_in_progress_is_limited() -> None:
    provider = StubProvider()
    client = client_of(provider, limits=Limits(concurrency=3))

    async def send() -> None:
        async with client.slot():
            await client.send(messages.message())

    await asyncio.gather(*(send() for _ in range(20)))
    assert (provider.requests, provider.max_in_progress) == (20, 3)


async def test_the_rate_is_limited() -> None:
    client = client_of(StubProvider(), limits=Limits(concurrency=10, rate=0.001))
    async with client.slot():
        pass
    second = asyncio.ensure_future(client.slot().__aenter__())
    done, _ = await asyncio.wait({second}, timeout=0.05)
    assert not done
    second.cancel()


async def test_a_failed_connection_is_retried_at_once() -> None:
    provider = StubProvider(UNREACHABLE, UNREACHABLE)
    message = messages.message()
    assert await client_of(provider).send(message) == str(message.id)
    assert provider.requests == 3


async def test_a_failed_connection_is_retried_twice() -> None:
    provider = StubProvider(*[UNREACHABLE] * 3)
    with pytest.raises(ProviderError):
        await client_of(provider).send(messages.message())
    assert provider.requests == 3


@pytest.mark.parametrize(("status", "error"), [(503, TemporaryError), (400, RejectedError)])
async def test_an_answer_is_not_requested_again(status: int, error: type[ProviderError]) -> None:
    provider = StubProvider(status)
    with pytest.raises(error):
        await client_of(provider).send(messages.message())
    assert provider.requests == 1


async def test_failures_open_the_breaker_and_rejections_of_a_message_do_not() -> None:
    rejecting = client_of(StubProvider(*[400] * 5))
    failing = client_of(StubProvider(*[500] * 2))
    for client, times in ((rejecting, 5), (failing, 2)):
        for _ in range(times):
            with pytest.raises(ProviderError):
                await client.send(messages.message())
    assert rejecting.try_acquire()
    assert not failing.try_acquire()


async def test_rejected_credentials_open_the_breaker_at_once() -> None:
    client = client_of(StubProvider(401), failures=100)
    with pytest.raises(CredentialsError):
        await client.send(messages.message())
    assert not client.is_available
    assert not client.try_acquire()
    assert client.retry_at > messages.now()


async def test_a_provider_counts_as_paused_until_it_accepts_or_rejects_a_message() -> None:
    shown = []
    client = client_of(StubProvider(401, 503, 400, 401), failures=100)
    for _ in range(5):
        with suppress(ProviderError):
            await client.send(messages.message())
        shown.append(REGISTRY.get_sample_value("messaging_provider_paused", {"provider": "stub"}))
    assert shown == [1, 1, 0, 1, 0]


async def test_an_unexpected_error_of_an_adapter_is_an_unknown_outcome() -> None:
    with pytest.raises(UnknownOutcomeError, match="KeyError"):
        await client_of(StubProvider()).send(messages.message(body="odd"))


async def test_attachments_are_fetched_once_for_a_provider_that_takes_files() -> None:
    provider, adapter = StubProvider(UNREACHABLE), StubAdapter(Settings())
    client = client_of(provider, adapter=adapter)
    await client.send(messages.message(attachments=["https://example.com/a.txt"]))
    assert (provider.requests, adapter.files) == (2, [FILE])


@pytest.mark.parametrize(
    ("url", "error", "code"),
    [
        ("unreachable", TemporaryError, "attachment_unreachable"),
        ("refused", RejectedError, "attachment_refused"),
        ("odd", TemporaryError, "attachment_unexpected"),
    ],
)
async def test_a_failed_attachment_says_nothing_about_the_provider(
    url: str, error: type[ProviderError], code: str
) -> None:
    provider = StubProvider()
    client = client_of(provider, failures=2)
    for _ in range(2):
        with pytest.raises(error) as caught:
            await client.send(messages.message(attachments=[url]))
        assert caught.value.code == code
    assert provider.requests == 0
    assert client.try_acquire()


async def test_an_interrupted_attachment_leaves_nothing_in_doubt() -> None:
    provider = StubProvider()
    client = client_of(provider)
    sending = asyncio.ensure_future(client.send(messages.message(attachments=["slow"])))
    await asyncio.sleep(0)
    client.finish_within(0)
    with pytest.raises(TemporaryError) as caught:
        await sending
    assert (caught.value.code, provider.requests) == ("attachment_timeout", 0)
