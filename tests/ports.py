"""Ports of 127.0.0.1 for the servers of tests: no two that run at the same time get the same."""

import os
import random
from itertools import cycle

from dev.local_stack.ports import is_free

_WORKERS, _PORTS_EACH = 12, 500
_number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
# Above the ones that a local stack picks for itself.
_first = 26_000 + _number * _PORTS_EACH
# Not the shared generator, which is seeded alike in two runs on one machine.
_ports = cycle(random.SystemRandom().sample(range(_first, _first + _PORTS_EACH), k=_PORTS_EACH))


def free_port() -> int:
    """A port that nothing listens on, and that was not handed out for long."""
    return next(port for port in _ports if is_free(port))
