"""Ports of 127.0.0.1 for the servers of tests; servers that run at the same time get different ports."""

import os
import random
from itertools import cycle

from dev.local_stack.ports import is_free

MAX_WORKERS = 12
_PORTS_EACH = 500

_number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % MAX_WORKERS
# They are above the ports that a local stack chooses.
_first = 26_000 + _number * _PORTS_EACH
# The shared generator would be seeded alike in two runs on the same machine.
_ports = cycle(random.SystemRandom().sample(range(_first, _first + _PORTS_EACH), k=_PORTS_EACH))


def free_port() -> int:
    """Return a port that no process listens on, and that was not returned recently."""
    return next(port for port in _ports if is_free(port))
