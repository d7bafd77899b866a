"""The one departure from FastAPI's own handling of requests, for the busiest routes: sends and webhooks."""

from collections.abc import Awaitable, Callable, Coroutine
from functools import cached_property
from typing import Any, cast

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.types import Receive, Scope, Send

from services.gateway.http.body import read_body
from services.gateway.http.errors import InvalidRequestError, ProblemError
from shared.validation import Fault, context_of, faults_of, parse_json

_LARGE = 4 * 1024
"""Bytes."""

_MAX_PARTS = 100
"""Fields of a body, or elements of one of them. No valid request has as many."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class FastRoute(APIRoute):
    """A route that calls its handler without FastAPI's dependency solver.

    The handler is declared like any other: its signature has a JSON body, dependencies, and the response
    whose headers it sets, and the OpenAPI document follows from that. FastAPI's solver takes longer than
    everything else that the gateway does in such a request. It also passes no validation context, which phone
    numbers in national form need, and reads the body before it authenticates the caller.

    In return, a dependency must be a coroutine function of the request alone, or of parameters of the path,
    which are texts, and cannot be overridden. One
    that is added where a router is included does not apply: it has to be a parameter of the handler or of
    the route.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.methods and scope["method"] not in self.methods:
            await super().handle(scope, receive, send)  # refuses the method
            return
        response = await self._handler(Request(scope, receive, send))
        await response(scope, receive, send)

    @cached_property
    def _handler(self) -> Handler:
        return self.get_route_handler()

    def get_route_handler(self) -> Handler:
        # FastAPI's handler would also validate the result and manage exit stacks and background tasks, which
        # none of these routes has.
        for dependency in self.dependant.dependencies:
            _require_simple(dependency)
        guards = [_call_of(each) for each in self.dependant.dependencies if each.name is None]
        resolvers = {each.name: _call_of(each) for each in self.dependant.dependencies if each.name}
        body = self.dependant.body_params[0] if self.dependant.body_params else None
        response_name = self.dependant.response_param_name
        endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            for guard in guards:
                await guard(request)
            values = {name: await resolve(request) for name, resolve in resolvers.items()}
            if body is not None:
                model = cast("type[BaseModel]", body.field_info.annotation)
                values[body.name] = await _validated(request, model)
            response = Response(status_code=self.status_code or 200, media_type="application/json")
            if response_name:
                values[response_name] = response
            result = await endpoint(**values)
            if isinstance(result, Response):
                return result
            response.body = result.__pydantic_serializer__.to_json(result, by_alias=True)
            response.headers["content-length"] = str(len(response.body))
            return response

        return handle


def _require_simple(dependency: Dependant) -> None:
    """Check that a dependency needs only the request, or parameters of its path.

    Raises:
        TypeError: it does not.
    """
    # Header parameters only document what the dependency reads from the request.
    others = (
        *(dependency.query_params, dependency.cookie_params, dependency.body_params),
        dependency.dependencies,
    )
    if any(others) or bool(dependency.request_param_name) is bool(dependency.path_params):
        raise TypeError(f"{dependency.call} needs more than the request, so FastRoute cannot call it")


def _call_of(dependant: Dependant) -> Callable[[Request], Awaitable[Any]]:
    call = dependant.call
    assert call is not None  # noqa: S101 - for mypy
    names = [parameter.name for parameter in dependant.path_params]

    async def call_with_path(request: Request) -> Any:  # noqa: ANN401 - the result of the dependency
        return await call(**{name: request.path_params[name] for name in names})

    return call_with_path if names else call


async def _validated(request: Request, model: type[BaseModel]) -> BaseModel:
    """Return the validated body.

    Raises:
        ProblemError: the body is not JSON, or incomplete.
        InvalidRequestError: with every field at fault.
    """
    body = await read_body(request)
    if len(body) > _LARGE:
        _require_few_parts(body, model)
    context = context_of(request.app.state.default_region)
    try:
        return model.model_validate_json(body, context=context)
    except ValidationError:
        return _validated_in_steps(body, model, context)


def _require_few_parts(body: bytes, model: type[BaseModel]) -> None:
    """Refuse thousands of fields or elements, for each of which the validation would report a fault."""
    try:
        value = from_json(body)
    except ValueError:
        return  # the validation reports it
    if isinstance(value, dict) and (fault := fault_of_parts(value, getattr(model, "max_parts", _MAX_PARTS))):
        raise InvalidRequestError(fault)


def fault_of_parts(value: dict[str, Any], max_parts: int = _MAX_PARTS) -> Fault | None:
    """Return the fault of an object that has more fields, or elements in one of them, than any valid one."""
    if len(value) > max_parts:
        return Fault("body", f"has more than {max_parts} fields")
    for name, field in value.items():
        if isinstance(field, list | dict) and len(field) > max_parts:
            return Fault(name[:_MAX_PARTS], f"has more than {max_parts} elements")
    return None


def _validated_in_steps(body: bytes, model: type[BaseModel], context: dict[str, str]) -> BaseModel:
    """Validate a body that failed, and name the field even of a lone surrogate."""
    try:
        value = parse_json(body)
    except ValueError as exc:
        raise ProblemError(400, "malformed_body", str(exc)) from exc
    try:
        return model.model_validate(value, context=context)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidRequestError(*faults_of(errors)) from exc
