import os
from pathlib import Path

import pytest

from dev.local_stack.configuration import configure
from dev.local_stack.errors import StackError
from dev.local_stack.psql import open_psql


def test_the_password_is_not_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executed: list[tuple[list[str], str]] = []
    monkeypatch.setattr(
        os,
        "execve",
        lambda _, arguments, environment: executed.append((arguments[1:], environment["PGPASSWORD"])),
    )
    url = "postgresql+asyncpg://user:hunter%402@db.example:6000/messages?ssl=require"
    open_psql(configure({"DATABASE_URL": url, "NATS_URL": "nats://x"}, tmp_path), "select 1")
    arguments, password = executed[0]
    assert arguments == [
        "postgresql://user@db.example:6000/messages?sslmode=require",
        "--command",
        "select 1",
    ]
    assert password == "hunter@2"


def test_without_a_database_psql_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="no database is running"):
        open_psql(configure({}, tmp_path), None)
