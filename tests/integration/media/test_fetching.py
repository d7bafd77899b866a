from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from services.sender import media
from shared.bus.topology import MEDIA_CONSUMER
from shared.errors import MediaStoreUnavailableError
from shared.media import Media, MediaStatus
from shared.media_store import MediaStore, digest_of
from tests.integration.media.conftest import SECRET, Inbox, RunFetcher
from tests.stand_in import Answer, ReceivedRequest, StandIn
from tests.waiting import eventually

pytestmark = pytest.mark.integration

CAT = Answer(headers={"Content-Type": "image/jpeg"}, body=b"a cat")


def files_in(folder: Path) -> list[Path]:
    return [path for path in (folder / "sha256").rglob("*") if path.is_file()]


async def content_of(store: MediaStore, stored: Media) -> bytes:
    assert stored.digest
    assert stored.size is not None
    return b"".join([chunk async for chunk in store.read(stored.digest, 0, stored.size)])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "_DELAYS", (timedelta(seconds=0.01),))


async def test_a_redirect_to_another_origin_is_followed_without_credentials(
    inbox: Inbox, run_fetcher: RunFetcher, store: MediaStore, provider: StandIn, elsewhere: StandIn
) -> None:
    provider.answer = lambda _: Answer(307, {"Location": f"{elsewhere.url}/cat.jpg"})
    elsewhere.answer = lambda _: CAT
    async with run_fetcher():
        message = await inbox.receive(f"{provider.url}/2010-04-01/Media/ME1", f"{elsewhere.url}/dog.jpg")
        first, second = await inbox.until_reported(message)
    assert await content_of(store, first) == b"a cat"
    assert (first.id, first.status) == (message.media[0].id, MediaStatus.STORED)
    assert (first.content_type, first.size, first.filename) == ("image/jpeg", 5, "cat.jpg")
    assert (first.digest, second.digest, second.filename) == (digest_of(b"a cat"),) * 2 + ("dog.jpg",)
    assert [request.headers.get("authorization") for request in provider.requests] == [
        SECRET["Authorization"]
    ]
    assert all("authorization" not in request.headers for request in elsewhere.requests)


@pytest.mark.usefixtures("impatient")
async def test_a_file_is_tried_again_until_the_provider_has_it(
    inbox: Inbox, run_fetcher: RunFetcher, store: MediaStore, provider: StandIn
) -> None:
    answers = [Answer(503), Answer(404), Answer(ending="drop"), Answer(401), CAT]
    provider.answer = lambda _: answers[len(provider.requests) - 1]
    async with run_fetcher():
        [stored] = await inbox.until_reported(await inbox.receive(f"{provider.url}/cat"))
    assert (await content_of(store, stored), len(provider.requests)) == (b"a cat", 5)


@pytest.mark.usefixtures("impatient")
async def test_a_file_that_cannot_be_fetched_for_a_day_has_failed_and_stops_no_other(
    inbox: Inbox, run_fetcher: RunFetcher, provider: StandIn
) -> None:
    def answer(request: ReceivedRequest) -> Answer:
        return Answer(404) if request.path == "/gone" else CAT

    provider.answer = answer
    async with run_fetcher(clock=lambda: datetime.now(UTC) + timedelta(days=1)):
        message = await inbox.receive(f"{provider.url}/gone", f"{provider.url}/cat")
        failed, stored = (await inbox.until_reported(message))[-2:]
        await inbox.until_idle()
    assert (failed.status, failed.reason) == (MediaStatus.FAILED, "attachment_http_404")
    assert stored.status is MediaStatus.STORED
    assert [request.path for request in provider.requests].count("/gone") == 4
    assert [request.path for request in provider.requests].count("/cat") == 1


async def test_a_host_that_does_not_answer_holds_up_no_file_of_another(
    inbox: Inbox, run_fetcher: RunFetcher, provider: StandIn, elsewhere: StandIn
) -> None:
    elsewhere.answer = lambda _: Answer(ending="hang")
    provider.answer = lambda _: CAT
    for number in range(20):
        await inbox.receive(f"http://localhost:{urlsplit(elsewhere.url).port}/{number}")
    messages = [await inbox.receive(f"{provider.url}/{number}") for number in range(3)]
    async with run_fetcher():
        found = [(await inbox.until_reported(message))[0] for message in messages]
        assert len(elsewhere.requests) == 4  # none of them has ended, so the next ones still wait
    assert {each.status for each in found} == {MediaStatus.STORED}


async def test_a_file_that_is_slow_holds_up_no_later_message(
    inbox: Inbox,
    run_fetcher: RunFetcher,
    provider: StandIn,
    elsewhere: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(media, "_TIME_LIMIT", 300)
    elsewhere.answer = lambda _: Answer(ending="hang")
    provider.answer = lambda _: CAT
    async with run_fetcher():
        await inbox.receive(f"{elsewhere.url}/slow")
        await eventually(lambda: _is_requested(elsewhere))
        [found] = await inbox.until_reported(await inbox.receive(f"{provider.url}/cat"))
    assert found.status is MediaStatus.STORED


@pytest.mark.usefixtures("impatient")
async def test_a_file_that_waits_for_those_of_a_slow_host_is_handed_back_and_never_given_up(
    inbox: Inbox, run_fetcher: RunFetcher, elsewhere: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "_PATIENCE", 0.01)
    monkeypatch.setattr(media, "_TIME_LIMIT", 0.5)
    answers = [Answer(ending="hang")] * 4
    elsewhere.answer = lambda _: answers.pop() if answers else CAT
    messages = [await inbox.receive(f"{elsewhere.url}/{number}") for number in range(6)]
    async with run_fetcher(clock=lambda: datetime.now(UTC) + timedelta(days=1)):
        found = [(await inbox.until_reported(each))[0] for each in messages]
    assert {each.status for each in found} == {MediaStatus.STORED}


async def test_what_no_attempt_can_overcome_has_failed_at_once(
    inbox: Inbox, run_fetcher: RunFetcher, provider: StandIn
) -> None:
    provider.answer = lambda request: Answer(body=bytes(1_001 if request.path == "/large" else 800))
    urls = [f"{provider.url}/{name}" for name in ("large", "first", "second")]
    async with run_fetcher():
        large, first, second = await inbox.until_reported(await inbox.receive(*urls))
    assert (large.reason, first.status, second.reason) == (
        "attachment_too_large",
        MediaStatus.STORED,
        "attachment_too_large",
    )


async def test_of_private_addresses_only_the_origin_of_the_provider_is_permitted(
    inbox: Inbox, run_fetcher: RunFetcher, provider: StandIn, elsewhere: StandIn
) -> None:
    def answer(request: ReceivedRequest) -> Answer:
        return CAT if request.path == "/cat" else Answer(302, {"Location": elsewhere.url})

    provider.answer = answer
    urls = [f"{provider.url}/cat", f"{provider.url}/away", elsewhere.url]
    async with run_fetcher(allow_private=False):
        found = await inbox.until_reported(await inbox.receive(*urls))
    assert [media.reason for media in found] == [None, "attachment_refused", "attachment_refused"]
    assert elsewhere.requests == []


async def test_a_replay_fetches_nothing_again_and_equal_files_are_stored_once(
    inbox: Inbox, run_fetcher: RunFetcher, provider: StandIn, folder: Path
) -> None:
    provider.answer = lambda _: CAT
    async with run_fetcher():
        before = [await inbox.until_reported(await inbox.receive(f"{provider.url}/{n}")) for n in (1, 2)]
        await inbox.until_idle()
    assert (len(provider.requests), len(files_in(folder))) == (2, 1)
    await inbox.bus.jetstream.reset_consumer(MEDIA_CONSUMER.stream, MEDIA_CONSUMER.name, 1)
    async with run_fetcher():
        await inbox.until_idle()
    assert len(provider.requests) == 2
    assert before[0][0].digest == before[1][0].digest


@pytest.mark.parametrize("step", ["put_record", "_sync"])
async def test_a_crash_at_any_step_loses_no_file(
    step: str,
    inbox: Inbox,
    run_fetcher: RunFetcher,
    provider: StandIn,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provider.answer = lambda _: CAT

    async def crash(*_: object) -> None:
        raise MediaStoreUnavailableError("the process ended here")

    with monkeypatch.context() as patch:
        patch.setattr(MediaStore, step, crash)
        async with run_fetcher():
            message = await inbox.receive(f"{provider.url}/cat")
            await eventually(lambda: _is_requested(provider))
    assert await inbox.reports(message) == []
    async with run_fetcher():
        [stored] = await inbox.until_reported(message)
        await inbox.until_idle()
    assert (stored.status, len(files_in(folder))) == (MediaStatus.STORED, 1)
    assert len(await inbox.reports(message)) == 1


async def _is_requested(provider: StandIn) -> bool:
    return bool(provider.requests)
