"""The OpenAPI document, which follows from the routes."""

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from fastapi import FastAPI

from services.gateway.conversations import routes as conversations
from services.gateway.dead_letters import routes as dead_letters
from services.gateway.events import routes as events
from services.gateway.http.errors import ProblemCode
from services.gateway.messages import routes as messages
from services.gateway.suppressions import routes as suppressions
from shared.providers.registry import PROVIDERS
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
    assert len(handlers) == 20
    webhooks = {webhook.name for provider in PROVIDERS.values() for webhook in provider.webhooks}
    others = {"show_unsubscribe_page", "unsubscribe", "healthz", "readyz"}
    assert set(ids) == {*handlers, *webhooks, *others}


MODULES = (messages, conversations, dead_letters, suppressions, events)


def test_every_operation_has_a_summary_without_a_full_stop(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert re.fullmatch(r"[A-Z].*[a-z0-9]|.*MMS|.*SMS", operation["summary"]), name


def test_every_reference_leads_to_a_schema(document: dict[str, Any]) -> None:
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))

    assert references == set(document["components"]["schemas"])


def test_every_error_is_documented_as_a_problem(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        errors = {status: each for status, each in operation["responses"].items() if status >= "400"}
        for status, response in errors.items():
            if name not in {"GET /readyz", "GET /healthz"}:
                content = response["content"]
                assert content == {"application/problem+json": {"schema": PROBLEM}}, (name, status)
        assert ("503" not in errors) or "headers" in errors["503"] or name in {"GET /readyz", "GET /healthz"}


def test_the_problems_of_each_operation_are_documented(document: dict[str, Any]) -> None:
    documented = {
        name: {status for status in operation["responses"] if status >= "400"}
        for name, operation in operations(document)
    }

    assert documented["POST /api/messages/sms"] == {"400", "401", "409", "413", "415", "422", "503"}
    assert documented["DELETE /api/messages/{id}"] == {"401", "404", "409", "503"}
    assert documented["POST /api/dead-letters/{id}/discard"] == {
        *("400", "401", "404", "409", "413", "415", "422", "503")
    }
    assert documented["POST /api/webhooks/sms"] == {"401", "413", "415", "503"}
    assert documented["POST /api/webhooks/twilio/status"] == {"403", "413", "415", "503"}
    assert documented["GET /unsubscribe/{token}"] == {"404"}
    for name, problems in documented.items():
        is_clients = "/api/" in name and "/webhooks/" not in name
        assert is_clients == ("401" in problems and "/webhooks/" not in name), name
        if "{" in name and is_clients:
            assert problems & {"404", "422"}, name


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
    assert send["content"] == {
        "application/json": {"schema": {"$ref": "#/components/schemas/MessageResponse"}}
    }
    assert set(send["headers"]) == {"Location"}
    assert "200" not in document["paths"]["/api/messages/sms"]["post"]["responses"]

    callback = document["paths"]["/api/webhooks/twilio/status"]["post"]["responses"]
    assert "content" not in callback["204"]
    message = document["paths"]["/api/webhooks/twilio/messages"]["post"]["responses"]
    assert list(message["200"]["content"]) == ["text/xml"]


def test_the_document_is_generated_once(app: FastAPI) -> None:
    assert app.openapi() is app.openapi()
