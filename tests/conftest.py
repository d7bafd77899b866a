"""Fixtures with real servers: one PostgreSQL and one NATS per worker, emptied for each test."""

import asyncio
import os
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path

import nats as nats_client
import pytest
from hypothesis import HealthCheck, settings
from nats.js import JetStreamContext

from shared.bus.client import Bus, connect
from shared.bus.provision import provision
from shared.bus.publisher import Publisher, publishing
from tests import infrastructure
from tests.ports import MAX_WORKERS

ROOT = Path(__file__).parents[1]

_SLOWEST_FIRST = ("page", "e2e", "integration", "unit")


def pytest_configure(config: pytest.Config) -> None:
    """Generate the same examples in every run; `--hypothesis-seed` explores others.

    Examples have no deadline, since any of them may take long on a loaded machine.
    """
    derandomize = config.getoption("--hypothesis-seed") is None
    slow = [HealthCheck.too_slow]
    settings.register_profile("same", derandomize=derandomize, deadline=None, suppress_health_check=slow)
    settings.load_profile("same")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow tests first, so that none of them is left for a single worker at the end."""
    items.sort(key=lambda item: (_SLOWEST_FIRST.index(_folder_of(item)), not _has_examples(item)))


def _folder_of(item: pytest.Item) -> str:
    return item.path.relative_to(ROOT / "tests").parts[0]


def _has_examples(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and getattr(item.obj, "is_hypothesis_test", False)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Start two workers for each core, since tests spend half of their time waiting."""
    return min(2 * (os.cpu_count() or 1), MAX_WORKERS)


@pytest.fixture(scope="session", autouse=True)
async def no_task_outlives_its_cancellation() -> AsyncIterator[None]:
    """Cancel the tasks that tests have left behind, and name those that go on; pytest would wait for them."""
    yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for _ in range(3):
        for task in left:
            task.cancel()
        if not left:
            return
        _, left = await asyncio.wait(left, timeout=5)
        for task in left:
            output = StringIO()
            task.print_stack(file=output)
            warnings.warn(f"{task!r} goes on after it was cancelled\n{output.getvalue()}", stacklevel=1)


def sqlalchemy_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+asyncpg://", 1)


@pytest.fixture(scope="session")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[infrastructure.Postgres]:
    """Run the PostgreSQL of this worker. A test that stops or kills a server starts its own."""
    async with infrastructure.postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
async def migrated_template(postgres: infrastructure.Postgres) -> AsyncIterator[str]:
    """Create the database with the newest schema from which others are copied; yield its name."""
    async with postgres.database() as url:
        subprocess.run(  # noqa: ASYNC221 - nothing else runs in the meantime
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": sqlalchemy_url(url)},
            check=True,
            capture_output=True,
        )
        yield url.rpartition("/")[2]


@pytest.fixture
async def empty_database_url(postgres: infrastructure.Postgres) -> AsyncIterator[str]:
    """Create an empty database; yield its `postgresql+asyncpg://…` URL."""
    async with postgres.database() as url:
        yield sqlalchemy_url(url)


@pytest.fixture
async def database_url(postgres: infrastructure.Postgres, migrated_template: str) -> AsyncIterator[str]:
    """Create a database with the newest schema; yield its `postgresql+asyncpg://…` URL."""
    async with postgres.database(migrated_template) as url:
        yield sqlalchemy_url(url)


@pytest.fixture(scope="session")
async def nats_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[infrastructure.Server]:
    """Run the NATS of this worker. A test that stops or kills a server starts its own."""
    async with infrastructure.nats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
async def nats_url(nats_server: infrastructure.Server) -> str:
    """Return the URL of a NATS with the declared streams, all of them empty."""
    client = await nats_client.connect(nats_server.url)
    jetstream = client.jetstream()
    for stream in await jetstream.streams_info():
        await jetstream.delete_stream(str(stream.config.name))
    await provision(jetstream)
    await client.close()
    return nats_server.url


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with connect(nats_url, name="test") as bus:
        await bus.until_connected()
        yield bus


@pytest.fixture
async def jetstream(bus: Bus) -> JetStreamContext:
    return bus.jetstream


@pytest.fixture
async def publisher(bus: Bus) -> AsyncIterator[Publisher]:
    async with publishing(bus) as publisher:
        yield publisher
