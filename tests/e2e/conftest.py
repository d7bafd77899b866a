from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.stack import Stack, running_stack


@pytest.fixture
async def stack(tmp_path: Path, database_url: str, nats_url: str) -> AsyncIterator[Stack]:
    """Run all services with a new database and empty streams."""
    async with running_stack(tmp_path, database_url=database_url, nats_url=nats_url) as stack:
        yield stack
