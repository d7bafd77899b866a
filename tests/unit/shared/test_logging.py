import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Logging is configured once per process, so that every test reads what one program logs.
PROGRAM = """
import logging
import threading
import warnings

import structlog

from shared.observability.logging import configure
from shared.settings import Settings

configure(Settings(_env_file=None), service="gateway")
log = structlog.get_logger()

log.debug("hidden")
logging.getLogger("httpx").info("hidden")
with structlog.contextvars.bound_contextvars(message_id="m-1"):
    log.info("message_accepted", type="sms", client=None, subject="", attachments=[], attempt=0)
log.warning("nats_error", error="no server\\n\\x1b[31mis 'there'")
log.info("stored", message_ids=[f"m-{number}" for number in range(7)])

def send(headers):
    raise RuntimeError(f"{len(headers)} headers")

try:
    send({"Authorization": "-".join(["secret", "key"])})  # a traceback quotes this line
except RuntimeError:
    log.exception("handler_failed", consumer="ingest")
    logging.getLogger("asyncio").exception("Task %s failed\\nfuture: <Task>", 7)

logging.getLogger("asyncio").error("bad\\n00:00:00.000 info     message_sent\\r\\x1b[31m\\u2028red")
logging.getLogger("uvicorn.error").error("Traceback (most recent call last):\\n  File\\nKeyError: 'x'\\n")
warnings.warn("old", stacklevel=1)
thread = threading.Thread(target=log.info, args=["from_thread"])
thread.start()
thread.join()
"""


def run(log_format: str, stderr: Path | None = None, **environment: str) -> str:
    command = [sys.executable, "-c", PROGRAM]
    environment = {"LOG_FORMAT": log_format, "PYTHONIOENCODING": "utf-8", **environment}
    if stderr is None:
        return subprocess.run(
            command, env=environment, stderr=subprocess.PIPE, text=True, encoding="utf-8", check=True
        ).stderr
    with stderr.open("w") as file:
        subprocess.run(command, env=environment, stderr=file, check=True)
    return stderr.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text() -> str:
    return run("text")


@pytest.fixture(scope="module")
def json_lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("json").splitlines()]


@pytest.fixture(scope="module")
def by_event(json_lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {line["event"]: line for line in json_lines}


def test_json_has_the_common_fields_first(json_lines: list[dict[str, Any]]) -> None:
    assert len(json_lines) == 9
    for line in json_lines:
        assert list(line)[:4] == ["timestamp", "level", "service", "event"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])
        assert line["service"] == "gateway"


def test_fields_without_a_value_are_left_out(by_event: dict[str, dict[str, Any]], text: str) -> None:
    given = by_event["message_accepted"]
    line = {name: value for name, value in given.items() if name != "timestamp"}
    assert list(line.items()) == [
        ("level", "info"),
        ("service", "gateway"),
        ("event", "message_accepted"),
        ("message_id", "m-1"),
        ("type", "sms"),
        ("attempt", 0),
    ]
    assert "message_id=m-1 type=sms attempt=0\n" in text


def test_libraries_log_in_the_same_format(by_event: dict[str, dict[str, Any]]) -> None:
    line = by_event["Task 7 failed"]
    assert line["level"] == "error"
    assert line["logger"] == "asyncio"
    assert line["details"] == "future: <Task>"
    assert line["exception"].endswith("RuntimeError: 1 headers")
    assert by_event["KeyError: 'x'"]["exception"].startswith("Traceback ")
    [warning] = [line for event, line in by_event.items() if event.endswith("UserWarning: old")]
    assert warning["logger"] == "py.warnings"


def test_json_has_the_traceback_in_one_field(by_event: dict[str, dict[str, Any]]) -> None:
    traceback = by_event["handler_failed"]["exception"]
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert traceback.endswith("\nRuntimeError: 1 headers")


def test_text_is_aligned(text: str) -> None:
    lines = [re.sub(r"^[\d:.]{12} ", "TIME ", line) for line in text.splitlines()]
    assert lines[:4] == [
        "TIME info     message_accepted     message_id=m-1 type=sms attempt=0",
        r'''TIME warning  nats_error           error="no server\n\x1b[31mis 'there'"''',
        "TIME info     stored               message_ids=m-0,m-1,m-2,m-3,m-4,…(+2)",
        "TIME error    handler_failed       consumer=ingest",
    ]
    assert lines[4] == "  Traceback (most recent call last):"
    assert lines[-1] == "TIME info     from_thread"


def test_a_logged_value_cannot_look_like_another_event_or_control_the_terminal(text: str) -> None:
    assert "\n  00:00:00.000 info     message_sent\n  \\x1b[31m\n  red\n" in text
    assert "\x1b" not in text


def test_text_names_the_service_unless_the_reader_of_a_pipe_does(text: str, tmp_path: Path) -> None:
    assert " gateway " not in text
    assert " info     gateway  message_accepted     message_id=m-1" in run("text", tmp_path / "log")


def test_a_local_variable_is_never_logged(text: str, json_lines: list[dict[str, Any]]) -> None:
    assert "1 headers" in text
    assert "secret-key" not in text
    assert "secret-key" not in str(json_lines)


def test_the_level_applies_to_libraries(tmp_path: Path) -> None:
    logged = run("json", tmp_path / "log", LOG_LEVEL="ERROR")
    assert {json.loads(line)["level"] for line in logged.splitlines()} == {"error"}
