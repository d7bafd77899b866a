"""A message can be followed by its id through the logs of all services."""

import json
from pathlib import Path

from tests.e2e.stack import JSON, Stack, running_stack
from tests.waiting import eventually


def lines_with(stack: Stack, service: str, message_id: str) -> list[JSON]:
    lines: list[JSON] = [json.loads(line) for line in stack.processes[service].log().splitlines()]
    return [
        line
        for line in lines
        if message_id == line.get("message_id") or message_id in line.get("message_ids", ())
    ]


async def test_every_service_logs_the_id_of_the_message(stack: Stack) -> None:
    await stack.sms.behave(status=500, times=1)
    message_id = (await stack.send())["id"]
    await stack.message_becomes(message_id, "sent")

    async def events(service: str, *expected: str) -> None:
        async def are_logged() -> bool:
            return {line["event"] for line in lines_with(stack, service, message_id)} == set(expected)

        await eventually(are_logged)

    await events("gateway", "message_accepted")
    await events("sender", "attempt_failed", "message_retrying", "message_sent")
    await events("ingest", "stored")
    streams = {line["stream"] for line in lines_with(stack, "ingest", message_id)}
    assert streams == {"OUTBOUND", "EVENTS"}


async def test_a_receipt_is_logged_with_the_provider_message_id_of_the_send(stack: Stack) -> None:
    message_id = (await stack.send())["id"]
    await stack.message_becomes(message_id, "sent")
    [sent] = lines_with(stack, "sender", message_id)
    await stack.sms.receipt(provider_message_id=sent["provider_message_id"], status="delivered")
    await stack.message_becomes(message_id, "delivered")
    assert sent["provider_message_id"] in stack.processes["ingest"].log()


async def test_logs_on_a_full_disk_stop_no_service(tmp_path: Path, database_url: str, nats_url: str) -> None:
    services = ("gateway", "ingest", "sender")
    for service in services:
        (tmp_path / f"{service}.log").symlink_to("/dev/full")
    async with running_stack(tmp_path, database_url=database_url, nats_url=nats_url) as stack:
        message_id = (await stack.send())["id"]
        await stack.message_becomes(message_id, "sent")
        for service in services:
            metrics = (await stack.client.get(f"{stack.processes[service].health_url}/metrics")).text
            assert "messaging_log_lines_dropped_total" in metrics
            assert "messaging_log_lines_dropped_total 0.0" not in metrics
