import os
import re
import socket
from collections.abc import Iterator

import pytest

from dev.local_stack.ports import Listener, free_port, is_free, problems

HOST = "127.0.0.1"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as server:
        yield server.getsockname()[1]


def test_a_port_in_use_is_reported_with_its_process_and_its_variable(taken: int) -> None:
    (found,) = problems([Listener("A_PORT", HOST, taken), Listener("B_PORT", HOST, free_port())])
    assert re.fullmatch(
        rf"port {taken} is in use: stop the process that uses it \(pid {os.getpid()}, .+\), "
        "or set A_PORT to another port",
        found,
    )


def test_a_port_that_is_chosen_twice_is_reported() -> None:
    port = free_port()
    found = problems([Listener("A_PORT", HOST, port), Listener("B_PORT", HOST, port)])
    assert found == [f"port {port} is chosen twice: A_PORT and B_PORT"]


@pytest.mark.parametrize(
    ("host", "port", "complaint"),
    [
        (HOST, 65_536, "A_PORT leads to port 65536, which does not exist: set a lower one"),
        ("192.0.2.1", 8080, "192.0.2.1 is not an address of this machine"),
    ],
)
def test_impossible_addresses_are_reported(host: str, port: int, complaint: str) -> None:
    assert problems([Listener("A_PORT", host, port)]) == [complaint]


def test_a_free_port_is_free_and_not_among_those_taken(taken: int) -> None:
    first = free_port()
    assert is_free(first)
    assert not is_free(taken)
    assert free_port(set(range(20_000, 26_000)) - {first}) == first
