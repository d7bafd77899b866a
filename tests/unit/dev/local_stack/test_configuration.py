from pathlib import Path

import pytest

from dev.local_stack.configuration import configure, read_environment
from dev.local_stack.errors import StackError

ROOT = Path("/somewhere")
BOTH_OR_NEITHER = (
    "set both to use your own servers, or neither to have `make run` start a PostgreSQL and a NATS"
)


def test_without_settings_the_servers_are_our_own() -> None:
    configuration = configure({}, ROOT)
    assert configuration.owns_servers
    assert configuration.data_folder == ROOT / ".data"


def test_an_absolute_data_folder_is_used_as_it_is() -> None:
    assert configure({"DATA_DIR": "/elsewhere"}, ROOT).data_folder == Path("/elsewhere")


@pytest.mark.parametrize(
    ("environment", "fault"),
    [
        (
            {"DATABASE_URL": "postgresql+asyncpg://x"},
            f"NATS_URL: is not set but DATABASE_URL is: {BOTH_OR_NEITHER}",
        ),
        ({"NATS_URL": "nats://x"}, f"NATS_URL: is set but DATABASE_URL is not: {BOTH_OR_NEITHER}"),
        ({"GATEWAY_PORT": "http"}, "GATEWAY_PORT: must be a valid integer, not 'http'"),
        ({"POSTGRES_PORT": "0"}, "POSTGRES_PORT: must be greater than or equal to 1, not '0'"),
        ({"NATS_PORT": "65536"}, "NATS_PORT: must be less than or equal to 65535, not '65536'"),
        ({"SENDERS": "33"}, "SENDERS: must be less than or equal to 32, not '33'"),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@h", "NATS_URL": "x"},
            "DATABASE_URL: must begin with postgresql+asyncpg://",
        ),
    ],
)
def test_a_fault_is_one_line(environment: dict[str, str], fault: str) -> None:
    with pytest.raises(StackError) as raised:
        configure(environment, ROOT)
    assert str(raised.value) == fault


def test_there_is_a_line_for_each_fault() -> None:
    with pytest.raises(StackError) as raised:
        configure({"SENDERS": "0", "INGESTS": "many"}, ROOT)
    assert str(raised.value).splitlines() == [
        "INGESTS: must be a valid integer, not 'many'",
        "SENDERS: must be greater than or equal to 1, not '0'",
    ]


def test_secrets_are_not_shown() -> None:
    configuration = configure(
        {
            "DATABASE_URL": "postgresql+asyncpg://u:hunter2@h/d",
            "NATS_URL": "nats://u:hunter2@h",
            "WEBHOOK_SECRET": "hunter2",
        },
        ROOT,
    )
    assert "hunter2" not in repr(configuration)


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("NATS_PORT=1111\nPOSTGRES_PORT=2222\nGATEWAY_PORT=3333\nSENDERS=\n")
    monkeypatch.setenv("NATS_PORT", "4444")
    monkeypatch.setenv("POSTGRES_PORT", "")
    monkeypatch.delenv("GATEWAY_PORT", raising=False)
    monkeypatch.delenv("SENDERS", raising=False)
    environment = read_environment(tmp_path)
    assert environment.variables["NATS_PORT"] == "4444"
    assert environment.variables["POSTGRES_PORT"] == "2222"
    assert environment.variables["GATEWAY_PORT"] == "3333"
    assert "SENDERS" not in environment.variables
    assert environment.names_in_file == ("NATS_PORT", "POSTGRES_PORT", "GATEWAY_PORT", "SENDERS")


def test_a_file_that_is_not_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe=")
    with pytest.raises(StackError, match=r"\.env cannot be read"):
        read_environment(tmp_path)
