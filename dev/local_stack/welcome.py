"""What is shown once everything is up."""

import shlex
from collections.abc import Iterator

from dev.local_stack.configuration import Configuration
from dev.local_stack.plan import Addresses
from dev.local_stack.readiness import place

_EXAMPLE = '{"from": "+12016661234", "to": "+18045551234", "type": "sms", "body": "Hello!"}'


def welcome(configuration: Configuration, addresses: Addresses) -> str:
    rows = dict(_rows(configuration, addresses))
    width = max(map(len, rows))
    table = "\n".join(f"  {what:<{width}}  {where}" for what, where in rows.items())
    example = _curl(configuration, addresses)
    return f"\nEverything is up.\n\n{table}\n\nA first SMS:\n\n{example}\n\nCtrl-C stops.\n"


def _rows(configuration: Configuration, addresses: Addresses) -> Iterator[tuple[str, str]]:
    yield "gateway", f"{addresses.gateway_url}  (try {addresses.gateway_url}/docs)"
    if configuration.owns_servers:
        yield "PostgreSQL", addresses.database_url
        yield "NATS", addresses.nats_url
    else:
        # Theirs may hold a password that is not for the screen.
        yield "PostgreSQL", place(addresses.database_url, 5432)
        yield "NATS", ", ".join(place(url.strip(), 4222) for url in addresses.nats_url.split(","))
    sms = _provider(configuration.sms_provider_url, addresses.sms_provider_url)
    yield "SMS provider", _in_order(configuration, "SMS_PROVIDERS", "generic_sms", sms)
    email = _provider(configuration.email_provider_url, addresses.email_provider_url)
    yield "e-mail provider", _in_order(configuration, "EMAIL_PROVIDERS", "generic_email", email)
    for name, port in addresses.health_ports.items():
        yield name, f"http://127.0.0.1:{port}/readyz, /healthz, /metrics"
    yield "data", str(configuration.data_folder)
    if configuration.owns_servers:
        yield "logs", f"{configuration.log_folder} of PostgreSQL and NATS; the others' are below"


def _provider(chosen: str | None, url: str) -> str:
    if chosen:
        return f"{place(url, 443 if url.startswith('https:') else 80)}"
    return f"{url}  (a mock; {url}/docs)"


def _in_order(configuration: Configuration, variable: str, generic: str, where: str) -> str:
    names = [name.strip() for name in configuration.environment.get(variable, generic).split(",")]
    return ", then ".join(where if name == generic else name for name in names)


def _curl(configuration: Configuration, addresses: Addresses) -> str:
    lines = [
        f"  curl {addresses.gateway_url}/api/messages/sms",
        "-H 'Content-Type: application/json'",
        f"-d {shlex.quote(_EXAMPLE)}",
    ]
    if "API_KEYS" in configuration.environment:
        lines.insert(1, "-H 'Authorization: Bearer <a key of API_KEYS>'")
    return " \\\n    ".join(lines)
