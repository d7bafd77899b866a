"""The metrics of a process."""

from prometheus_client.parser import text_string_to_metric_families

from dev.chaos.stack import Stack


async def total(stack: Stack, url: str, name: str, **labels: str) -> int:
    """Return the sum of the samples of a metric that have these labels.

    Args:
        stack: the stack.
        url: the URL of the health server of the process.
        name: the name of the samples.
        labels: the labels, and their values.
    """
    response = await stack.http.get(f"{url}/metrics")
    return sum(
        int(sample.value)
        for family in text_string_to_metric_families(response.raise_for_status().text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
