"""Tools of others can read the documents of the API, and the clients that they generate can send."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from dev.contract.openapi import openapi_document
from tests import documents
from tests.documents import ROOT
from tests.e2e.stack import Stack

TOOLS = Path(__file__).with_name("generators")

pytestmark = pytest.mark.timeout(400)


async def run(*command: str | Path, cwd: Path) -> str:
    finished = await asyncio.to_thread(
        subprocess.run, command, cwd=cwd, capture_output=True, text=True, timeout=180, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr


@pytest.fixture(scope="module")
async def tools(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """Install the tools from npm into a new folder."""
    documents.need("npm", "node")
    folder = tmp_path_factory.mktemp("generators") / "tools"
    shutil.copytree(TOOLS, folder, ignore=shutil.ignore_patterns("node_modules"))
    await run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)
    (folder / "openapi.json").write_text(json.dumps(openapi_document()))
    yield folder
    shutil.rmtree(folder)


async def test_the_documents_are_valid(tools: Path) -> None:
    await run("npx", "redocly", "lint", "openapi.json", cwd=tools)
    assert await run("node", "validate_asyncapi.mjs", ROOT / "docs" / "asyncapi.json", cwd=tools) == ""


async def test_clients_in_typescript_can_send(tools: Path, stack: Stack) -> None:
    await run("npx", "openapi-typescript", "openapi.json", "--output", "schema.ts", cwd=tools)
    await run("npx", "openapi-ts", cwd=tools)
    programs = ("send_with_openapi_fetch", "send_with_hey_api")
    options = ("--module", "NodeNext", "--target", "ES2022", "--strict", "--skipLibCheck")
    types = ("--lib", "ES2022,DOM,DOM.Iterable", "--types", "node")
    await run("npx", "tsc", *options, *types, *(f"{program}.ts" for program in programs), cwd=tools)
    for program in programs:
        id_, _ = (await run("node", f"{program}.js", stack.gateway_url, cwd=tools)).split()
        await stack.message_becomes(str(UUID(id_)), "sent")


async def test_a_client_in_python_can_send(tmp_path: Path, stack: Stack) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(openapi_document()))
    python = tmp_path / "venv" / "bin" / "python"
    await run(sys.executable, "-m", "venv", "--system-site-packages", "venv", cwd=tmp_path)
    await run(python, "-m", "pip", "install", "--quiet", "openapi-python-client", cwd=tmp_path)
    generate = ("-m", "openapi_python_client", "generate", "--meta", "none", "--path", "openapi.json")
    output = await run(python, *generate, "--output-path", "messaging_service_client", cwd=tmp_path)

    # Formatting the client needs a program that is not installed.
    assert "WARNING parsing" not in output
    assert "Unable to" not in output
    program = shutil.copy(TOOLS / "send_with_openapi_python_client.py", tmp_path)
    await run(python, program, stack.gateway_url, cwd=tmp_path)
