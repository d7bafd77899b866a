"""The controls of the mock providers, for the page, which cannot send requests to other hosts."""

from collections.abc import Mapping
from typing import Annotated, Any

import httpx
from fastapi import APIRouter, Body, Depends, Request, Response

from services.gateway.http.errors import ProblemError, problems
from shared.channels import Channel

Fields = Annotated[dict[str, Any], Body(max_length=50)]
"""A JSON object, which the mock validates."""


class MockControls:
    """Forwards requests to the controls of the mock providers.

    Args:
        urls: the URL of the mock of each channel.
        token: the bearer token of their controls, if they need one.
    """

    def __init__(self, urls: Mapping[Channel, str], token: str | None, client: httpx.AsyncClient) -> None:
        self._urls = urls
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = client

    async def forward(self, channel: Channel, method: str, path: str, body: Any = None) -> Response:  # noqa: ANN401 - JSON
        """Forward a request, and return the response of the mock.

        Raises:
            ProblemError: no mock provider of the channel is configured, or it does not answer.
        """
        if channel not in self._urls:
            raise _unavailable(f"No mock provider of {channel} is configured")
        url = f"{self._urls[channel]}/mock/{path}"
        try:
            answer = await self._client.request(method, url, json=body, headers=self._headers)
        except httpx.HTTPError as exc:
            raise _unavailable("The mock provider does not answer") from exc
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))


def _unavailable(detail: str) -> ProblemError:
    return ProblemError(503, "playground_unavailable", detail)


async def _controls(request: Request) -> MockControls:
    controls: MockControls = request.app.state.mock_controls
    return controls


Controls = Annotated[MockControls, Depends(_controls)]

_PROBLEMS = problems(401, 503, "playground_unavailable")

router = APIRouter(prefix="/api/playground/{channel}", tags=["playground"])


@router.get(
    "/behaviour",
    summary="Get the behaviour of a mock provider",
    responses=_PROBLEMS,
)
async def get_behaviour(channel: Channel, controls: Controls) -> Response:
    return await controls.forward(channel, "GET", "behaviour")


@router.put(
    "/behaviour",
    summary="Set the behaviour of a mock provider",
    responses=_PROBLEMS,
)
async def set_behaviour(channel: Channel, behaviour: Fields, controls: Controls) -> Response:
    """Make a mock provider fail, slow down, or limit requests."""
    return await controls.forward(channel, "PUT", "behaviour", behaviour)


@router.delete(
    "/behaviour",
    summary="Reset the behaviour of a mock provider",
    responses=_PROBLEMS,
)
async def reset_behaviour(channel: Channel, controls: Controls) -> Response:
    return await controls.forward(channel, "DELETE", "behaviour")


@router.post(
    "/inbound",
    summary="Simulate an inbound message",
    responses=_PROBLEMS,
)
async def send_inbound(channel: Channel, message: Fields, controls: Controls) -> Response:
    """Have a mock provider deliver an inbound message."""
    return await controls.forward(channel, "POST", "inbound", message)
