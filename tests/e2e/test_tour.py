"""The programs of docs/tour.md, each of which is run as it is written there."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import documents
from tests.documents import ROOT
from tests.e2e.stack import Stack

BLOCKS = re.findall(r"(?ms)^```(sh|python|ts)\n(.*?)^```$", (ROOT / "docs" / "tour.md").read_text())
CLIENTS = ROOT / "clients"


def program(language: str, stack: Stack) -> str:
    """Return all blocks in a language, with the ports of these services."""
    text = "\n".join(block for each, block in BLOCKS if each == language)
    gateway, provider = stack.gateway_url, stack.sms.url
    return text.replace("http://localhost:8080", gateway).replace("http://localhost:8001", provider)


async def run(*command: str, cwd: Path, **environment: str) -> str:
    finished = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


async def test_the_tour_with_curl(stack: Stack, tmp_path: Path) -> None:
    documents.need("bash", "curl", "jq")
    output = await run("bash", "-euo", "pipefail", "-c", program("sh", stack), cwd=tmp_path)

    assert "+18045551234 wrote: Yes, see you at nine!" in output
    conversation = "outbound: Is nine convenient?\ninbound: Yes, see you at nine!\noutbound: Thank you!\n"
    assert output.endswith(conversation)


async def test_the_tour_in_python(stack: Stack, tmp_path: Path) -> None:
    path = str(CLIENTS / "python" / "src")
    output = await run(sys.executable, "-c", program("python", stack), cwd=tmp_path, PYTHONPATH=path)

    assert output.startswith("+18045551235 wrote: Yes, see you at ten!\n")
    assert "inbound Yes, see you at ten!\n" in output


@pytest.mark.timeout(240)
async def test_the_typescript_client_and_its_tour(stack: Stack, tmp_path: Path) -> None:
    documents.need("npm", "node")
    client = tmp_path / "client"
    ignored = shutil.ignore_patterns("node_modules", "dist")
    shutil.copytree(CLIENTS / "typescript", client, ignore=ignored)
    await run("npm", "ci", "--no-audit", "--no-fund", cwd=client)
    await run("npm", "test", cwd=client)
    (client / "tour.ts").write_text(program("ts", stack))
    # The package may import itself by its name.
    options = (
        "--module",
        "NodeNext",
        "--target",
        "ES2022",
        "--strict",
        "--skipLibCheck",
        "--lib",
        "ES2022,DOM",
    )
    await run("npx", "tsc", *options, "tour.ts", cwd=client)
    output = await run("node", "tour.js", cwd=client)

    assert output.startswith("+18045551236 wrote: Yes, see you at eleven!\n")
    assert "inbound Yes, see you at eleven!\n" in output
