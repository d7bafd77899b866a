"""A cluster of three nats-servers on the loopback interface."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import nats.errors

from dev.chaos.errors import ChaosError
from dev.local_stack.ports import free_port
from dev.local_stack.readiness import NotReadyError, until
from dev.local_stack.servers import HOST, NatsServer

_NODES = 3
_WHOLE_SECONDS = 60
_API = "$JS.API"


class Node(NatsServer):
    """A member of the cluster.

    Args:
        folder: the folder of its data; its log is next to it.
        port: the port for clients.
        member: its name in the cluster.
        route: the port for the other members.
        routes: the `route` of each member.
    """

    def __init__(self, folder: Path, port: int, *, member: str, route: int, routes: Sequence[int]) -> None:
        super().__init__(folder, port, log=folder.with_suffix(".log"))
        self.member = member
        self._route = route
        self._routes = routes

    def _settings(self) -> str:
        others = ", ".join(f'"nats://{HOST}:{route}"' for route in self._routes if route != self._route)
        return "\n".join(
            [
                f'listen: "{HOST}:{self.port}"',
                f"server_name: {self.member}",
                "jetstream {",
                f"  store_dir: {json.dumps(str(self.folder))}",
                "  sync_interval: always",
                "}",
                "cluster {",
                "  name: chaos",
                f'  listen: "{HOST}:{self._route}"',
                f"  routes: [{others}]",
                "}",
                "",
            ]
        )


class Cluster:
    """The cluster of these nodes."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        return ",".join(node.url for node in self.nodes)

    async def leader_of(self, stream: str) -> Node:
        info = (await self._request(f"STREAM.INFO.{stream}"))["cluster"]
        return next(node for node in self.nodes if node.member == info["leader"])

    async def until_whole(self) -> None:
        """Wait until every stream has all its replicas, and each of them is current.

        Raises:
            ChaosError: it takes longer than a minute.
        """
        try:
            await until(self._is_whole, _WHOLE_SECONDS)
        except NotReadyError as exc:
            raise ChaosError(f"the cluster was not whole within {_WHOLE_SECONDS} s: {exc}") from exc

    async def _is_whole(self) -> None:
        try:
            names = (await self._request("STREAM.NAMES"))["streams"]
            for name in names:
                cluster = (await self._request(f"STREAM.INFO.{name}"))["cluster"]
                current = [replica for replica in cluster.get("replicas", []) if replica["current"]]
                if not cluster.get("leader") or len(current) < len(self.nodes) - 1:
                    raise NotReadyError(f"{name} lacks replicas")
        except (nats.errors.Error, OSError, TimeoutError, ChaosError) as exc:
            raise NotReadyError(repr(exc)) from exc

    async def _request(self, name: str) -> dict[str, Any]:
        client = await nats.connect(
            self.url.split(","), connect_timeout=2, max_reconnect_attempts=2, error_cb=_keep_quiet
        )
        try:
            reply = await client.request(f"{_API}.{name}", timeout=3)
        finally:
            await client.close()
        answer: dict[str, Any] = json.loads(reply.data)
        if "error" in answer:
            raise ChaosError(f"NATS refuses {name}: {answer['error']}")
        return answer


@asynccontextmanager
async def running_cluster(folder: Path) -> AsyncIterator[Cluster]:
    """Run a cluster for the block; the folder is for its data and logs."""
    taken: set[int] = set()
    for _ in range(2 * _NODES):
        taken.add(free_port(taken))
    ports = list(taken)
    listening, routes = ports[:_NODES], ports[_NODES:]
    nodes = [
        Node(folder / f"nats-{number}", port, member=f"nats-{number}", route=route, routes=routes)
        for number, (port, route) in enumerate(zip(listening, routes, strict=True), start=1)
    ]
    async with AsyncExitStack() as exits:
        for node in nodes:
            exits.push_async_callback(node.stop)
        await asyncio.gather(*(node.start() for node in nodes))
        yield Cluster(nodes)


async def _keep_quiet(_: Exception) -> None:
    """Ignore the error, which is raised as well."""
