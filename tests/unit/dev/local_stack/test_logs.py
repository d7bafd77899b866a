import os
from pathlib import Path

import pytest

from dev.local_stack import logs
from dev.local_stack.errors import StackError
from dev.local_stack.logs import LogFile, show_logs


def test_a_log_has_the_lines_as_they_are(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", "sender")
    log.write("100 % sent")
    log.close()
    assert (tmp_path / "log" / "sender.log").read_text() == "100 % sent\n"


def test_a_long_log_is_rotated_and_the_previous_one_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_LIMIT", 10)
    log = LogFile(tmp_path, "sender")
    log.write("first line")
    log.write("second line")
    log.close()
    assert (tmp_path / "sender.log").read_text() == "second line\n"
    assert (tmp_path / "sender.log.1").read_text() == "first line\n"


def test_a_log_that_cannot_be_written_is_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sender.log").mkdir()
    log = LogFile(tmp_path, "sender")
    log.write("lost")
    log.close()
    assert capsys.readouterr().err == ""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with three logs; commands are recorded and not executed."""
    for name in ("gateway", "sender-1", "sender-2"):
        (tmp_path / f"{name}.log").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("service", "shown"),
    [
        (None, ["gateway.log", "sender-1.log", "sender-2.log"]),
        ("sender", ["sender-1.log", "sender-2.log"]),
        ("sender-2", ["sender-2.log"]),
    ],
)
def test_logs_of_a_service_are_those_of_its_processes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, service: str | None, shown: list[str]
) -> None:
    executed: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, arguments: executed.append(arguments[1:]))
    show_logs(folder, service=service, tail=5, follow=True)
    assert executed == [["-n", "5", "-F", *shown]]


def test_an_unknown_service_is_reported_with_those_that_have_logs(folder: Path) -> None:
    with pytest.raises(StackError, match="notifier has no log; there are: gateway, sender-1, sender-2"):
        show_logs(folder, service="notifier", tail=5, follow=False)


def test_a_folder_without_logs_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="there are no logs"):
        show_logs(tmp_path, service=None, tail=5, follow=False)
