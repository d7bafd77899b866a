"""The headers of NATS messages are parsed like by the library."""

from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from shared.bus.client import parse_headers

LINES = st.lists(st.text(alphabet="aZ-é: \t\n", min_size=1, max_size=12).map(str.encode), max_size=4)


@given(LINES)
def test_headers_have_the_names_and_values_that_the_library_finds(lines: list[bytes]) -> None:
    raw = b"\r\n".join([*lines, b"", b""])
    found = Client._parse_header_lines(raw)  # noqa: SLF001 - the method that is replaced
    assert parse_headers(raw) == {name: value for name, value in found.items() if name}


def test_a_value_that_is_not_utf_8_is_kept_as_far_as_it_is() -> None:
    assert parse_headers(b"a: \xc3b\r\n\r\n") == {"a": "\ufffdb"}
