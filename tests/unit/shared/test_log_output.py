"""A program whose log cannot be written continues, and counts the lines that are lost."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LINES = 10_000
PROGRAM = f"""
import logging, sys, threading
import structlog
from shared.observability.logging import configure
from shared.observability.metrics import LOG_LINES_DROPPED
from shared.settings import Settings

configure(Settings(_env_file=None), service="gateway")
for number in range({LINES}):
    structlog.get_logger().info("message_accepted", number=number, text="x" * 100)
logging.getLogger("library").error("failed")
print("printed", file=sys.stderr)
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
sys.stderr.close()
[[sample]] = [metric.samples[:1] for metric in LOG_LINES_DROPPED.collect()]
print(int(sample.value))
"""


def lines_lost(stderr: int) -> int:
    """Run the program, and return how many lines it has counted as lost."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={}, stdout=subprocess.PIPE, stderr=stderr, timeout=60, check=True
    )
    return int(result.stdout)


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        for end in (reader, writer):
            try:
                os.close(end)
            except OSError:
                assert end == reader  # the test has closed it


def test_a_closed_pipe_loses_every_line() -> None:
    with pipe() as (reader, writer):
        os.close(reader)
        assert lines_lost(writer) > LINES


def test_a_pipe_that_nobody_reads_loses_the_lines_that_exceed_its_size_and_that_of_the_queue() -> None:
    with pipe() as (_, writer):
        assert 0 < lines_lost(writer) < LINES


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has this device")
def test_a_full_disk_loses_every_line() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        assert lines_lost(full.fileno()) > LINES


def test_a_file_gets_every_line(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        lost = lines_lost(file.fileno())
    lines = (tmp_path / "log").read_text().splitlines()
    assert sum("message_accepted" in line for line in lines) + lost == LINES
    assert lines[-1] == "ZeroDivisionError: division by zero"
