"""Runs Alembic as a deployment does: in a process of its own, with nothing but DATABASE_URL."""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Result:
    status: int
    output: str
    errors: str


async def alembic(*arguments: str, database_url: str) -> Result:
    """Run a command; an empty URL is no URL."""
    return await run(sys.executable, "-m", "alembic", *arguments, database_url=database_url)


async def run(*command: str, database_url: str, standard_input: str = "") -> Result:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(standard_input.encode())
    return Result(process.returncode or 0, output.decode(), errors.decode())
