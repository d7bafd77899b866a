"""Encrypted connections to NATS and PostgreSQL, which the URLs ask for."""

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import InterfaceError

from dev.local_stack.processes import Child, Command
from dev.local_stack.readiness import NotReadyError, until_ready
from dev.local_stack.servers import NatsServer
from shared.bus.client import connect
from shared.db.engine import make_engine
from shared.settings import DatabaseSettings
from tests.ports import free_port

pytestmark = pytest.mark.integration

HOST = "127.0.0.1"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Write a certificate for 127.0.0.1 that it has signed itself, and its key, into the same folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.crt"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


@asynccontextmanager
async def nats_server(folder: Path, *options: str) -> AsyncIterator[int]:
    """Run a nats-server with these options; yield its port."""
    port = free_port()
    program = NatsServer(folder, port, log=folder / "log").command().argv[0]
    argv = (program, "--addr", HOST, "--port", str(port), *options)
    child = Child(Command(name="nats", argv=argv, environment={}, folder=folder, log=folder / "nats.log"))

    async def listens() -> None:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError as exc:
            raise NotReadyError(str(exc)) from exc
        writer.close()

    try:
        await until_ready(child, listens, 30)
        yield port
    finally:
        await child.kill()


async def is_connected(url: str) -> bool:
    """Return whether a connection comes about within five seconds; a refused one fails at once."""
    async with connect(url, name="test") as bus:
        try:
            async with asyncio.timeout(5):
                await bus.until_connected()
        except TimeoutError:
            return False
        return bus.is_connected


async def test_nats_is_trusted_by_its_certificate(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = certificate.with_suffix(".key")
    async with nats_server(tmp_path, "--tls", "--tlscert", str(certificate), "--tlskey", str(key)) as port:
        assert not await is_connected(f"tls://{HOST}:{port}")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert await is_connected(f"tls://{HOST}:{port}")


async def test_nats_without_tls_is_refused_if_the_url_asks_for_it(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as port:
        assert await is_connected(f"nats://{HOST}:{port}")
        assert not await is_connected(f"tls://{HOST}:{port}")


async def encrypt(
    target: URL, context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Serve a connection as a PostgreSQL with TLS does: the client first asks for TLS."""
    await reader.readexactly(8)
    writer.write(b"S")
    await writer.start_tls(context)
    server_reader, server_writer = await asyncio.open_connection(target.host, target.port)
    await asyncio.gather(relay(reader, server_writer), relay(server_reader, writer))


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
    writer.close()


async def ask(url: URL, port: int | None) -> object:
    """Ask the database a question through the port, as a service does."""
    target = url.set(port=port, host=HOST, query={"ssl": "verify-full"})
    settings = DatabaseSettings(database_url=target.render_as_string(hide_password=False))
    engine = make_engine(settings, pool_size=1, application="test")
    try:
        async with engine.connect() as connection:
            return await connection.scalar(text("SELECT 42"))
    finally:
        await engine.dispose()


async def test_postgresql_is_trusted_by_its_certificate(
    database_url: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url(database_url)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    async with await asyncio.start_server(partial(encrypt, url, context), HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(InterfaceError, match="root certificate file"):
            await ask(url, port)
        monkeypatch.setenv("PGSSLROOTCERT", str(certificate))
        assert await ask(url, port) == 42


async def test_postgresql_without_tls_is_refused_if_the_url_asks_for_it(
    database_url: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLROOTCERT", str(certificate))
    url = make_url(database_url)
    with pytest.raises(ConnectionError):
        await ask(url, url.port)
