"""The floods that a client without any credentials can send to the gateway."""

import asyncio
import base64
import time
from asyncio import StreamWriter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from dev.local_stack.servers import HOST

MIB = 1024 * 1024
_CONNECTIONS = 1_000
_LARGE = 30 * MIB
_JUNK_SIGNATURE = base64.b64encode(encode_dss_signature(2**200, 2**201)).decode()

Flood = Callable[[int], Awaitable[None]]
"""Floods a port until it is cancelled, or has sent everything."""


async def idle(port: int) -> None:
    await _hold(port, _CONNECTIONS, b"")


async def half_sent(port: int) -> None:
    await _hold(port, _CONNECTIONS, b"POST /api/webhooks/sms HTTP/1.1\r\nhost: x\r\n")


async def slow_bodies(port: int) -> None:
    await _hold(port, _CONNECTIONS, _signed_head(100_000) + bytes(10_000))


async def endless_headers(port: int) -> None:
    async def pour() -> None:
        while True:
            await _pour(port, b"GET / HTTP/1.1\r\nx: ", 12 * MIB)

    await asyncio.gather(*(pour() for _ in range(8)))


async def large_bodies(port: int) -> None:
    """Send 64 e-mails of 30 MiB almost to their end."""
    await asyncio.gather(*(_pour(port, _signed_head(_LARGE), 20 * MIB, stays=True) for _ in range(64)))


async def junk_signatures(port: int) -> None:
    await asyncio.gather(*(_pour(port, _signed_head(_LARGE), _LARGE) for _ in range(24)))


async def scrapes(port: int) -> None:
    async def scrape() -> None:
        while True:
            await _pour(port, b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 0)

    await asyncio.gather(*(scrape() for _ in range(50)))


FLOODS: Mapping[str, Flood] = {
    "idle connections": idle,
    "half-sent requests": half_sent,
    "slow bodies": slow_bodies,
    "endless headers": endless_headers,
    "unfinished e-mails of 30 MiB": large_bodies,
    "e-mails of 30 MiB with a junk signature": junk_signatures,
    "scrapes": scrapes,
}


def _signed_head(length: int) -> bytes:
    """Return the head of a SendGrid webhook with a well-formed signature that does not match the body."""
    headers = {
        "host": "x",
        "content-type": "multipart/form-data; boundary=x",
        "content-length": length,
        "x-twilio-email-event-webhook-timestamp": int(time.time()),
        "x-twilio-email-event-webhook-signature": _JUNK_SIGNATURE,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /api/webhooks/sendgrid/inbound HTTP/1.1\r\n{lines}\r\n".encode()


async def _hold(port: int, count: int, begin: bytes) -> None:
    """Keep connections open on which nothing more is sent; replace those that the server closes."""

    async def hold() -> None:
        while True:
            await _pour(port, begin, 0, stays=True)

    await asyncio.gather(*(hold() for _ in range(count)))


async def _pour(port: int, begin: bytes, more: int, *, stays: bool = False) -> None:
    """Send some bytes, and wait for a response; with `stays`, wait until the server closes the connection."""
    with suppress(OSError):
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(begin)
            await _send(writer, more)
            await (reader.read() if stays else reader.read(1))
        finally:
            writer.transport.abort()


async def _send(writer: StreamWriter, size: int) -> None:
    chunk = bytes(64 * 1024)
    for _ in range(size // len(chunk)):
        writer.write(chunk)
        await writer.drain()
