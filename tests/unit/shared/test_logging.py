import subprocess
import sys

import pytest

PROGRAM = """
import logging
from shared.observability.logging import configure
from shared.settings import Settings

def send(headers):
    raise RuntimeError(f"{len(headers)} of them")

configure(Settings(_env_file=None), service="test")
try:
    send({"Authorization": "secret-key"})
except RuntimeError:
    logging.getLogger("uvicorn.error").exception("what nobody foresaw")
"""


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_what_a_function_held_when_it_failed_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, log_format: str
) -> None:
    """In a process, for logging is set up once in each."""
    monkeypatch.setenv("LOG_FORMAT", log_format)
    logged = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    ).stderr
    assert "1 of them" in logged
    assert "secret-key" not in logged
