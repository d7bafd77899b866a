"""Starts both providers; SIGTERM or SIGINT stops them."""

import asyncio
import logging
import signal
import socket
import sys
from random import Random

import httpx
import uvloop
from pydantic import ValidationError

from mock_providers.app import create_app
from mock_providers.contract import Contract
from mock_providers.email import EMAIL
from mock_providers.server import listen, serving, url_of
from mock_providers.settings import Settings
from mock_providers.sms import SMS
from mock_providers.webhooks import Gateway

GATEWAY_TIMEOUT = 10.0
"""Seconds that the gateway gets to answer a webhook."""

logger = logging.getLogger("mock_providers")


class StartError(Exception):
    """The providers can't start; the message says why, to the person who started them."""


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as exc:
        reasons = (f"{str(error['loc'][0]).upper()}: {error['msg']}" for error in exc.errors())
        raise StartError("; ".join(reasons)) from exc


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as exc:
        raise StartError(f"cannot listen on {host}:{port}: {exc.strerror}") from exc


async def _run(settings: Settings, listeners: dict[socket.socket, Contract]) -> None:
    stopped = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, stopped.set)

    # Without trust_env, so that no proxy from the environment comes between.
    async with httpx.AsyncClient(timeout=GATEWAY_TIMEOUT, trust_env=False) as client:
        gateway = Gateway(
            client,
            str(settings.gateway_url).rstrip("/"),
            settings.webhook_secret,
            str(settings.gateway_public_url or settings.gateway_url).rstrip("/"),
        )
        random, credentials = Random(), settings.credentials
        apps = {
            listener: create_app(contract, gateway, random, credentials)
            for listener, contract in listeners.items()
        }
        async with serving(apps):
            for listener, contract in listeners.items():
                logger.info("%s on %s", contract.title, url_of(listener))
            await stopped.wait()


def main() -> None:
    try:
        settings = _settings()
        listeners = {
            _listen(settings.mock_providers_host, settings.sms_provider_port): SMS,
            _listen(settings.mock_providers_host, settings.email_provider_port): EMAIL,
        }
    except StartError as exc:
        sys.exit(f"mock_providers: {exc}")
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it has a line for every webhook
    uvloop.run(_run(settings, listeners))


if __name__ == "__main__":
    main()
