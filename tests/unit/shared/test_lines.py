import pytest

from shared.bus.lines import join, split


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"{}",
        b'{"a": "}\\n{"}',
        b'{\n  "a": {\n    "b": []\n  },\n  "c": {}\n}\n',
    ],
)
def test_a_single_event_is_left_as_it_is(payload: bytes) -> None:
    assert list(split(payload)) == [payload]


def test_lines_are_split_as_they_were_joined() -> None:
    events = [b'{"a":1}', b"{}", b'{"b":"}{"}']
    assert list(split(join(events))) == events
