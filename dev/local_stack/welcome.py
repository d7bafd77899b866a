"""The text that is shown once everything is ready."""

import shlex
from collections.abc import Iterator

from dev.local_stack.configuration import Configuration
from dev.local_stack.mocks import mocked_channels
from dev.local_stack.plan import Addresses
from dev.local_stack.readiness import place
from shared.channels import Channel

_EXAMPLE = '{"from": "+12016661234", "to": "+18045551234", "type": "sms", "body": "Hello!"}'


def introduction(configuration: Configuration) -> str:
    """Return the text that is shown first."""
    lines = [f"note: {note}" for note in configuration.notes]
    if configuration.owns_servers:
        first_time = "" if (configuration.data_folder / "postgres").exists() else ", which is new"
        lines.append(
            f"Starting, with the data in {configuration.data_folder}{first_time}. Press Ctrl-C to stop."
        )
    else:
        lines.append("Starting, with the servers at DATABASE_URL and NATS_URL. Press Ctrl-C to stop.")
    return "\n".join(lines)


def welcome(configuration: Configuration, addresses: Addresses) -> str:
    rows = dict(_rows(configuration, addresses))
    width = max(map(len, rows))
    table = "\n".join(f"  {name:<{width}}  {where}" for name, where in rows.items())
    return (
        f"\nEverything is up.\n\n{table}\n\nSend a first SMS:\n\n{_curl(configuration, addresses)}\n\n"
        "Press Ctrl-C to stop. In another terminal: make status, make logs, make psql. "
        "The logs follow.\n"
    )


def _rows(configuration: Configuration, addresses: Addresses) -> Iterator[tuple[str, str]]:
    yield "page", f"{addresses.gateway_url}/"
    yield "API", f"{addresses.gateway_url}/api"
    yield "API reference", f"{addresses.gateway_url}/docs"
    if configuration.owns_servers:
        yield "PostgreSQL", addresses.database_url
        yield "NATS", addresses.nats_url
    else:
        # The URLs of other servers may hold passwords, which are not for the screen.
        yield "PostgreSQL", place(addresses.database_url, 5432)
        yield "NATS", ", ".join(place(url.strip(), 4222) for url in addresses.nats_url.split(","))
    settings = configuration.settings
    sms = _provider(settings.sms_provider_url, addresses.sms_provider_url)
    yield "SMS providers", _in_order(configuration, Channel.SMS, sms)
    email = _provider(settings.email_provider_url, addresses.email_provider_url)
    yield "e-mail providers", _in_order(configuration, Channel.EMAIL, email)
    for name, port in addresses.health_ports.items():
        yield name, f"http://127.0.0.1:{port}/readyz and /metrics"
    yield "logs", str(configuration.log_folder)


def _provider(chosen: str | None, url: str) -> str:
    if chosen:
        return place(url, 443 if url.startswith("https:") else 80)
    return f"{url} (a mock, see {url}/docs)"


def _in_order(configuration: Configuration, channel: Channel, where: str) -> str:
    environment, generic = configuration.environment, channel.rules.default_provider
    names = [name.strip() for name in environment.get(f"{channel}_providers".upper(), generic).split(",")]
    is_mocked = channel in mocked_channels(configuration.settings, environment)
    described = {name: f"{name} at {where}" if is_mocked else name for name in names} | {generic: where}
    return ", then ".join(described[name] for name in names)


def _curl(configuration: Configuration, addresses: Addresses) -> str:
    lines = [
        f"  curl {addresses.gateway_url}/api/messages/sms",
        "-H 'Content-Type: application/json'",
        f"-d {shlex.quote(_EXAMPLE)}",
    ]
    if "API_KEYS" in configuration.environment:
        lines.insert(1, "-H 'Authorization: Bearer <a key of API_KEYS>'")
    return " \\\n    ".join(lines)
