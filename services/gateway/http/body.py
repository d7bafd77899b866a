"""JSON bodies: the one place where the gateway departs from FastAPI's own handling of them."""

from collections.abc import Callable, Coroutine
from typing import Any, cast

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from services.gateway.http.errors import InvalidRequestError, ProblemError
from shared.validation import context_of, faults_of, parse_json


class JsonRoute(APIRoute):
    """A route whose JSON body is parsed and validated in one pass.

    The body is still an ordinary parameter of the handler. FastAPI would parse it first and validate the
    result, which
    takes longer and has no validation context: phone numbers in national form need the default region.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle
        model = cast("type[BaseModel]", self.body_field.field_info.annotation)

        async def handle_json(request: Request) -> Response:
            return await handle(_JsonRequest(request, model))

        return handle_json


class _JsonRequest(Request):
    def __init__(self, request: Request, model: type[BaseModel]) -> None:
        super().__init__(request.scope, request.receive)
        self._model = model

    async def json(self) -> BaseModel:
        """Return the validated model, which FastAPI then passes on as it is."""
        body = await self.body()
        context = context_of(self.app.state.default_region)
        try:
            return self._model.model_validate_json(body, context=context)
        except ValidationError:
            return self._validate_in_steps(body, context)

    def _validate_in_steps(self, body: bytes, context: dict[str, str]) -> BaseModel:
        """Validate a body that failed, and name the field even of a lone surrogate."""
        try:
            value = parse_json(body)
        except ValueError as exc:
            raise ProblemError(400, "malformed_body", str(exc)) from exc
        try:
            return self._model.model_validate(value, context=context)
        except ValidationError as exc:
            errors = exc.errors(include_url=False, include_context=False, include_input=False)
            raise InvalidRequestError(*faults_of(errors)) from exc
