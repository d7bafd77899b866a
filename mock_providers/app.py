"""A channel as an application: its APIs, and the controls under `/mock`."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from random import Random

from fastapi import FastAPI, Request, Response, status
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from mock_providers.api import Channel
from mock_providers.behaviour import BehaviourSwitch
from mock_providers.controls import control_routes
from mock_providers.settings import MockSettings
from mock_providers.token import ControlToken
from mock_providers.webhooks import Gateway, GatewayUnreachableError


def create_app(
    channel: Channel,
    gateway: Gateway,
    random: Random,
    settings: Iterable[MockSettings] = (),
    *,
    token: str | None = None,
) -> FastAPI:
    """Build the application of a channel.

    Args:
        channel: The APIs to serve.
        gateway: Receives their webhooks.
        random: Picks the requests that the `rate` of a behaviour affects.
        settings: The settings of the APIs. The defaults are used for those that are missing, whatever the
            environment says.
        token: The bearer token that the controls need; None leaves them open.
    """
    given = {type(one): one for one in settings}
    behaviour = BehaviourSwitch(random)
    apis = [
        # `model_construct` returns the defaults without reading the environment.
        api(given.get(api.settings_class) or api.settings_class.model_construct(), gateway, behaviour)
        for api in channel.apis
    ]

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.gather(*(api.tasks.cancel() for api in apis))

    names = ", ".join(f"`{api.name}`" for api in apis)
    app = FastAPI(title=channel.title, description=f"The APIs: {names}", lifespan=lifespan)
    for api in apis:
        app.include_router(api.router())
    app.include_router(control_routes(apis, random))
    if token:
        app.add_middleware(ControlToken, token=token)

    @app.get("/healthz", summary="Report that the process is running")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.exception_handler(GatewayUnreachableError)
    async def gateway_unreachable(_request: Request, exc: GatewayUnreachableError) -> Response:
        return JSONResponse(
            {"error": "gateway_unreachable", "message": str(exc)}, status.HTTP_502_BAD_GATEWAY
        )

    @app.exception_handler(ClientDisconnect)
    async def client_disconnected(_request: Request, _exc: ClientDisconnect) -> Response:
        """Keep the traceback out of the log if a client disconnects during its request."""
        return Response(status_code=status.HTTP_400_BAD_REQUEST)

    return app
