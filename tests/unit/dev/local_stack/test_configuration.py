from pathlib import Path

import pytest

from dev.local_stack.configuration import configure, read_environment
from dev.local_stack.errors import StackError

ROOT = Path("/somewhere")


def test_nothing_set_means_servers_of_our_own() -> None:
    configuration = configure({}, ROOT)
    assert configuration.owns_servers
    assert configuration.data_folder == ROOT / ".data"
    assert (configuration.postgres_port, configuration.nats_port, configuration.gateway_port) == (
        5432,
        4222,
        8080,
    )
    assert (configuration.ingests, configuration.senders) == (1, 1)
    assert configuration.ingest_health_port is None


def test_an_absolute_data_folder_is_taken_as_it_is() -> None:
    assert configure({"DATA_DIR": "/elsewhere"}, ROOT).data_folder == Path("/elsewhere")


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        (
            {"DATABASE_URL": "x"},
            "DATABASE_URL is set but NATS_URL is not: set both, or neither, in the environment or .env",
        ),
        (
            {"NATS_URL": "x"},
            "NATS_URL is set but DATABASE_URL is not: set both, or neither, in the environment or .env",
        ),
        ({"GATEWAY_PORT": "http"}, "GATEWAY_PORT is 'http': it must be a whole number from 1 to 65535"),
        ({"POSTGRES_PORT": "0"}, "POSTGRES_PORT is '0': it must be a whole number from 1 to 65535"),
        ({"NATS_PORT": "65536"}, "NATS_PORT is '65536': it must be a whole number from 1 to 65535"),
        ({"NATS_PORT": "4_222"}, "NATS_PORT is '4_222': it must be a whole number from 1 to 65535"),
        ({"SENDERS": "-1"}, "SENDERS is '-1': it must be a whole number from 1 to 32"),
        ({"INGEST_HEALTH_PORT": "²"}, "INGEST_HEALTH_PORT is '²': it must be a whole number from 1 to 65535"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(environment: dict[str, str], complaint: str) -> None:
    with pytest.raises(StackError) as raised:
        configure(environment, ROOT)
    assert str(raised.value) == complaint


def test_secrets_are_not_shown() -> None:
    configuration = configure(
        {
            "DATABASE_URL": "postgresql://u:hunter2@h/d",
            "NATS_URL": "nats://u:hunter2@h",
            "WEBHOOK_SECRET": "hunter2",
        },
        ROOT,
    )
    assert "hunter2" not in repr(configuration)


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("NATS_PORT=1111\nPOSTGRES_PORT=2222\nGATEWAY_PORT=3333\nSENDERS=\n")
    monkeypatch.setenv("NATS_PORT", "4444")
    monkeypatch.setenv("POSTGRES_PORT", "")
    monkeypatch.delenv("GATEWAY_PORT", raising=False)
    monkeypatch.delenv("SENDERS", raising=False)
    environment = read_environment(tmp_path)
    assert environment["NATS_PORT"] == "4444"
    assert environment["POSTGRES_PORT"] == "2222"
    assert environment["GATEWAY_PORT"] == "3333"
    assert "SENDERS" not in environment


def test_a_file_that_is_no_text_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe=")
    with pytest.raises(StackError, match="cannot be read"):
        read_environment(tmp_path)
