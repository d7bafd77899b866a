"""The name of every log event and every metric is a literal in the code, so that a search finds it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("services", "shared", "mock_providers", "dev")

LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
LOGGERS = {"log", "logger", "get_logger", "getLogger"}
METRICS = {"Counter", "Gauge", "Histogram", "Summary", "Info", "Enum"}

NAME = r"[a-z][a-z0-9]*(_[a-z0-9]+)*"
EVENT = re.compile(rf"{NAME}(: .+)?")
"""The loggers of the standard library add the fields of an event after a colon."""


def faults_in(source: str) -> list[int]:
    """Return the lines whose log event or metric has no literal name."""
    module = ast.parse(source)
    mappings = dict(_literal_mappings(module))
    metrics = _metric_classes(module)
    faults = []
    for call in (node for node in ast.walk(module) if isinstance(node, ast.Call)):
        if _is_log_call(call):
            names = _possible_names(call, mappings)
            is_valid = bool(names) and all(EVENT.fullmatch(name) for name in names)
        elif isinstance(call.func, ast.Name) and call.func.id in metrics:
            names = _possible_names(call, {})
            is_valid = bool(names) and all(re.fullmatch(NAME, name) for name in names)
        else:
            continue
        if not is_valid:
            faults.append(call.lineno)
    return faults


def _is_log_call(call: ast.Call) -> bool:
    return (
        isinstance(call.func, ast.Attribute)
        and call.func.attr in LEVELS
        and _last_identifier(call.func.value).lstrip("_") in LOGGERS
    )


def _last_identifier(expression: ast.expr) -> str:
    match expression:
        case ast.Name(name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func):
            return _last_identifier(func)
        case _:
            return ""


def _possible_names(call: ast.Call, mappings: dict[str, list[str]]) -> list[str]:
    """Return the values that the first argument can have, or nothing if they are not literals."""
    match call.args:
        case [ast.Constant(str(name)), *_]:
            return [name]
        case [ast.Subscript(value=ast.Name(mapping)), *_]:
            return mappings.get(mapping, [])
        case _:
            return []


def _literal_mappings(module: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """Yield the dictionaries at module level whose values are all literal strings, with these values."""
    for statement in module.body:
        match statement:
            case ast.Assign(targets=[ast.Name(name)], value=ast.Dict(values=values)):
                pass
            case ast.AnnAssign(target=ast.Name(name), value=ast.Dict(values=values)):
                pass
            case _:
                continue
        literals = [each.value for each in values if isinstance(each, ast.Constant)]
        strings = [each for each in literals if isinstance(each, str)]
        if len(strings) == len(values):
            yield name, strings


def _metric_classes(module: ast.Module) -> set[str]:
    """Return the names by which the module knows the classes of metrics."""
    return {
        alias.asname or alias.name
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and node.module == "prometheus_client"
        for alias in node.names
        if alias.name in METRICS
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_every_log_event_and_every_metric_has_a_literal_name(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for line in faults_in(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        'log.info("message_sent", provider="twilio")',
        '_log.exception("handler_failed")',
        'self._log.warning("nats_error", error=text)',
        'logger.warning("callback_lost: %s", reason)',
        'EVENTS = {1: "message_sent", 2: "message_failed"}\nlog.info(EVENTS[state], attempt=1)',
        'from prometheus_client import Counter\nCounter("messaging_sent_total", "Messages")',
        'from collections import Counter\nCounter(f"{word}")',
        "numbers.info(value)",
    ],
)
def test_literal_names_are_accepted(source: str) -> None:
    assert faults_in(source) == []


@pytest.mark.parametrize(
    "source",
    [
        'log.info(f"message_{status}")',
        'log.info("message_" + status)',
        "log.info(event)",
        "log.info(event=name)",
        'log.info("Message sent")',
        'log.info("message-sent")',
        'log.info("message_%s" % status)',
        'structlog.get_logger().error(f"{name}_failed")',
        "log.info(EVENTS[state])",
        'EVENTS = {1: "message_sent", 2: name}\nlog.info(EVENTS[state])',
        'EVENTS = {1: "message_sent", 2: "Message failed"}\nlog.info(EVENTS[state])',
        'EVENTS = {key: "message_sent" for key in keys}\nlog.info(EVENTS[state])',
        'from prometheus_client import Gauge\nGauge(f"messaging_{name}", "Help")',
        'from prometheus_client import Counter as Count\nCount(PREFIX + "sent", "Help")',
        'from prometheus_client import Histogram\nHistogram(name="messaging_seconds", documentation="Help")',
    ],
)
def test_other_names_are_rejected(source: str) -> None:
    assert len(faults_in(source)) == 1
