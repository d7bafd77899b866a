"""Single courses of a message that need bad luck."""

from collections.abc import Iterator

import pytest

from shared.status import Status
from tests.unit.sender.simulation import Behaviour, World


@pytest.fixture
def world() -> Iterator[World]:
    world = World(honours_keys=True)
    world.accept(0)
    yield world
    world.close()


def test_an_attempt_that_is_put_off_for_hours_is_reported_once(world: World) -> None:
    world.provider.behaviour = Behaviour.REFUSES_CREDENTIALS
    world.come_to_rest()

    assert [event.data.status for event in world.statuses()] == [Status.SCHEDULED, Status.EXPIRED]
