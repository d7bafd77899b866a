import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from services.sender.circuit_breaker import CircuitBreaker
from shared.providers.base import (
    CredentialsError,
    File,
    NotReachedError,
    Provider,
    ProviderError,
    RejectedError,
    TemporaryError,
    UnknownOutcomeError,
    is_provider_id,
)
from services.sender.provider_client import Limits, Route
from shared.channels import Channel
from shared.events import Message
from shared.settings import Settings
from tests import messages


class Stub(Provider):
    """A provider that answers as it is told to."""

    name = "stub"
    channel = Channel.SMS
    settings = Settings
    honours_idempotency_keys = True
    takes_files = True

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.asked = 0
        self.under_way = 0
        self.most_under_way = 0
        self.files: Sequence[File] = ()

    async def send(self, message: Message, files: Sequence[File]) -> str:
        self.files = files
        self.asked += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        if self._errors:
            raise self._errors.pop(0)
        return f"stub-{message.id}"


FILE = File("a.txt", "text/plain", b"A")


async def fetch(urls: Sequence[str]) -> Sequence[File]:
    """Fetch what the URL says: an attachment, or what happens instead."""
    match urls:
        case ["away"]:
            raise TemporaryError("attachment_unreachable", "x")
        case ["refused"]:
            raise RejectedError("attachment_refused", "x")
        case ["slow"]:
            await asyncio.Event().wait()
        case ["odd"]:
            raise KeyError("oops")
    return [FILE]


def make(stub: Stub, *, failures: int = 2, limits: Limits = Limits(10)) -> Route:  # noqa: B008 - immutable
    breaker = CircuitBreaker(failures=failures, pause=timedelta(minutes=1), clock=messages.now)
    return Route(stub, breaker, limits, fetch)


async def test_no_more_requests_are_under_way_than_allowed() -> None:
    stub = Stub()
    route = make(stub, limits=Limits(concurrency=3))

    async def send() -> None:
        async with route.slot():
            await route.send(messages.message())

    await asyncio.gather(*(send() for _ in range(20)))
    assert (stub.asked, stub.most_under_way) == (20, 3)


async def test_a_rate_lets_through_what_it_allows_and_no_more() -> None:
    route = make(Stub(), limits=Limits(concurrency=10, rate=0.001))
    async with route.slot():
        pass
    second = asyncio.ensure_future(route.slot().__aenter__())
    done, _ = await asyncio.wait({second}, timeout=0.05)
    assert not done
    second.cancel()


async def test_a_connection_that_is_refused_is_tried_again_at_once() -> None:
    stub = Stub(NotReachedError("x", "x"), NotReachedError("x", "x"))
    message = messages.message()
    assert await make(stub).send(message) == f"stub-{message.id}"
    assert stub.asked == 3


@pytest.mark.parametrize("error", [TemporaryError("http_503", "x"), RejectedError("http_400", "x")])
async def test_an_answer_is_not_asked_for_again(error: ProviderError) -> None:
    stub = Stub(error)
    with pytest.raises(type(error)):
        await make(stub).send(messages.message())
    assert stub.asked == 1


async def test_failures_open_the_breaker_and_refusals_of_a_message_do_not() -> None:
    refusing = make(Stub(*(RejectedError("http_400", "x") for _ in range(5))))
    failing = make(Stub(*(TemporaryError("http_500", "x") for _ in range(2))))
    for route, times in ((refusing, 5), (failing, 2)):
        for _ in range(times):
            with pytest.raises(ProviderError):
                await route.send(messages.message())
    assert refusing.blocked_until() is None
    assert failing.blocked_until() is not None


async def test_refused_credentials_pause_the_route_at_once() -> None:
    route = make(Stub(CredentialsError("http_401", "x")), failures=100)
    with pytest.raises(CredentialsError):
        await route.send(messages.message())
    assert route.blocked_until() is not None


async def test_a_route_shows_as_paused_until_its_provider_takes_or_refuses_a_message() -> None:
    shown = []
    refused, failed = CredentialsError("http_401", "x"), TemporaryError("http_503", "x")
    route = make(Stub(refused, failed, RejectedError("http_400", "x"), refused), failures=100)
    for _ in range(5):
        with suppress(ProviderError):
            await route.send(messages.message())
        shown.append(REGISTRY.get_sample_value("messaging_route_paused", {"provider": "stub"}))
    assert shown == [1, 1, 0, 1, 0]


async def test_what_an_adapter_does_not_know_is_an_unknown_outcome() -> None:
    with pytest.raises(UnknownOutcomeError, match="KeyError"):
        await make(Stub(KeyError("oops"))).send(messages.message())


async def test_attachments_are_fetched_once_for_a_provider_that_takes_files() -> None:
    stub = Stub(NotReachedError("x", "x"))
    await make(stub).send(messages.message(attachments=["https://example.com/a.txt"]))
    assert (stub.asked, stub.files) == (2, [FILE])


@pytest.mark.parametrize(
    ("url", "error", "code"),
    [
        ("away", TemporaryError, "attachment_unreachable"),
        ("refused", RejectedError, "attachment_refused"),
        ("odd", TemporaryError, "attachment_unexpected"),
    ],
)
async def test_an_attachment_at_fault_tells_nothing_of_the_provider(
    url: str, error: type[ProviderError], code: str
) -> None:
    stub = Stub(TemporaryError("http_500", "x"))
    route = make(stub, failures=2)
    for _ in range(2):
        with pytest.raises(error) as caught:
            await route.send(messages.message(attachments=[url]))
        assert caught.value.code == code
    assert (stub.asked, route.blocked_until()) == (0, None)


async def test_an_attachment_that_is_cut_short_leaves_nothing_in_doubt() -> None:
    stub = Stub()
    route = make(stub)
    sending = asyncio.ensure_future(route.send(messages.message(attachments=["slow"])))
    await asyncio.sleep(0)
    route.finish_within(0)
    with pytest.raises(TemporaryError) as caught:
        await sending
    assert (caught.value.code, stub.asked) == ("attachment_timeout", 0)


@pytest.mark.parametrize("value", ["", "x" * 256, "a\0b", "\ud800", "a\nb", 7, None])
def test_what_can_be_no_id_of_a_provider(value: object) -> None:
    assert not is_provider_id(value)
    assert is_provider_id("SM0123-abc")
