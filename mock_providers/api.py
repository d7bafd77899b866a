"""The interface that each mocked API implements, and the channel that serves several of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from mock_providers.behaviour import Behaviour, BehaviourSwitch
from mock_providers.connections import delay_response
from mock_providers.ledger import Ledger
from mock_providers.settings import MockSettings
from mock_providers.tasks import TaskSet
from mock_providers.webhooks import Gateway, Payload, WebhookResult

SettingsT = TypeVar("SettingsT", bound=MockSettings)


class Receipt(BaseModel):
    """A delivery receipt, which each API sends in its own form."""

    provider_message_id: str
    status: str = Field(
        description="In the provider's own words", examples=["delivered", "undelivered", "failed", "bounce"]
    )
    error_code: str | int | None = None
    timestamp: str | None = Field(
        default=None, description="The current time by default. Ignored if the API's receipts have none."
    )


class MockApi(ABC, Generic[SettingsT]):
    """The mock of one provider's API.

    Subclasses serve the provider's own paths and send its webhooks. Everything under `/mock` that is the
    same for all of them is in `controls.py`.

    Attributes:
        name: Selects the API in the controls; the services' settings use the same name.
        settings_class: The settings that it reads from the environment.
        outcomes: For each `outcome` of a behaviour, the statuses that are reported for a message. One of them
            is `delivered`. An API that reports nothing on its own has none.
        behaviour: Its current behaviour, which it may share with other APIs of the channel.
    """

    name: ClassVar[str]
    settings_class: ClassVar[type[MockSettings]]
    outcomes: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __init__(self, settings: SettingsT, gateway: Gateway, behaviour: BehaviourSwitch) -> None:
        self.settings = settings
        self.gateway = gateway
        self.behaviour = behaviour
        self.ledger = Ledger(self.name)
        self.tasks = TaskSet()

    @abstractmethod
    def router(self) -> APIRouter:
        """Return the routes of the provider, and the controls that only this API has."""

    @abstractmethod
    async def send_inbound(self, fields: Payload) -> WebhookResult:
        """Send an inbound message, with the given fields of the provider's webhook and examples for the rest.

        Raises:
            ValidationError: The fields cannot be put into a webhook.
            GatewayUnreachableError: The gateway did not respond.
        """

    @abstractmethod
    async def send_receipt(self, receipt: Receipt) -> WebhookResult:
        """Send a delivery receipt.

        Raises:
            ValidationError: The receipt cannot be put into a webhook.
            HTTPException: The API sends receipts only for messages that it has accepted.
            GatewayUnreachableError: The gateway did not respond.
        """

    async def respond(self, request: Request, decide: Callable[[bytes, Behaviour], Response]) -> Response:
        """Respond to a request to send a message, as the current behaviour demands.

        The message is accepted or refused as soon as it has arrived; only the response may be late or lost.

        Args:
            request: The request, whose body has not been read yet.
            decide: Accepts or refuses the body. It is not a coroutine, so that two requests with the same
                idempotency key cannot both be new.
        """
        body = await request.body()
        behaviour = self.behaviour.next()
        response = decide(body, behaviour)
        await delay_response(request, behaviour)
        return response

    def statuses_to_report(self, behaviour: Behaviour) -> tuple[str, ...]:
        """Return the statuses to report for a message, in order.

        A behaviour that is shared by all APIs may have an outcome that only one of the others knows.
        """
        return self.outcomes.get(behaviour.outcome or "delivered", self.outcomes["delivered"])


@dataclass(frozen=True)
class Channel:
    """The APIs that are served at one address. The first one is the default of the controls."""

    title: str
    apis: tuple[type[MockApi[Any]], ...]
