"""Servers in containers, for `tests.infrastructure`."""

import asyncio
import gc
import os
import warnings
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import docker
import docker.errors

from dev.local_stack.readiness import until
from tests.ports import free_port

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

_ENGINE_TIMEOUT = 60
_START_TIMEOUT = 60
_STOP_GRACE = 10


class EngineMissingError(Exception):
    """No container engine answers."""


class ImagesMissingError(Exception):
    """An engine answers, but has no images and cannot fetch them."""


def fetch_images(*images: str) -> None:
    """Fetch the images that are missing.

    Raises:
        EngineMissingError: no engine answers.
        ImagesMissingError: an image cannot be fetched.
    """
    client = _client()
    try:
        client.ping()
        for image in images:
            _fetch(client, image)
    except (docker.errors.DockerException, OSError) as exc:
        raise EngineMissingError(str(exc)) from exc
    finally:
        client.close()


def _client() -> docker.DockerClient:
    reason = ""
    with warnings.catch_warnings():
        # A client that finds no engine does not close its socket, about which the garbage collector warns.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            return docker.from_env(timeout=_ENGINE_TIMEOUT)
        except (docker.errors.DockerException, OSError) as exc:
            reason = str(exc)
        gc.collect()
    raise EngineMissingError(reason)


def _fetch(client: docker.DockerClient, image: str) -> None:
    try:
        client.images.get(image)
    except docker.errors.ImageNotFound:
        try:
            client.images.pull(image)
        except (docker.errors.DockerException, OSError) as exc:
            raise ImagesMissingError(f"{image} cannot be fetched") from exc


class Container:
    """A server in a container, with the same port after each start.

    Args:
        image: the image.
        command: the command in the container.
        environment: its environment variables.
        port: the port of the server in the container.
        url: the URL of the server, in which {address} stands for host:port.
        ready: raises an error unless the server at a URL answers.
    """

    def __init__(
        self,
        image: str,
        *,
        command: list[str],
        environment: dict[str, str] | None = None,
        port: int,
        url: str,
        ready: Callable[[str], Awaitable[None]],
    ) -> None:
        self._container = _new(image).with_command(command).with_bind_ports(port, free_port())
        for name, value in (environment or {}).items():
            self._container.with_env(name, value)
        self._port = port
        self._url = url
        self._ready = ready
        self._is_created = False
        self.url = ""

    async def start(self) -> None:
        if self._is_created:
            await asyncio.to_thread(self._container.get_wrapped_container().start)
        else:
            self._is_created = True
            await asyncio.to_thread(self._container.start)
            self.url = self._url.format(address=await asyncio.to_thread(self._address))
        await until(self._probe, _START_TIMEOUT)

    async def stop(self) -> None:
        await asyncio.to_thread(self._container.get_wrapped_container().stop, timeout=_STOP_GRACE)

    async def kill(self) -> None:
        await asyncio.to_thread(self._container.get_wrapped_container().kill)

    async def pause(self) -> None:
        await asyncio.to_thread(self._container.get_wrapped_container().pause)

    async def resume(self) -> None:
        await asyncio.to_thread(self._container.get_wrapped_container().unpause)

    async def dispose(self) -> None:
        await asyncio.to_thread(self._container.stop)

    async def _probe(self) -> None:
        await self._ready(self.url)

    def _address(self) -> str:
        # localhost may resolve to ::1, where the engine may not listen.
        host = self._container.get_container_host_ip().replace("localhost", "127.0.0.1")
        return f"{host}:{self._container.get_exposed_port(self._port)}"


def _new(image: str) -> "DockerContainer":
    # This is read during the import. The helper container that it disables would need another image, and
    # privileges in some engines.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415

    return DockerContainer(image)
