from itertools import accumulate, repeat

from dev.local_stack.supervisor import next_pause


def test_the_pause_doubles_up_to_half_a_minute() -> None:
    pauses = list(accumulate(repeat(1.0, 8), next_pause, initial=next_pause(None, 1.0)))
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_the_pause_is_short_again_after_a_long_life() -> None:
    assert next_pause(30, 59.9) == 30
    assert next_pause(30, 60) == 0.5
