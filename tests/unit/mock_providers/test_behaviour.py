"""The requests that a behaviour affects, and how they end."""

from collections.abc import Mapping
from random import Random

import pytest
from pydantic import ValidationError

from mock_providers.behaviour import NORMAL, Behaviour, BehaviourSwitch


def switched_to(behaviour: Behaviour) -> BehaviourSwitch:
    return BehaviourSwitch(Random(1), behaviour)


def affected(behaviour: Behaviour, requests: int) -> list[bool]:
    switch = switched_to(behaviour)
    return [switch.next() is not NORMAL for _ in range(requests)]


def test_without_times_or_rate_every_request_is_affected() -> None:
    assert affected(Behaviour(status=500), 5) == [True] * 5


def test_times_counts_down_to_normal() -> None:
    assert affected(Behaviour(status=500, times=2), 4) == [True, True, False, False]


def test_the_current_behaviour_has_the_times_that_are_left() -> None:
    switch = switched_to(Behaviour(status=500, times=3))
    switch.next()
    assert switch.current == Behaviour(status=500, times=2)
    switch.next()
    switch.next()
    assert switch.current == NORMAL


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_rate_is_the_share_of_requests(rate: float) -> None:
    assert sum(affected(Behaviour(status=500, rate=rate), 2000)) == pytest.approx(2000 * rate, abs=60)


def test_times_counts_only_the_requests_that_rate_picks() -> None:
    hits = affected(Behaviour(status=500, rate=0.2, times=3), 100)
    assert sum(hits) == 3
    assert hits[:3] != [True] * 3


@pytest.mark.parametrize(
    ("behaviour", "accepts", "breaks"),
    [
        ({}, True, False),
        ({"latency_ms": 5, "html": True, "retry_after": 3}, True, False),
        ({"status": 200}, True, False),
        ({"status": 302}, False, False),
        ({"status": 429}, False, False),
        ({"hang": True}, False, False),
        ({"drop_connection": True}, False, True),
        ({"ambiguous": True}, True, True),
        # The first of hang, drop_connection, ambiguous and status applies.
        ({"hang": True, "drop_connection": True}, False, False),
        ({"drop_connection": True, "ambiguous": True}, False, True),
        ({"ambiguous": True, "status": 500}, True, True),
    ],
)
def test_how_a_request_ends(behaviour: Mapping[str, object], accepts: bool, breaks: bool) -> None:  # noqa: FBT001
    validated = Behaviour.model_validate(behaviour)
    assert (validated.accepts, validated.breaks_connection) == (accepts, breaks)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (0, 0),
        (120, 120),
        ("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 GMT"),
        ("Wed, 21 Oct 2015 09:28:00 +0200", "Wed, 21 Oct 2015 07:28:00 GMT"),
    ],
)
def test_retry_after(given: int | str, sent: int | str) -> None:
    assert Behaviour(retry_after=given).retry_after == sent


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": 199},
        {"status": 600},
        {"status": "500"},
        {"times": 0},
        {"rate": 1.1},
        {"rate": -0.1},
        {"retry_after": -1},
        {"retry_after": "soon"},
        {"retry_after": "120"},
        {"latency_ms": -1},
        {"hang": 1},
        {"delay": 5},
    ],
)
def test_invalid_behaviours(wrong: Mapping[str, object]) -> None:
    with pytest.raises(ValidationError):
        Behaviour.model_validate(wrong)
