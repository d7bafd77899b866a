"""Schemathesis checks that the API behaves as its OpenAPI document says."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.stack import running_stack

# A schema cannot say which phone numbers are valid, or that a message needs a body or an attachment. A
# request that conforms to it may therefore be refused with 422.
_NOT_PROMISED = "positive_data_acceptance"

# A webhook that does not conform to its schema is kept as a dead letter. A message of a batch that does not
# is refused by itself.
_CONFIGURATION = """
[[operations]]
include-path-regex = "^/api/(webhooks/|messages/batch$)"
checks.negative_data_rejection.expected-statuses = ["2xx", "4xx", "503"]
"""


@pytest.mark.timeout(300)
async def test_the_api_behaves_as_documented(tmp_path: Path, database_url: str, nats_url: str) -> None:
    """Make the same requests in every run; `schemathesis --seed` explores others."""
    (tmp_path / "schemathesis.toml").write_text(_CONFIGURATION)
    settings = {"WEBHOOK_ENDPOINT_KEY": "a key for webhook endpoints"}
    async with running_stack(
        tmp_path, database_url=database_url, nats_url=nats_url, settings=settings
    ) as stack:
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{stack.gateway_url}/openapi.json",
            "--checks=all",
            f"--exclude-checks={_NOT_PROMISED}",
            "--max-examples=10",
            "--seed=1",
            "--no-color",
        ]
        finished = await asyncio.to_thread(
            subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False
        )
    assert finished.returncode == 0, finished.stdout[-6_000:] + finished.stderr[-1_000:]
