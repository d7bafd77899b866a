"""Runs the commands of a Markdown document exactly as they are written there."""

import asyncio
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^ *```sh ([\w-]+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)

# `go install` puts the NATS CLI into this folder, which need not be in PATH.
_GOBIN = os.environ.get("GOBIN") or str(Path.home() / "go" / "bin")
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), _GOBIN])


def commands(document: Path) -> dict[str, str]:
    """Return the blocks of a Markdown file that begin with ```` ```sh name ````, by their names."""
    found = _BLOCK.findall(document.read_text())
    assert len({name for name, _ in found}) == len(found), "two blocks have the same name"
    return {name: dedent(script) for name, script in found}


def need(*tools: str) -> None:
    """Skip the test if any of the tools is not installed."""
    if missing := [tool for tool in tools if not shutil.which(tool, path=_PATH)]:
        pytest.skip(f"not installed: {', '.join(missing)}")


class Terminal:
    """The terminal in which an operator enters the commands of a document.

    Args:
        document: the document.
        environment: variables that the operator has exported.
        folder: the working directory.
    """

    def __init__(self, document: Path, environment: Mapping[str, str], folder: Path = ROOT) -> None:
        self._commands = commands(document)
        self._environment = {**os.environ, "PATH": _PATH, **environment}
        self._folder = folder

    async def run(self, *names: str, **variables: str) -> str:
        """Run these blocks in one shell, with further exported variables; return the output."""
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", "\n".join(self._commands[name] for name in names)),
            cwd=self._folder,
            env={**self._environment, **variables},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, errors = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        assert process.returncode == 0, f"{names}: {output.decode()}{errors.decode()}"
        return output.decode()
