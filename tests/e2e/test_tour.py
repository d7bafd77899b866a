"""The programs of docs/tour.md, each of which is run as it is written there."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZipFile

import pytest

from services.notifier.signing import signed_headers
from shared.endpoint_secrets import new_secret
from shared.ids import new_event_id
from tests import documents
from tests.documents import ROOT
from tests.e2e.stack import Stack

BLOCKS = re.findall(r"(?ms)^```(sh|python|ts)\n(.*?)^```$", (ROOT / "docs" / "tour.md").read_text())
CLIENTS = ROOT / "clients"
VERIFY = """
import assert from "node:assert/strict";
import { Webhook, WebhookVerificationError } from "standardwebhooks";
const { secrets, other, body, headers } = JSON.parse(process.argv[1]);
for (const secret of secrets) assert.deepEqual(new Webhook(secret).verify(body, headers), JSON.parse(body));
assert.throws(() => new Webhook(other).verify(body, headers), WebhookVerificationError);
"""


def program(language: str, stack: Stack) -> str:
    """Return all blocks in a language, with the ports of these services."""
    text = "\n".join(block for each, block in BLOCKS if each == language)
    gateway, provider = stack.gateway_url, stack.sms.url
    return text.replace("http://localhost:8080", gateway).replace("http://localhost:8001", provider)


async def run(*command: str, cwd: Path) -> str:
    finished = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def the_file(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


async def test_the_tour_with_curl(stack: Stack, tmp_path: Path) -> None:
    documents.need("bash", "curl", "jq")
    output = await run("bash", "-euo", "pipefail", "-c", program("sh", stack), cwd=tmp_path)

    assert "+18045551234 wrote: Yes, see you at nine!" in output
    conversation = "outbound: Is nine convenient?\ninbound: Yes, see you at nine!\noutbound: Thank you!\n"
    assert output.endswith(conversation)


async def test_the_tour_in_python(stack: Stack, tmp_path: Path) -> None:
    """Run it with the wheel of the client, in an environment that has nothing else."""
    source = tmp_path / "python"
    shutil.copytree(CLIENTS / "python", source, ignore=shutil.ignore_patterns("__pycache__"))
    await run(sys.executable, "-m", "hatchling", "build", "--directory", str(tmp_path), cwd=source)
    wheel, sdist = the_file(tmp_path, "*.whl"), the_file(tmp_path, "*.tar.gz")
    with ZipFile(wheel) as archive, tarfile.open(sdist) as sources:
        contents = archive.namelist(), sources.getnames()
    for names in contents:
        assert {"py.typed", "LICENSE"} <= {name.rpartition("/")[2] for name in names}
    await run(sys.executable, "-m", "venv", "venv", cwd=tmp_path)
    python = str(tmp_path / "venv" / "bin" / "python")
    await run(
        python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel), cwd=tmp_path
    )
    output = await run(python, "-c", program("python", stack), cwd=tmp_path)

    assert output.startswith("+18045551235 wrote: Yes, see you at ten!\n")
    assert output.endswith("outbound Is ten convenient?\ninbound Yes, see you at ten!\noutbound Thank you!\n")


@pytest.mark.timeout(240)
async def test_the_typescript_client_and_its_tour(stack: Stack, tmp_path: Path) -> None:
    """Run it with the package of the client, in a project that has neither its types nor those of Node."""
    documents.need("npm", "node")
    client, project = tmp_path / "client", tmp_path / "project"
    ignored = shutil.ignore_patterns("node_modules", "dist")
    shutil.copytree(CLIENTS / "typescript", client, ignore=ignored)
    await run("npm", "ci", "--no-audit", "--no-fund", cwd=client)
    await run("npm", "test", cwd=client)
    project.mkdir()
    (project / "package.json").write_text('{"private": true, "type": "module"}')
    await run("npm", "pack", "--pack-destination", str(tmp_path), cwd=client)
    package = str(the_file(tmp_path, "*.tgz"))
    await run("npm", "install", "--no-audit", "--no-fund", package, cwd=project)

    (project / "tour.ts").write_text(program("ts", stack))
    options = ("--module", "NodeNext", "--target", "ES2022", "--strict", "--lib", "ES2022,DOM,DOM.Iterable")
    tsc = client / "node_modules" / ".bin" / "tsc"
    await run(str(tsc), *options, "tour.ts", cwd=project)
    output = await run("node", "tour.js", cwd=project)

    assert output.startswith("+18045551236 wrote: Yes, see you at eleven!\n")
    conversation = "outbound Is eleven convenient?\ninbound Yes, see you at eleven!\noutbound Thank you!\n"
    assert output.endswith(conversation)
    await verify_with_npm(project)


async def verify_with_npm(project: Path) -> None:
    """Verify a webhook by a new and a former secret with the npm package of Standard Webhooks."""
    secrets, body = [new_secret(), new_secret()], json.dumps({"type": "message.received", "text": "Zoë"})
    headers = signed_headers(new_event_id(), body.encode(), secrets, datetime.now(UTC))
    webhook = json.dumps({"secrets": secrets, "other": new_secret(), "body": body, "headers": headers})
    await run("node", "--input-type=module", "--eval", VERIFY, webhook, cwd=project)
