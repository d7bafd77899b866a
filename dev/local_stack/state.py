"""The state of a running stack, in a file that `make status` and `make psql` read."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError


class ProcessState(BaseModel):
    """A process of the stack.

    Attributes:
        pid: None while it does not run.
        address: the URL at which it answers.
        since: when it was started.
        restarts: how often it was started again.
    """

    name: str
    pid: int | None
    address: str = Field(repr=False)
    since: datetime
    restarts: int


class State(BaseModel):
    """A running stack. The URLs may hold passwords.

    Attributes:
        pid: of the supervisor.
        since: when the supervisor was started.
        owns_servers: whether PostgreSQL and NATS are processes of the stack.
    """

    pid: int
    since: datetime
    owns_servers: bool
    database_url: str = Field(repr=False)
    nats_url: str = Field(repr=False)
    gateway_url: str
    processes: Sequence[ProcessState] = ()


class StateFile:
    """The state file, which only its owner can read."""

    def __init__(self, data_folder: Path) -> None:
        self._path = data_folder / "state.json"

    def write(self, state: State) -> None:
        """Replace the file. If the disk is full, the previous one stays in place."""
        unfinished = self._path.with_suffix(".unfinished")
        with suppress(OSError):
            unfinished.touch(mode=0o600)
            unfinished.write_text(state.model_dump_json(), encoding="utf-8")
            unfinished.replace(self._path)

    def read(self) -> State | None:
        """Return the state, or None if there is none."""
        try:
            return State.model_validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return None

    def remove(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
