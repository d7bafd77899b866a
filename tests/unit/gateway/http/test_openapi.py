"""The OpenAPI document, which follows from the routes."""

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from fastapi import FastAPI

from services.gateway.api_keys import routes as api_keys
from services.gateway.conversations import routes as conversations
from services.gateway.dead_letters import routes as dead_letters
from services.gateway.events import routes as events
from services.gateway.http.problem_kinds import PROBLEM_KINDS, ProblemCode
from services.gateway.media import routes as media
from services.gateway.messages import routes as messages
from services.gateway.operations import routes as operations_routes
from services.gateway.suppressions import routes as suppressions
from services.gateway.webhook_endpoints import routes as webhook_endpoints
from shared.providers.registry import PROVIDERS
from shared.version import VERSION
from tests.unit.gateway.in_memory import create_gateway
from tests.webhooks import SIGNED

PROBLEM = {"$ref": "#/components/schemas/Problem"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    app = create_gateway(
        api_keys="shop:right-key-of-shop", unsubscribe_secret="a secret of some length", **SIGNED
    )
    return app.openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_operation_ids_are_the_names_of_the_handlers(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, operation in operations(document)]

    assert len(set(ids)) == len(ids)
    handlers = [id_ for id_ in ids if any(hasattr(module, id_) for module in MODULES)]
    assert len(handlers) >= 18
    webhooks = {webhook.name for provider in PROVIDERS.values() for webhook in provider.webhooks}
    others = {"show_unsubscribe_page", "unsubscribe", "healthz", "readyz"}
    assert set(ids) == {*handlers, *webhooks, *others}


MODULES = (
    messages,
    conversations,
    dead_letters,
    events,
    suppressions,
    media,
    webhook_endpoints,
    operations_routes,
    api_keys,
)


def test_every_operation_has_a_summary_without_a_full_stop(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert re.fullmatch(r"[A-Z].*[a-z0-9]|.*MMS|.*SMS", operation["summary"]), name


def test_every_reference_leads_to_a_schema(document: dict[str, Any]) -> None:
    for kind in ("schemas", "examples"):
        references = set(re.findall(rf'"#/components/{kind}/([^"]+)"', json.dumps(document)))
        assert references == set(document["components"][kind])


def test_no_generator_of_clients_meets_what_it_cannot_handle(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    bodies = {name: schema for name, schema in schemas.items() if name.endswith("Request")}

    assert "SmsRequest" in bodies
    assert not re.search(r'"(anyOf|allOf|if)"', json.dumps(bodies))
    # They can handle alternatives of a field or of the items of an array, but not those of a whole body.
    assert not any("oneOf" in body for body in bodies.values())
    assert '"default": null' not in json.dumps(document)
    assert bodies["SmsRequest"]["required"] == ["from", "to", "type"]


def test_internal_types_are_not_part_of_the_api(document: dict[str, Any]) -> None:
    assert not {"DeliveryRequest", "Message", "Origin"} & set(document["components"]["schemas"])
    dead_letter = document["components"]["schemas"]["DeadLetterResponse"]
    assert not {"request", "origin"} & set(dead_letter["properties"])


def test_the_document_says_where_the_api_is_and_what_it_needs(document: dict[str, Any]) -> None:
    assert document["info"]["version"] == VERSION
    assert document["servers"]
    assert all("security" in operation for _, operation in operations(document))


def test_every_error_is_documented_as_a_problem(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        errors = {status: each for status, each in operation["responses"].items() if status >= "400"}
        for status, response in errors.items():
            if name not in {"GET /readyz", "GET /healthz"}:
                (media_type, content), *others = response["content"].items()
                assert (media_type, content["schema"], others) == ("application/problem+json", PROBLEM, [])
                assert content["examples"], (name, status)
                assert {PROBLEM_KINDS[code].status for code in content["examples"]} == {int(status)}
        assert ("503" not in errors) or "headers" in errors["503"] or name in {"GET /readyz", "GET /healthz"}


def test_the_problems_of_each_operation_are_documented(document: dict[str, Any]) -> None:
    documented = {
        name: {status for status in operation["responses"] if status >= "400"}
        for name, operation in operations(document)
    }

    assert documented["POST /api/messages/sms"] == {"400", "401", "403", "409", "413", "415", "422", "503"}
    assert documented["DELETE /api/messages/{id}"] == {"401", "403", "404", "409", "422", "503"}
    assert documented["POST /api/dead-letters/{id}/discard"] == {
        *("400", "401", "403", "404", "409", "413", "415", "422", "503")
    }
    assert documented["POST /api/webhooks/sms"] == {"401", "413", "503"}
    assert documented["POST /api/webhooks/twilio/status"] == {"403", "413", "503"}
    assert documented["GET /unsubscribe/{token}"] == {"404"}
    for name, problems in documented.items():
        is_clients = "/api/" in name and "/webhooks/" not in name
        assert is_clients == ("401" in problems and "/webhooks/" not in name), name
        if is_clients:
            assert ("403" in problems) != name.startswith("GET "), name
            assert "422" in problems, name


def test_the_codes_of_problems_are_documented(document: dict[str, Any]) -> None:
    problem = document["components"]["schemas"]["Problem"]

    assert problem["properties"]["code"]["enum"] == list(get_args(ProblemCode))
    assert sorted(get_args(ProblemCode)) == list(get_args(ProblemCode))


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("/api/messages/sms", "SmsRequest"),
        ("/api/messages/email", "EmailRequest"),
        ("/api/dead-letters/replay", "BulkReplayRequest"),
        ("/api/dead-letters/{id}/discard", "DiscardRequest"),
        ("/api/webhooks/sms", "SmsWebhook"),
        ("/api/webhooks/email/status", "EmailReceipt"),
    ],
)
def test_bodies_are_documented(document: dict[str, Any], path: str, schema: str) -> None:
    body = document["paths"][path]["post"]["requestBody"]

    assert body["required"] is True
    reference = {"$ref": f"#/components/schemas/{schema}"}
    assert body["content"] == {"application/json": {"schema": reference}}
    assert document["components"]["schemas"][schema]["examples"]


def test_the_bodies_of_forms_are_documented(document: dict[str, Any]) -> None:
    def content(path: str) -> Any:  # noqa: ANN401 - JSON
        return document["paths"][path]["post"]["requestBody"]["content"]

    assert list(content("/api/webhooks/twilio/messages")) == ["application/x-www-form-urlencoded"]
    assert list(content("/api/webhooks/sendgrid/inbound")) == ["multipart/form-data"]
    assert list(content("/api/webhooks/sendgrid/events")) == ["application/json"]


def test_responses_are_documented(document: dict[str, Any]) -> None:
    send = document["paths"]["/api/messages/sms"]["post"]["responses"]["202"]
    content = send["content"]["application/json"]
    assert content["schema"] == {"$ref": "#/components/schemas/MessageResponse"}
    assert content["example"]["direction"] == "outbound"
    assert set(send["headers"]) == {"Location", "Idempotency-Replayed", "X-Request-Id"}
    assert "200" not in document["paths"]["/api/messages/sms"]["post"]["responses"]

    callback = document["paths"]["/api/webhooks/twilio/status"]["post"]["responses"]
    assert "content" not in callback["204"]
    message = document["paths"]["/api/webhooks/twilio/messages"]["post"]["responses"]
    assert list(message["200"]["content"]) == ["text/xml"]
    assert message["200"]["content"]["text/xml"]["example"] == "<Response/>"


def test_the_example_of_an_unsigned_webhook_names_the_header_of_the_signature(
    document: dict[str, Any],
) -> None:
    responses = document["paths"]["/api/webhooks/sms"]["post"]["responses"]
    (example,) = responses["401"]["content"]["application/problem+json"]["examples"].values()
    assert example["value"]["detail"] == "The header webhook-signature is missing"


def test_the_document_is_generated_once(app: FastAPI) -> None:
    assert app.openapi() is app.openapi()
