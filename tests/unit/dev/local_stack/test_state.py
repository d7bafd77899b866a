from datetime import UTC, datetime
from pathlib import Path

from dev.local_stack.state import ProcessState, State, StateFile

STATE = State(
    pid=1,
    since=datetime.now(UTC),
    owns_servers=True,
    database_url="postgresql://u:hunter2@localhost/d",
    nats_url="nats://localhost",
    gateway_url="http://localhost:8080",
    processes=[
        ProcessState(name="sender", pid=2, address="http://localhost", since=datetime.now(UTC), restarts=3)
    ],
)


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    assert file.read() is None
    file.write(STATE)
    assert file.read() == STATE
    file.remove()
    assert file.read() is None


def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    StateFile(tmp_path).write(STATE)
    assert (tmp_path / "state.json").stat().st_mode & 0o077 == 0


def test_a_damaged_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    assert StateFile(tmp_path).read() is None


def test_a_folder_that_is_gone_is_ignored(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "gone")
    file.write(STATE)
    file.remove()


def test_secrets_are_not_shown() -> None:
    assert "hunter2" not in repr(STATE)
