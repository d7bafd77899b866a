import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from threading import get_ident
from time import monotonic
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.sender.attachment_limits import AttachmentLimits
from services.sender.attachments import MAX_BYTES
from services.sender.circuit_breaker import CircuitBreaker
from services.sender.limits import Limiter
from services.sender.provider_client import ProviderClient
from shared.channels import Channel
from shared.downloads import TOO_LARGE
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
from tests.pauses import LocalPauses

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


async def fetch(urls: Sequence[str], max_bytes: int = MAX_BYTES) -> Sequence[File]:
    """Return a file, or fail as the URL says."""
    match urls:
        case ["unreachable"]:
            raise TemporaryError("attachment_unreachable", "x")
        case ["refused"]:
            raise RejectedError("attachment_refused", "x")
        case ["slow"]:
            await asyncio.Event().wait()
        case [url] if url.endswith("large") and max_bytes < MAX_BYTES:
            raise RejectedError(TOO_LARGE, "x")
        case ["odd"]:
            raise KeyError("oops")
        case ["empty", "full"]:
            return [replace(FILE, content=b""), FILE]
    return [FILE]


STUB: Provider[Any] = Provider(name="stub", channel=Channel.SMS, settings=Settings, adapter=StubAdapter)


def client_of(
    provider: StubProvider,
    *,
    failures: int = 2,
    concurrency: int = 10,
    pause: timedelta = timedelta(minutes=1),
    adapter: StubAdapter | None = None,
    attachment_limits: AttachmentLimits | None = None,
    clock: Callable[[], float] = monotonic,
) -> ProviderClient:
    return ProviderClient(
        STUB,
        adapter or StubAdapter(Settings()),
        provider,
        breaker=CircuitBreaker(failures=failures, pause=pause, clock=clock),
        limiter=Limiter(concurrency),
        pauses=LocalPauses(),
        fetch=fetch,
        attachment_limits=attachment_limits,
    )


async def send(client: ProviderClient, of: Message | None = None) -> str:
    """Send a message as the deliverer does, even if the circuit breaker is open."""
    async with client.slot(messages.request(of)) as slot:
        assert slot.try_acquire()
        return await slot.send()


async def test_the_number_of_requests_in_progress_is_limited() -> None:
    provider = StubProvider()
    client = client_of(provider, concurrency=3)
    await asyncio.gather(*(send(client) for _ in range(20)))
    assert (provider.requests, provider.max_in_progress) == (20, 3)


async def test_a_failed_connection_is_retried_at_once() -> None:
    provider = StubProvider(UNREACHABLE, UNREACHABLE)
    message = messages.message()
    assert await send(client_of(provider), message) == str(message.id)
    assert provider.requests == 3


async def test_a_failed_connection_is_retried_twice() -> None:
    provider = StubProvider(*[UNREACHABLE] * 3)
    with pytest.raises(ProviderError):
        await send(client_of(provider))
    assert provider.requests == 3


@pytest.mark.parametrize(("status", "error"), [(503, TemporaryError), (400, RejectedError)])
async def test_an_answer_is_not_requested_again(status: int, error: type[ProviderError]) -> None:
    provider = StubProvider(status)
    with pytest.raises(error):
        await send(client_of(provider))
    assert provider.requests == 1


async def test_failures_open_the_breaker_and_rejections_of_a_message_do_not() -> None:
    rejecting = client_of(StubProvider(*[400] * 5))
    failing = client_of(StubProvider(*[500] * 2))
    for client, times in ((rejecting, 5), (failing, 2)):
        for _ in range(times):
            with pytest.raises(ProviderError):
                await send(client)
    assert rejecting.is_available
    assert not failing.is_available


async def test_rejected_credentials_open_the_breaker_at_once() -> None:
    client = client_of(StubProvider(401), failures=100)
    with pytest.raises(CredentialsError):
        await send(client)
    assert not client.is_available
    async with client.slot(messages.request()) as slot:
        assert not slot.try_acquire()
    assert client.retry_in > timedelta(0)


async def test_a_provider_counts_as_paused_until_it_accepts_or_rejects_a_message() -> None:
    shown = []
    provider = StubProvider(401, 500, 400, 401)
    client = client_of(provider, failures=100, pause=timedelta(0))
    for _ in range(5):
        with suppress(ProviderError):
            await send(client)
        shown.append(REGISTRY.get_sample_value("messaging_provider_paused", {"provider": "stub"}))
    assert shown == [1, 1, 0, 1, 0]


async def test_a_message_whose_request_cannot_be_built_is_rejected() -> None:
    """The provider has nothing, so nothing is in doubt."""
    provider = StubProvider()
    with pytest.raises(RejectedError, match="KeyError") as caught:
        await send(client_of(provider), messages.message(body="odd"))
    assert (caught.value.code, provider.requests) == ("invalid_message", 0)


async def test_a_response_that_an_adapter_fails_to_read_is_an_unknown_outcome() -> None:
    class Defective(StubAdapter):
        def message_id(self, answer: HttpAnswer) -> object:  # noqa: ARG002 - as its base
            raise KeyError("oops")

    with pytest.raises(UnknownOutcomeError, match="KeyError"):
        await send(client_of(StubProvider(), adapter=Defective(Settings())))


async def test_the_request_of_a_large_message_is_built_in_another_thread() -> None:
    class Observed(StubAdapter):
        thread = 0

        def request(self, message: Message, files: Sequence[File]) -> HttpRequest:
            self.thread = get_ident()
            return super().request(message, files)

    for size, is_elsewhere in ((100, False), (100_000, True)):
        adapter = Observed(Settings())
        await send(client_of(StubProvider(), adapter=adapter), messages.message(body="x" * size))
        assert (adapter.thread != get_ident()) is is_elsewhere


async def test_attachments_are_fetched_once_for_a_provider_that_takes_files() -> None:
    provider, adapter = StubProvider(UNREACHABLE), StubAdapter(Settings())
    client = client_of(provider, adapter=adapter)
    await send(client, messages.message(attachments=["https://example.com/a.txt"]))
    assert (provider.requests, adapter.files) == (2, [FILE])


async def test_a_file_without_content_is_left_out() -> None:
    adapter = StubAdapter(Settings())
    await send(client_of(StubProvider(), adapter=adapter), messages.message(attachments=["empty", "full"]))
    assert adapter.files == [FILE]


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
            await send(client, messages.message(attachments=[url]))
        assert caught.value.code == code
    assert provider.requests == 0
    assert client.is_healthy


async def test_attachments_that_never_arrive_take_no_place_at_the_provider() -> None:
    client = client_of(StubProvider(), concurrency=1)
    slow = [asyncio.ensure_future(send(client, messages.message(attachments=["slow"]))) for _ in range(50)]
    await asyncio.sleep(0)
    await send(client)
    await cancel(slow)


@pytest.mark.parametrize("callers", [["a"] * 8, [None] * 8], ids=["one key", "no keys"])
async def test_a_host_and_a_caller_leave_places_for_the_attachments_of_others(
    callers: Sequence[str | None],
) -> None:
    client = client_of(StubProvider(), attachment_limits=AttachmentLimits(in_all=3, each=2))
    message = messages.message(attachments=["slow"])
    slow = [asyncio.ensure_future(hold_slot(client, message, caller)) for caller in callers]
    await asyncio.sleep(0)
    await asyncio.wait_for(hold_slot(client, messages.message(attachments=["https://b.example/x"]), "b"), 5)
    await cancel(slow)


async def test_few_messages_with_large_attachments_are_in_memory_until_they_have_been_sent() -> None:
    limits = AttachmentLimits(in_all=1, large=2)
    client = client_of(StubProvider(), attachment_limits=limits)
    entered: asyncio.Queue[str] = asyncio.Queue()
    leave = asyncio.Event()

    async def hold(url: str) -> None:
        async with client.slot(messages.request(messages.message(attachments=[url]))) as slot:
            entered.put_nowait(url)
            await leave.wait()
            assert slot.try_acquire()
            await slot.send()

    urls = [f"https://{host}.example/large" for host in ("a", "a", "b", "c")]
    large = [asyncio.create_task(hold(url)) for url in urls]
    assert {await entered.get(), await entered.get()} == {urls[0], urls[2]}

    small = asyncio.create_task(hold("https://d.example/small"))
    assert await entered.get() == "https://d.example/small"
    assert entered.empty()
    leave.set()
    await asyncio.gather(*large, small)


@pytest.mark.parametrize("callers", [["a"] * 8, [None] * 8], ids=["one key", "no keys"])
async def test_a_caller_leaves_a_place_for_the_large_attachments_of_others(
    callers: Sequence[str | None],
) -> None:
    limits = AttachmentLimits(large=3)
    entered: asyncio.Queue[str | None] = asyncio.Queue()

    async def hold(caller: str | None, host: str) -> None:
        async with limits.large_place(caller, [f"https://{host}.example/large"]):
            entered.put_nowait(caller)
            await asyncio.Event().wait()

    others = [asyncio.ensure_future(hold(caller, f"h{number}")) for number, caller in enumerate(callers)]
    holding = 3 if callers[0] is None else 2
    assert [await entered.get() for _ in range(holding)] == callers[:holding]
    if callers[0]:
        mine = asyncio.ensure_future(hold("b", "other"))
        assert await asyncio.wait_for(entered.get(), 5) == "b"
        await cancel([mine])
    await cancel(others)


async def hold_slot(client: ProviderClient, message: Message, caller: str | None) -> None:
    async with client.slot(messages.request(message, caller=caller)):
        pass


async def cancel(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_no_attachments_are_fetched_while_the_provider_is_not_available() -> None:
    client = client_of(StubProvider(401))
    with pytest.raises(CredentialsError):
        await send(client)
    async with client.slot(messages.request(messages.message(attachments=["slow"]))) as slot:
        assert not slot.try_acquire()


async def test_attachments_are_fetched_if_the_provider_has_become_available_in_the_meantime() -> None:
    now = 0.0
    client = client_of(StubProvider(401), concurrency=1, clock=lambda: now)
    with pytest.raises(CredentialsError):
        await send(client)
    async with client.slot(messages.request()):
        waiting = asyncio.ensure_future(send(client, messages.message(attachments=["https://a.example/x"])))
        await asyncio.sleep(0)
        now = 61.0
    assert await waiting


async def test_a_probe_is_given_back_if_something_else_fails() -> None:
    client = client_of(StubProvider(401), pause=timedelta(0))
    with pytest.raises(CredentialsError):
        await send(client)
    with pytest.raises(KeyError):
        await fail_after_acquiring(client)
    assert client.is_available


async def fail_after_acquiring(client: ProviderClient) -> None:
    async with client.slot(messages.request()) as slot:
        assert slot.try_acquire()
        raise KeyError


class Throttling(StubAdapter):
    """Treats a 429 as affecting only the sending address."""

    def explain(self, error: ProviderError, answer: HttpAnswer) -> ProviderError:  # noqa: ARG002 - as its base
        error.sender_only = error.throttled
        return error


async def test_a_provider_that_asks_us_to_wait_gets_no_further_requests() -> None:
    provider = StubProvider(429)
    client = client_of(provider)
    with pytest.raises(TemporaryError) as caught:
        await send(client)
    assert caught.value.throttled
    assert not client.is_available
    assert REGISTRY.get_sample_value("messaging_throttled", {"provider": "stub", "scope": "provider"}) == 1


async def test_only_the_throttled_address_waits() -> None:
    provider = StubProvider(429)
    client = client_of(provider, adapter=Throttling(Settings()), concurrency=1)
    with pytest.raises(TemporaryError):
        await send(client)
    waiting = asyncio.ensure_future(send(client))
    await send(client, messages.message(from_="+12025550100"))
    assert (provider.requests, waiting.done(), client.is_healthy) == (2, False, True)
    assert REGISTRY.get_sample_value("messaging_throttled", {"provider": "stub", "scope": "sender"}) == 1
    await cancel([waiting])
