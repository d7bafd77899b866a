"""TCP ports: checks whether they are free, describes the processes that use them, and finds free ones."""

import errno
import random
import socket
from collections.abc import Container, Iterable
from contextlib import suppress
from dataclasses import dataclass

import psutil

from dev.local_stack.settings import HIGHEST_PORT

# Below the ports that systems use for outgoing connections. A client that keeps connecting to the port of a
# stopped server could otherwise be given that very port, and would then be connected to itself.
_PICKED_FROM = range(20_000, 26_000)

# Not the shared generator: tests seed it identically in every worker, and all would try the same ports.
_random = random.SystemRandom()


@dataclass(frozen=True)
class Listener:
    """A port that a process is going to listen on, and the variable that sets it."""

    variable: str
    host: str
    port: int


def in_use(variable: str, port: int) -> str:
    """Return the message about a port that another process uses."""
    process = _process_at(port)
    return f"port {port} is in use: stop the process that uses it{process}, or set {variable} to another port"


def _process_at(port: int) -> str:
    """Describe the process that listens on a port, as far as the system shows it to this user."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f" (pid {connection.pid}, {_name_of(psutil.Process(connection.pid))})"
    return ""


def _name_of(process: psutil.Process) -> str:
    """Return the name of a program; of a Python module, `python -m` and the name of the module."""
    match process.cmdline():
        case [_, "-m", module, *_]:
            return f"{process.name()} -m {module}"
        case _:
            return str(process.name())


def problems(listeners: Iterable[Listener]) -> list[str]:
    """Return a line for each port that cannot be listened on, or that two variables ask for."""
    found = []
    seen: dict[int, Listener] = {}
    for listener in listeners:
        twin = seen.setdefault(listener.port, listener)
        if twin is not listener:
            found.append(f"port {listener.port} is chosen twice: {twin.variable} and {listener.variable}")
        elif problem := _problem(listener):
            found.append(problem)
    return found


def _problem(listener: Listener) -> str | None:
    if listener.port > HIGHEST_PORT:
        return f"{listener.variable} leads to port {listener.port}, which does not exist: set a lower one"
    try:
        _bind(listener.host, listener.port)
    except socket.gaierror:
        return _no_address(listener.host)
    except PermissionError:
        return f"port {listener.port} needs root: set {listener.variable} to a port above 1023"
    except OSError as exc:
        if exc.errno == errno.EADDRNOTAVAIL:
            return _no_address(listener.host)
        return in_use(listener.variable, listener.port)
    return None


def _no_address(host: str) -> str:
    return f"{host} is not an address of this machine"


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    try:
        _bind(host, port)
    except OSError:
        return False
    return True


def free_port(taken: Container[int] = ()) -> int:
    """Find a port of 127.0.0.1 that nothing listens on and that is not among those taken.

    Raises:
        OSError: no port is free.
    """
    for port in _random.sample(_PICKED_FROM, k=len(_PICKED_FROM)):
        if port not in taken and is_free(port):
            return port
    raise OSError(errno.EADDRINUSE, "no port is free")


def _bind(host: str, port: int) -> None:
    (family, kind, protocol, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    with socket.socket(family, kind, protocol) as probe:
        # As servers do, so that connections of a server that has just stopped do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
