"""Measures the CPU time per message of Kannel, if the Debian package is installed.

Kannel is a gateway in C that has neither conversations nor an API to read messages. It stores its queue in
a file, and sends the messages to the same provider over HTTP.
"""

import asyncio
import shutil
from functools import partial

from dev.bench.cpu_time import Meter
from dev.bench.report import Table, costs_table
from dev.bench.size import Size
from dev.bench.stack import Stack
from dev.bench.throughput import provider_stats
from dev.bench.waiting import until
from dev.local_stack.readiness import NotReadyError, answers_http

_PROGRAMS = ("bearerbox", "smsbox")
_PROVIDER_MS = 20
_TIMEOUT = 300

_CONFIGURATION = """\
group = core
admin-port = {admin}
admin-password = bench
admin-interface = 127.0.0.1
smsbox-port = {box}
box-allow-ip = "127.0.0.1"
log-file = "{folder}/kannel.log"
log-level = 2
store-type = file
store-location = "{folder}/kannel.store"

group = smsc
smsc = http
smsc-id = provider
system-type = generic
port = {smsc}
send-url = "{provider}/kannel?from=%p&to=%P&text=%b"
status-success-regex = "messaging_provider_id"
max-pending-submits = 96

group = smsbox
bearerbox-host = 127.0.0.1
sendsms-port = {sendsms}
sendsms-interface = 127.0.0.1
log-file = "{folder}/smsbox.log"
log-level = 2

group = sendsms-user
username = bench
password = bench
max-messages = 1
concatenation = false
"""


async def measure(stack: Stack, size: Size) -> list[Table]:
    programs = [shutil.which(name) for name in _PROGRAMS]
    title = "CPU time per message of Kannel, µs"
    if None in programs:
        return [Table(title, [""], [["Kannel is not installed: apt-get install kannel"]])]
    await stack.set_latency(_PROVIDER_MS)
    file = stack.folder / "kannel.conf"
    file.write_text(
        _CONFIGURATION.format(
            folder=stack.folder,
            provider=stack.url("provider"),
            **{name: stack.port(name) for name in ("admin", "box", "smsc", "sendsms")},
        ),
        encoding="ascii",
    )
    probes = (
        partial(answers_http, stack.url("admin", "/status.txt?password=bench")),
        partial(_listens, stack.port("sendsms")),
    )
    for name, program, probe in zip(_PROGRAMS, programs, probes, strict=True):
        await stack.start_program(name, (str(program), str(file)), probe)
    try:
        await _send(stack, size.messages // 10)
        meter = Meter({name: stack.pids(name) for name in _PROGRAMS})
        await _send(stack, size.messages)
        costs = {"GET until the provider has accepted it": meter.per_message(size.messages)}
    finally:
        await stack.stop(*reversed(_PROGRAMS))
    return [costs_table(title, _PROGRAMS, costs)]


async def _send(stack: Stack, count: int) -> None:
    before = (await provider_stats(stack)).accepted

    async def all_are_accepted() -> bool:
        return (await provider_stats(stack)).accepted >= before + count

    await stack.load("kannel", count, port=stack.port("sendsms"))
    await until(all_are_accepted, seconds=_TIMEOUT, every=0.1)


async def _listens(port: int) -> None:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as exc:
        raise NotReadyError(str(exc)) from exc
    writer.close()
