"""Floods the services as strangers could, and prints how genuine requests fare.

    python -m dev.floods [--seconds 6]

Everything runs on this machine, in a temporary folder, and each flood ends after the given time.
"""

import argparse
import asyncio
import base64
import json
import sys
import tempfile
import time
from collections.abc import Awaitable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from standardwebhooks import Webhook

from dev.bench.report import Cell, Table, percentile
from dev.bench.samples import webhook
from dev.bench.stack import Stack, running_stack
from dev.floods.floods import FLOODS, MIB
from dev.local_stack.ports import free_port
from dev.local_stack.readiness import answers_http
from dev.local_stack.servers import HOST
from shared.http_server import MAX_CONNECTIONS

_BUDGETS: dict[str, tuple[float, int]] = {
    "gateway": (512, MAX_CONNECTIONS + 256),
    "ingest": (512, 128),
    "sender": (512, 512),
    "notifier": (512, 128),
}
"""MiB, as in docker-compose.yml, and descriptors: the gateway needs one for each connection."""

_SERVICES = tuple(_BUDGETS)
_EVERY = 0.1
_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - of this stack only
_CLIENTS = (256, 4_096, 256)
_SENT = "SELECT count(*) FROM message_events WHERE status = 'sent'"
_QUIET = 2
"""Seconds without another sent message after which all are considered sent."""

_MAILS = 64
_COLUMNS = (
    "genuine webhooks",
    "failed",
    "p99, s",
    *(f"{name}: {unit}" for name in _SERVICES for unit in ("MiB", "fds")),
)


class _Watch:
    """Watches the services during a flood, and sends them genuine webhooks."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._processes = {name: psutil.Process(*stack.pids(name)) for name in _SERVICES}
        self._peaks = dict.fromkeys(_SERVICES, (0.0, 0))
        self._times: list[float] = []
        self._failed = 0

    async def during(self, flood: Awaitable[object], seconds: float) -> list[Cell]:
        tasks = [asyncio.create_task(each) for each in (self._measure(), self._post())]
        with suppress(TimeoutError):
            await asyncio.wait_for(flood, seconds)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        worst = percentile(self._times, 0.99) if self._times else None
        peaks = [cell for name in _SERVICES for cell in self._peaks[name]]
        return [float(len(self._times)), float(self._failed), worst, *map(float, peaks)]

    async def _measure(self) -> None:
        while True:
            for name, process in self._processes.items():
                memory, descriptors = self._peaks[name]
                now = process.memory_info().rss / MIB
                self._peaks[name] = max(memory, now), max(descriptors, process.num_fds())
            await asyncio.sleep(_EVERY)

    async def _post(self) -> None:
        """Send webhooks, each on a new connection, as providers do."""
        url = self._stack.url("gateway", "/api/webhooks/sms")
        while True:
            started = time.perf_counter()
            try:
                async with httpx.AsyncClient(timeout=15, trust_env=False) as client:
                    content, headers = _signed()
                    response = await client.post(url, content=content, headers=headers)
                self._failed += not response.is_success
            except httpx.TransportError:
                self._failed += 1
            self._times.append(time.perf_counter() - started)
            await asyncio.sleep(_EVERY)


def _signed() -> tuple[str, dict[str, str]]:
    body = json.dumps(webhook(0, uuid4().hex))
    now = datetime.now(UTC)
    headers = {
        "content-type": "application/json",
        "webhook-id": "1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(_SECRET).sign("1", now, body),
    }
    return body, headers


async def _overload(stack: Stack, seconds: float) -> list[list[Cell]]:
    """Send messages with few clients, many, and few again; each run begins once the previous one is sent."""
    rows: list[list[Cell]] = []
    for clients in _CLIENTS:
        await _until_nothing_is_sent(stack)
        arguments = (str(stack.port("gateway")), str(clients), str(seconds))
        result = json.loads(await stack.run("dev.floods.overload", *arguments))
        rows.append(
            [
                f"{clients} clients",
                result["accepted"] / result["seconds"],
                *(
                    float(result[name])
                    for name in ("accepted_p50", "accepted_p99", "shed", "shed_p50", "failed")
                ),
            ]
        )
    return rows


async def _until_nothing_is_sent(stack: Stack) -> None:
    before = -1
    while (now := await stack.query(_SENT)) != before:
        before = now
        await asyncio.sleep(_QUIET)


async def _send_attachments(stack: Stack, files: str) -> None:
    url = stack.url("gateway", "/api/messages/email")

    async def send(number: int) -> None:
        mail = {
            "from": "us@example.com",
            "to": f"customer{number}@example.com",
            "body": "With an attachment",
            "attachments": [f"{files}/file"],
            "timestamp": "2026-03-01T14:00:00Z",
        }
        (await stack.http.post(url, json=mail)).raise_for_status()

    await asyncio.gather(*map(send, range(_MAILS)))
    await asyncio.Event().wait()


async def _run(seconds: float) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    port = free_port()
    files = f"http://{HOST}:{port}"
    settings = {
        "WEBHOOK_SECRET": _SECRET,
        "SENDGRID_WEBHOOK_PUBLIC_KEY": base64.b64encode(der).decode(),
        "SENDGRID_API_KEY": "SG.of-this-stack-only",
        "SENDGRID_URL": files,
        "EMAIL_PROVIDERS": "sendgrid",
        "ALLOW_PRIVATE_ATTACHMENTS": "true",
        "WEBHOOK_ENDPOINT_KEY": "a key of this stack only",
    }
    with tempfile.TemporaryDirectory() as folder:
        async with running_stack(Path(folder), **settings) as stack:
            argv = (sys.executable, "-m", "dev.floods.attachments", str(port))
            await stack.start_program("attachments", argv, partial(answers_http, f"{files}/stats"))
            await stack.start(*_SERVICES)
            rows: list[list[Cell]] = [["none", *await _Watch(stack).during(asyncio.sleep(seconds), seconds)]]
            for name, flood in FLOODS.items():
                flooded = "gateway-health" if name == "scrapes" else "gateway"
                rows.append([name, *await _Watch(stack).during(flood(stack.port(flooded)), seconds)])
                print(name, file=sys.stderr)
            mails = _send_attachments(stack, files)
            rows.append([f"{_MAILS} attachments of 10 MB", *await _Watch(stack).during(mails, seconds * 2)])
            budget = [float(each) for name in _SERVICES for each in _BUDGETS[name]]
            table = Table("Floods", ["", *_COLUMNS], [*rows, ["budget", None, None, None, *budget]])
            print(table.markdown())
    # The attachments are still in progress there, so the overload has servers and services of its own.
    with tempfile.TemporaryDirectory() as folder:
        async with running_stack(Path(folder)) as stack:
            await stack.start("gateway", "ingest", "sender")
            columns = ["", "accepted/s", "p50, s", "p99, s", "refused", "p50, s", "failed"]
            print(Table("Overload", columns, await _overload(stack, seconds)).markdown())
    peaks = zip(*(row[-len(budget) :] for row in rows), strict=True)
    if any(max(map(float, each)) > limit for each, limit in zip(peaks, budget, strict=True)):
        sys.exit("A service has exceeded its budget.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dev.floods", description=__doc__)
    parser.add_argument("--seconds", type=float, default=6, help="duration of each flood")
    asyncio.run(_run(parser.parse_args().seconds))


if __name__ == "__main__":
    main()
