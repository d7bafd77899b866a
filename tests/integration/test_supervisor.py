"""The supervisor as a process that gets real signals, with stand-ins for the services."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
RUN = Path(__file__).with_name("stand_ins") / "run.py"

POLITE = """
import os, pathlib, signal, sys
def stop(*_):
    with open("stopped", "a") as stopped:
        print(os.environ["NAME"], file=stopped)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
pathlib.Path(os.environ["NAME"] + ".pid").write_text(str(os.getpid()))
print("running as", os.getpid())
pathlib.Path(os.environ["READY"]).touch()
while True:
    signal.pause()
"""
STUBBORN = POLITE.replace("signal.SIGTERM, stop", "signal.SIGTERM, signal.SIG_IGN")
PARENT = (
    """
import subprocess
child = subprocess.Popen(["sleep", "600"])
open("grandchild.pid", "w").write(str(child.pid))
"""
    + POLITE
)
CHATTY = POLITE.replace("    signal.pause()", "    print('x' * 1000)")
FAILING = "import sys; print('the reason'); sys.exit(3)"
NEVER_READY = "import time; time.sleep(600)"
DEADLINE = 30


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that has ended may still be listed, as a zombie."""
    listed = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)],  # noqa: S607 - its place depends on the system
        capture_output=True,
        text=True,
        check=False,
    )
    return bool(listed.stdout.strip()) and not listed.stdout.startswith("Z")


class Run:
    """A supervisor that runs a plan. Its output goes to files."""

    def __init__(self, folder: Path, plan: dict[str, list[Any]], output: int | None = None) -> None:
        self.folder = folder
        with (folder / "output").open("wb") as out, (folder / "errors").open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(RUN), str(folder), json.dumps(plan)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=out if output is None else output,
                stderr=errors,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()

    @property
    def errors(self) -> list[str]:
        return (self.folder / "errors").read_text().splitlines()

    def until_shown(self, text: str) -> None:
        until(lambda: text in self.output or self.process.poll() is not None)
        assert text in self.output

    def pid(self, name: str) -> int:
        """Return the process id of a stand-in, once it has one."""
        path = self.folder / f"{name}.pid"
        until(lambda: path.exists() and path.read_text().isdigit())
        return int(path.read_text())

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ends(self) -> int:
        return self.process.wait(DEADLINE)


Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start supervisors. Afterwards, none of their stand-ins may be left, however the supervisors ended."""
    runs: list[Run] = []

    def start_one(output: int | None = None, **plan: list[Any]) -> Run:
        runs.append(Run(tmp_path, plan, output))
        return runs[-1]

    yield start_one
    for run in runs:
        run.process.kill()
        run.process.wait()
    pids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    until(lambda: not any(map(is_running, pids)))


def stand_in(name: str, code: str = POLITE, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - becomes JSON
    return {"name": name, "code": code, **more}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_everything_in_order(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    run = start(
        servers=[stand_in("postgres", stage="DATABASE"), stand_in("nats", stage="BROKER")],
        steps=[stand_in("migrate", "print('migrated')")],
        services=[stand_in("sender"), stand_in("gateway", stage="GATEWAY")],
    )
    run.until_shown("Everything is up.")
    run.signal(number)
    assert run.ends() == 0
    assert (tmp_path / "stopped").read_text().split() == ["gateway", "sender", "nats", "postgres"]
    assert not run.errors


def test_the_output_of_the_services_follows_the_progress_of_the_start(start: Start) -> None:
    run = start(
        servers=[stand_in("nats", stage="BROKER")],
        steps=[stand_in("migrate", "print('migrated')")],
        services=[stand_in("sender")],
    )
    run.until_shown("running as")
    lines = [re.sub(r"[0-9.]+ s$", "… s", line) for line in run.output.splitlines()]
    assert [line.split() for line in lines[:3]] == [
        ["nats", "ready", "…", "s"],
        ["migrate", "done", "…", "s"],
        ["sender", "ready", "…", "s"],
    ]
    assert lines[3] == "Everything is up."
    assert f"sender  | running as {run.pid('sender')}" in lines[4:]
    assert "migrate | migrated" not in lines


def test_each_process_has_a_log(start: Start, tmp_path: Path) -> None:
    run = start(
        steps=[stand_in("migrate", "print('migrated')")], services=[stand_in("sender")], log_folder=["log"]
    )
    run.until_shown("running as")
    assert (tmp_path / "log" / "migrate.log").read_text() == "migrated\n"
    assert (tmp_path / "log" / "sender.log").read_text() == f"running as {run.pid('sender')}\n"


def test_the_same_signal_twice_is_like_one(start: Start, tmp_path: Path) -> None:
    run = start(services=[stand_in("sender")])
    run.until_shown("Everything is up.")
    run.signal(signal.SIGTERM)
    run.signal(signal.SIGTERM)
    assert run.ends() == 0
    assert (tmp_path / "stopped").read_text().split() == ["sender"]


def test_a_signal_during_the_start_stops_everything(start: Start) -> None:
    run = start(servers=[stand_in("postgres", stage="DATABASE")], services=[stand_in("sender", NEVER_READY)])
    run.pid("postgres")
    run.signal(signal.SIGINT)
    assert run.ends() == 0
    assert "Everything is up." not in run.output


@pytest.mark.parametrize("stage", ["GATEWAY", "DATABASE"])
def test_a_process_that_ends_is_started_again(start: Start, tmp_path: Path, stage: str) -> None:
    run = start(services=[stand_in("it", stage=stage)])
    run.until_shown("Everything is up.")
    first = run.pid("it")
    (tmp_path / "it.pid").unlink()
    os.kill(first, signal.SIGKILL)
    assert run.pid("it") != first
    assert "it | was ended by SIGKILL; restarting in 0.5 s" in run.output
    run.signal(signal.SIGTERM)
    assert run.ends() == 0


def test_a_service_that_ends_before_it_is_ready_stops_everything(start: Start) -> None:
    run = start(servers=[stand_in("nats", stage="BROKER")], services=[stand_in("gateway", FAILING)])
    assert run.ends() == 1
    assert run.errors == ["run: gateway ended with status 3 before it was ready", "  the reason"]


def test_a_service_that_never_becomes_ready_stops_everything(start: Start) -> None:
    run = start(services=[stand_in("gateway", NEVER_READY, start_timeout=0.5), stand_in("sender")])
    assert run.ends() == 1
    assert run.errors == ["run: gateway was not ready in 0.5 s: the file is missing"]


def test_a_step_that_fails_stops_everything(start: Start) -> None:
    run = start(servers=[stand_in("nats", stage="BROKER")], steps=[stand_in("migrate", FAILING)])
    assert run.ends() == 1
    assert run.errors == ["run: migrate ended with status 3", "  the reason"]


def test_a_process_that_does_not_stop_is_killed(start: Start) -> None:
    run = start(services=[stand_in("sender", STUBBORN, grace=0.2)])
    run.until_shown("Everything is up.")
    run.signal(signal.SIGTERM)
    assert run.ends() == 0


def test_a_second_ctrl_c_kills(start: Start) -> None:
    run = start(services=[stand_in("sender", STUBBORN, grace=600), stand_in("gateway", STUBBORN, grace=600)])
    run.until_shown("Everything is up.")
    run.signal(signal.SIGINT)
    run.until_shown("Stopping.")
    run.signal(signal.SIGINT)
    assert run.ends() == 130


def test_the_processes_that_a_service_started_end_with_it(start: Start) -> None:
    run = start(services=[stand_in("sender", PARENT)])
    run.until_shown("Everything is up.")
    grandchild = run.pid("grandchild")
    assert is_running(grandchild)
    run.signal(signal.SIGTERM)
    assert run.ends() == 0
    until(lambda: not is_running(grandchild))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this signal")
def test_no_process_outlives_a_supervisor_that_is_killed(start: Start) -> None:
    run = start(services=[stand_in("sender", STUBBORN), stand_in("gateway", STUBBORN)])
    run.until_shown("Everything is up.")
    pids = [run.pid("sender"), run.pid("gateway")]
    run.signal(signal.SIGKILL)
    run.ends()
    until(lambda: not any(map(is_running, pids)))


def test_a_closed_terminal_stops_everything(start: Start) -> None:
    """The supervisor gets no signal for it, because it is not the session leader, as under `make`."""
    ours, theirs = os.openpty()
    run = start(output=theirs, services=[stand_in("sender")])
    os.close(theirs)
    run.pid("sender")
    os.close(ours)
    assert run.ends() == 0


def test_an_output_that_nobody_reads_does_not_hold_up_the_stop(start: Start) -> None:
    reader, writer = os.pipe()
    run = start(output=writer, services=[stand_in("sender", CHATTY)])
    os.close(writer)
    run.pid("sender")
    run.signal(signal.SIGTERM)
    assert run.ends() == 0
    os.close(reader)
