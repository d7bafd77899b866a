import subprocess
import sys

import psutil
import pytest

from dev.bench.cpu_time import Meter, cpu_seconds

_WORKED = 0.2
_CHILD = f"""
import time
while time.process_time() < {_WORKED}: pass
print("worked", flush=True)
input()
"""
_PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {_CHILD!r}])
print("ended", flush=True)
input()
"""


def time_of_children(pid: int) -> float:
    own = psutil.Process(pid).cpu_times()
    return cpu_seconds(pid) - float(own.user + own.system)


def test_the_time_of_children_counts_before_and_after_they_have_ended() -> None:
    argv = [sys.executable, "-c", _PARENT]
    with subprocess.Popen(
        argv, text=True, bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdin and parent.stdout  # noqa: PT018 - for mypy
        assert parent.stdout.readline() == "worked\n"
        assert psutil.Process(parent.pid).children()
        assert time_of_children(parent.pid) >= _WORKED * 0.9
        parent.stdin.write("\n")
        assert parent.stdout.readline() == "ended\n"
        assert not psutil.Process(parent.pid).children()
        assert time_of_children(parent.pid) >= _WORKED * 0.9
        parent.stdin.write("\n")


def test_a_meter_counts_from_its_creation_and_adds_up_each_group(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {1: 5.0, 2: 7.0, 3: 100.0}
    monkeypatch.setattr("dev.bench.cpu_time.cpu_seconds", seconds.__getitem__)
    meter = Meter({"sender": [1, 2], "gateway": [3], "ingest": []})
    seconds.update({1: 5.5, 2: 7.25, 3: 101.0})
    assert meter.seconds() == {"sender": 0.75, "gateway": 1.0, "ingest": 0}
    assert meter.per_message(1_000) == {"sender": 750, "gateway": 1_000, "ingest": 0}
