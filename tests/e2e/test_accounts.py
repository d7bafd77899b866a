"""The services with the NATS accounts of docker-compose.yml, each of which has only the rights it needs."""

import json
from pathlib import Path

from tests.e2e.stack import running_stack
from tests.e2e.test_replay import exchange
from tests.rights import provisioned_server


async def test_services_do_all_their_work_with_their_own_rights(tmp_path: Path, database_url: str) -> None:
    async with (
        provisioned_server(tmp_path / "nats") as server,
        running_stack(tmp_path, database_url=database_url, nats_url=server.url_for) as stack,
    ):
        await exchange(stack)
        logged = [
            json.loads(line)
            for service in ("gateway", "ingest", "sender")
            for line in stack.processes[service].log().splitlines()
            if line.startswith("{")
        ]
    problems = {"nats_error", "nats_disconnected", "consumer_failed", "handler_unavailable", "handler_failed"}
    assert {entry["event"] for entry in logged} & problems == set()
    assert {"message_accepted", "message_sent", "stored"} <= {entry["event"] for entry in logged}
