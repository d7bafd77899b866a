"""The webhooks that the notifier sends, as the OpenAPI document describes them."""

from fastapi import FastAPI

from shared.notifications import NotificationType
from shared.resources.events import kind_of

_HEADERS = {
    "webhook-id": "Id of the event, which is the same at every attempt",
    "webhook-timestamp": "When the request was made, in seconds since 1970",
    "webhook-signature": "Signatures by the secrets of the endpoint (Standard Webhooks), separated by spaces",
}
_PARAMETERS = [
    {"name": name, "in": "header", "required": True, "description": description, "schema": {"type": "string"}}
    for name, description in _HEADERS.items()
]


def document_events(app: FastAPI) -> None:
    """Add the events to the section `webhooks` of the OpenAPI document."""
    for type_ in NotificationType:
        kind = kind_of(type_)
        # As a parameter of the handler, the body would give every model another schema for requests.
        schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
        body = {"required": True, "content": {"application/json": {"schema": schema}}}
        app.webhooks.add_api_route(
            type_,
            _receive,
            methods=["POST"],
            operation_id="on_" + type_.replace(".", "_"),
            summary=f"Receive {type_}",
            description=kind.__doc__,
            status_code=204,
            response_description="Received; any 2xx is a success, and 410 disables the endpoint",
            openapi_extra={"parameters": _PARAMETERS, "requestBody": body},
            tags=["events"],
        )


async def _receive() -> None:
    """Stand in for the handler of an application."""
