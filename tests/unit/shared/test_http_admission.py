from collections.abc import Callable

import pytest
from starlette.applications import Starlette

from shared import http_admission
from shared.http_admission import MAX_IN_PROGRESS, Admission, Pool
from tests.waiting import eventually


class FakeConnection:
    """A connection that records the order in which it is resumed."""

    is_stale = False

    def __init__(self, resumed: list["FakeConnection"]) -> None:
        self._resumed = resumed
        self.was_stale = False

    def suspend(self) -> None: ...

    def resume(self) -> None:
        self._resumed.append(self)
        self.was_stale = self.is_stale

    def refuse(self, status: int, code: str, detail: str) -> None: ...

    def abort(self) -> None: ...


@pytest.mark.parametrize(("stale_after", "are_stale"), [(60, False), (0, True)])
async def test_paused_connections_are_resumed_alternately_from_the_newest_and_the_oldest(
    monkeypatch: pytest.MonkeyPatch, *, stale_after: float, are_stale: bool
) -> None:
    monkeypatch.setattr(http_admission, "_STALE_AFTER", stale_after)
    admission = Admission(Starlette())
    resumed: list[FakeConnection] = []
    paused = [FakeConnection(resumed) for _ in range(100)]
    closed = FakeConnection(resumed)
    for each in (*paused, closed):
        admission.pause(each)
    admission.pause(paused[0])  # a second request in the same packet
    admission.forget_pause(closed)

    async def all_are_resumed() -> bool:
        return len(resumed) >= len(paused)

    await eventually(all_are_resumed)
    assert resumed[:4] == [paused[-1], paused[0], paused[-2], paused[1]]
    assert len(resumed) == len(paused)
    assert {each.was_stale for each in paused} == {are_stale}


async def test_a_refused_client_that_waits_before_retrying_is_not_stale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_admission, "_STALE_AFTER", 0)
    admission = Admission(Starlette())
    client = FakeConnection([])
    admission.pause(client)

    async def is_fresh_again() -> bool:
        return client.was_stale and not client.is_stale

    await eventually(is_fresh_again)


@pytest.mark.parametrize(("seconds", "limit"), [(0.1, 256), (0.6, 64)])
def test_the_number_of_requests_at_the_same_time_depends_on_the_time_that_they_take(
    seconds: float, limit: float
) -> None:
    pool = Pool()
    for _ in range(1_000):
        pool.observe(seconds)
    assert pool.limit == limit


def test_the_number_grows_again() -> None:
    pool = Pool()
    observe: Callable[[float], None] = pool.observe
    for seconds in [0.6] * 1_000 + [0.1] * 1_000:
        observe(seconds)
    assert pool.limit == MAX_IN_PROGRESS
