"""Serve the channels that are named as arguments, or all of them, until SIGTERM or SIGINT."""

import asyncio
import logging
import signal
import socket
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import TypeVar

import uvloop
from pydantic import ValidationError

from mock_providers.api import Channel
from mock_providers.app import create_app
from mock_providers.registry import CHANNELS
from mock_providers.server import listen, serving, url_of
from mock_providers.settings import MockSettings, Settings
from mock_providers.webhooks import Gateway, make_client

GATEWAY_TIMEOUT = 10.0
"""Seconds that the gateway has to respond to a webhook."""

SettingsT = TypeVar("SettingsT", bound=MockSettings)

logger = logging.getLogger("mock_providers")


class _Formatter(logging.Formatter):
    """Formats a record as the services format theirs: time, level, event, and its details."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - as the base class names it
        event, _, details = record.message.partition(": ")
        record.message = f"{record.levelname.lower():<8} {event:<20} {details}".rstrip()
        return super().formatMessage(record)


class StartError(Exception):
    """The mock providers cannot start. The message explains why to the person who started them."""


def _read(settings_class: type[SettingsT]) -> SettingsT:
    try:
        return settings_class()
    except ValidationError as exc:
        reasons = (f"{str(error['loc'][0]).upper()}: {error['msg']}" for error in exc.errors())
        raise StartError("; ".join(reasons)) from exc


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as exc:
        raise StartError(f"cannot listen on {host}:{port}: {exc.strerror}") from exc


async def _run(
    settings: Settings, api_settings: Iterable[MockSettings], listeners: Mapping[socket.socket, Channel]
) -> None:
    stopped = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, stopped.set)

    async with make_client(timeout=GATEWAY_TIMEOUT) as client:
        gateway = Gateway(
            client,
            str(settings.gateway_url).rstrip("/"),
            str(settings.gateway_public_url or settings.gateway_url).rstrip("/"),
        )
        random = Random()
        apps = {
            listener: create_app(channel, gateway, random, api_settings, token=_token(settings))
            for listener, channel in listeners.items()
        }
        async with serving(apps):
            for listener, channel in listeners.items():
                logger.info("mock_started: %s on %s", channel.title, url_of(listener))
            await stopped.wait()


def _token(settings: Settings) -> str | None:
    return settings.mock_token.get_secret_value() if settings.mock_token else None


def _wanted_channels() -> Sequence[str]:
    parser = ArgumentParser(prog="mock_providers", description=__doc__)
    parser.add_argument("channel", nargs="*", choices=[*CHANNELS, []], help="the channels to serve")
    return parser.parse_args().channel or list(CHANNELS)


def main() -> None:
    names = _wanted_channels()
    try:
        settings = _read(Settings)
        # A class that several APIs share is read once.
        classes = dict.fromkeys(api.settings_class for name in names for api in CHANNELS[name].apis)
        api_settings = [_read(settings_class) for settings_class in classes]
        ports = {"sms": settings.sms_provider_port, "email": settings.email_provider_port}
        listeners = {_listen(settings.mock_providers_host, ports[name]): CHANNELS[name] for name in names}
    except StartError as exc:
        sys.exit(f"mock_providers: {exc}")
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)  # httpx logs each webhook
    uvloop.run(_run(settings, api_settings, listeners))


if __name__ == "__main__":
    main()
