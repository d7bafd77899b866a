"""Runs stand-ins for the services under the supervisor: python run.py <folder> <JSON of the plan>.

A stand-in is Python code. Its name is in NAME; it is ready once it has created the file READY.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from dev.local_stack.processes import Command
from dev.local_stack.programs import Plan, Program, Stage
from dev.local_stack.readiness import NotReadyError
from dev.local_stack.session import carry_out, reporting_errors

FOLDER = Path(sys.argv[1])


def command(name: str, code: str, grace: float) -> Command:
    environment = {
        **os.environ,
        "NAME": name,
        "READY": str(FOLDER / f"{name}.ready"),
        "PYTHONUNBUFFERED": "1",
    }
    return Command(
        name=name, argv=(sys.executable, "-c", code), environment=environment, folder=FOLDER, grace=grace
    )


def program(
    name: str, code: str, stage: str = "WORKERS", grace: float = 10, start_timeout: float = 60
) -> Program:
    async def ready() -> None:
        if not (FOLDER / f"{name}.ready").exists():
            raise NotReadyError("the file is missing")

    return Program(
        command=command(name, code, grace), ready=ready, stage=Stage[stage], start_timeout=start_timeout
    )


def plan(described: dict[str, list[Any]]) -> Plan:
    return Plan(
        servers=tuple(program(**server) for server in described.get("servers", [])),
        steps=tuple(command(**step, grace=10) for step in described.get("steps", [])),
        services=tuple(program(**service) for service in described.get("services", [])),
        log_folder=next((FOLDER / name for name in described.get("log_folder", [])), None),
    )


if __name__ == "__main__":
    sys.exit(reporting_errors(lambda: carry_out(plan(json.loads(sys.argv[2])), "Everything is up.")))
