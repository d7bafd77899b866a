"""TCP ports: whether one is free, and finding one that is."""

import errno
import random
import socket
from collections.abc import Container, Iterable
from dataclasses import dataclass

HIGHEST = 65_535

# Below the ports which systems hand out for outgoing connections. A client that keeps connecting to a
# stopped server's port could otherwise be given that very port, and would then be connected to itself.
_PICKED_FROM = range(20_000, 26_000)

# Not the shared generator: tests seed that one alike in every worker, and all would try the same ports.
_random = random.SystemRandom()


@dataclass(frozen=True)
class Listener:
    """A port that something of ours will listen on, and the variable that chooses it."""

    variable: str
    host: str
    port: int


def in_use(variable: str, port: int) -> str:
    return f"port {port} is in use: end what listens there, or set {variable} to another"


def problems(listeners: Iterable[Listener]) -> list[str]:
    """One line for each port that cannot be listened on, or that is asked for twice."""
    found = []
    seen: dict[int, Listener] = {}
    for listener in listeners:
        twin = seen.setdefault(listener.port, listener)
        if twin is not listener:
            found.append(f"port {listener.port} is asked for twice: {twin.variable} and {listener.variable}")
        elif problem := _problem(listener):
            found.append(problem)
    return found


def _problem(listener: Listener) -> str | None:
    if listener.port > HIGHEST:
        return f"{listener.variable} asks for port {listener.port}, which does not exist"
    try:
        _bind(listener.host, listener.port)
    except socket.gaierror:
        return f"{listener.host} is no address of this machine"
    except PermissionError:
        return f"port {listener.port} is only for root: set {listener.variable} to one above 1023"
    except OSError as exc:
        if exc.errno == errno.EADDRNOTAVAIL:
            return f"{listener.host} is no address of this machine"
        return in_use(listener.variable, listener.port)
    return None


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    try:
        _bind(host, port)
    except OSError:
        return False
    return True


def free_port(taken: Container[int] = ()) -> int:
    """A port of 127.0.0.1 that nothing listens on and that is not among those taken.

    Raises:
        OSError: there is none.
    """
    for port in _random.sample(_PICKED_FROM, k=len(_PICKED_FROM)):
        if port not in taken and is_free(port):
            return port
    raise OSError(errno.EADDRINUSE, "no port is free")


def _bind(host: str, port: int) -> None:
    (family, kind, protocol, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    with socket.socket(family, kind, protocol) as probe:
        # As servers do: connections of a server that has just stopped are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
