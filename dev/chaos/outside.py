"""Servers that the supervisor does not run: PostgreSQL and a cluster of nats-servers."""

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from dev.chaos.cluster import Cluster, running_cluster
from dev.chaos.errors import ChaosError
from dev.local_stack.ports import free_port
from dev.local_stack.processes import Command, run_to_end
from dev.local_stack.servers import PostgresServer

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outside:
    """Servers that are not run by the supervisor."""

    postgres: PostgresServer
    cluster: Cluster

    @property
    def settings(self) -> Mapping[str, str]:
        return {
            "DATABASE_URL": self.postgres.url.replace("postgresql://", "postgresql+asyncpg://", 1),
            "NATS_URL": self.cluster.url,
            "STREAM_REPLICAS": str(len(self.cluster.nodes)),
        }


@asynccontextmanager
async def running_outside(folder: Path) -> AsyncIterator[Outside]:
    """Run a migrated PostgreSQL and a cluster of three nats-servers for the block.

    Raises:
        ChaosError: the migrations failed.
    """
    async with AsyncExitStack() as exits:
        postgres = PostgresServer(folder / "postgres", free_port(), log=folder / "postgres.log")
        exits.push_async_callback(postgres.stop)
        await postgres.start()
        outside = Outside(postgres, await exits.enter_async_context(running_cluster(folder)))
        migrate = Command(
            name="migrate",
            argv=(sys.executable, "-m", "alembic", "upgrade", "head"),
            environment={**os.environ, **outside.settings},
            folder=ROOT,
        )
        status, last_lines = await run_to_end(migrate, lambda _: None)
        if status != 0:
            raise ChaosError("\n".join(["the migrations failed", *last_lines]))
        yield outside
