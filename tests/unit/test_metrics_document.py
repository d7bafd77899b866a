"""docs/metrics.md describes the metrics that the services export."""

import re
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase

from shared.observability import metrics

DOCUMENT = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
DECLARED = [metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]


def name_of(metric: MetricWrapperBase) -> str:
    [described] = metric.describe()
    return described.name + ("_total" if described.type == "counter" else "")


def row_of(metric: MetricWrapperBase) -> str:
    [described] = metric.describe()
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001 - not public
    return f"| `{name_of(metric)}` | {described.type} | {labels} | {described.documentation} |"


def test_the_table_matches_the_declarations() -> None:
    assert re.findall(r"(?m)^\| `.*$", DOCUMENT) == [row_of(metric) for metric in DECLARED]


@pytest.mark.parametrize("metric", DECLARED, ids=name_of)
def test_names_follow_the_conventions_of_prometheus(metric: MetricWrapperBase) -> None:
    assert re.fullmatch(r"messaging(_[a-z]+)+", name_of(metric))
    [described] = metric.describe()
    if described.type == "histogram":
        assert described.name.endswith("_seconds")


@pytest.mark.parametrize("expression", re.findall(r"expr: (.+)", DOCUMENT))
def test_an_alert_uses_existing_metrics_and_labels(expression: str) -> None:
    labels = {name_of(metric): set(metric._labelnames) for metric in DECLARED}  # noqa: SLF001 - not public
    labels["up"] = {"job", "instance"}  # Prometheus itself adds this metric
    used = re.findall(r"\b(messaging_\w+|up)\b(?:\{([^}]*)\})?", expression)
    assert used
    for name, matchers in used:
        declared = labels[name.removesuffix("_bucket")]
        assert set(re.findall(r"(\w+)=", matchers)) <= declared
