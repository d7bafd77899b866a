"""docs/metrics.md tells of the metrics that there are."""

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
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001 - it tells them no other way
    return f"| `{name_of(metric)}` | {described.type} | {labels} | {described.documentation} |"


def test_the_table_is_that_of_the_declarations() -> None:
    assert re.findall(r"(?m)^\| `.*$", DOCUMENT) == [row_of(metric) for metric in DECLARED]


@pytest.mark.parametrize("expression", re.findall(r"expr: (.+)", DOCUMENT))
def test_an_alert_asks_for_metrics_and_labels_that_there_are(expression: str) -> None:
    labels = {name_of(metric): set(metric._labelnames) for metric in DECLARED}  # noqa: SLF001 - as above
    labels["up"] = {"job", "instance"}  # is Prometheus' own
    asked = re.findall(r"\b(messaging_\w+|up)\b(?:\{([^}]*)\})?", expression)
    assert asked
    for name, matchers in asked:
        assert set(re.findall(r"(\w+)=", matchers)) <= labels[name]
