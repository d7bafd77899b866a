"""What the APIs of one mock provider share."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from mock_providers.behaviour import BehaviourSwitch
from mock_providers.ledger import Ledger
from mock_providers.webhooks import Gateway


class Errands:
    """What goes on after an answer: the reports on what became of a message."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(errand)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def abandon(self) -> None:
        """End those that are under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What clients of the real contracts identify themselves with, and what signs webhooks.

    Attributes:
        twilio_account_sid: The one account that there is.
        twilio_auth_token: Its password, and the key of X-Twilio-Signature.
        sendgrid_api_key: What comes after `Bearer`.
        sendgrid_key: Signs the webhooks of SendGrid; P-256.
    """

    twilio_account_sid: str = "AC" + "0" * 32
    twilio_auth_token: str = field(default="mock-auth-token", repr=False)
    sendgrid_api_key: str = field(default="SG.mock", repr=False)
    sendgrid_key: ec.EllipticCurvePrivateKey = field(default_factory=_new_key, repr=False)


@dataclass(frozen=True)
class Backend:
    behaviour: BehaviourSwitch
    ledger: Ledger
    gateway: Gateway
    errands: Errands
    credentials: Credentials
