"""A TCP proxy between a process and a server, which can be cut as if the network between them had failed."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from dev.local_stack.ports import free_port
from dev.local_stack.servers import HOST

_CHUNK = 64 * 1024


class Proxy:
    """Forwards connections to a port of this machine.

    While it is cut, connections stay open and new ones are accepted, but neither data nor the end of a
    connection is forwarded. Both are forwarded once it is healed, however late: data that one side sent
    before it closed its connection still reaches the other side.

    Args:
        port: the port that the proxy listens on.
        target: the port of the server.
    """

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._passing = asyncio.Event()
        self._passing.set()
        self._connections: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        self._passing.clear()

    def heal(self) -> None:
        self._passing.set()

    def accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve a new connection."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def aclose(self) -> None:
        """Close all connections."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            await self._passing.wait()
            server_reader, server_writer = await asyncio.open_connection(HOST, self._target)
        except OSError:  # the server is down
            writer.close()
            return
        except BaseException:
            writer.close()
            raise
        await asyncio.gather(self._pass_on(reader, server_writer), self._pass_on(server_reader, writer))

    async def _pass_on(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            while True:
                chunk = await self._read(reader)
                await self._passing.wait()
                if not chunk:
                    return
                writer.write(chunk)
                await writer.drain()
        except OSError:
            return  # the receiver has closed the connection
        finally:
            writer.close()

    async def _read(self, reader: StreamReader) -> bytes:
        """Return the next data, or nothing at the end of the connection."""
        with suppress(OSError):
            return await reader.read(_CHUNK)
        return b""


@asynccontextmanager
async def proxying(target: int) -> AsyncIterator[Proxy]:
    """Run a proxy to a port of this machine for the block."""
    proxy = Proxy(free_port(), target)
    server = await asyncio.start_server(proxy.accept, HOST, proxy.port)
    try:
        yield proxy
    finally:
        server.close()
        await proxy.aclose()
