import asyncio
import gzip
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.sender import attachments
from services.sender.attachments import Fetch, fetching
from shared import downloads
from shared.downloads import file_name
from shared.media import media_type_of
from shared.providers.base import File, ProviderError, RejectedError, TemporaryError
from shared.public_addresses import LookUp, is_public
from tests import messages
from tests.stand_in import Answer, ReceivedRequest, StandIn, standing_in


@pytest.fixture
async def server() -> AsyncIterator[StandIn]:
    async with standing_in() as stand_in:
        yield stand_in


@pytest.fixture
async def fetch() -> AsyncIterator[Fetch]:
    async with fetching(allow_private=True) as fetch:
        yield fetch


def hosts(**addresses: str) -> LookUp:
    async def look_up(host: str, port: int) -> Sequence[str]:  # noqa: ARG001 - for any port
        return addresses[host.partition(".")[0]].split()

    return look_up


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1"),  # noqa: S104
        *("169.254.169.254", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1"),
        *("255.255.255.255", "::", "::1", "fe80::1", "fe80::1%lo", "fc00::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1"),
        *("2002:7f00:1::", "2002:a00:1::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "5f00::1"),
    ],
)
def test_these_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "172.32.0.1", "2606:4700::1111"])
def test_these_addresses_are_public(address: str) -> None:
    assert is_public(address)


async def test_a_file_has_a_name_a_type_and_content(server: StandIn, fetch: Fetch) -> None:
    answers = {
        "/a.png": Answer(headers={"Content-Type": "image/png"}, body=b"\x89PNG"),
        "/b": Answer(
            headers={
                "Content-Type": "text/plain; charset=utf-8",
                "Content-Disposition": "attachment; filename=notes.txt",
                "Content-Encoding": "gzip",
                "Set-Cookie": "a=b",
            },
            # A file of two members, and zeros that fill it up to a whole block.
            body=gzip.compress(b"No") + gzip.compress(b"tes") + bytes(100),
        ),
    }
    server.answer = lambda request: answers[request.path]
    assert await fetch([f"{server.url}/b", f"{server.url}/a.png"]) == [
        File("notes.txt", "text/plain", b"Notes"),
        File("a.png", "image/png", b"\x89PNG"),
    ]
    assert [request.headers.get("cookie") for request in server.requests] == [None, None]


@pytest.mark.parametrize(
    ("answer", "error", "code"),
    [
        (Answer(404), RejectedError, "attachment_http_404"),
        (Answer(403), RejectedError, "attachment_http_403"),
        (Answer(304), RejectedError, "attachment_http_304"),
        (Answer(302, {"Location": "/again"}), RejectedError, "attachment_refused"),
        (Answer(302, {"Location": "file:///etc/passwd"}), RejectedError, "attachment_refused"),
        (Answer(302, {"Location": "http://x:y:z/"}), RejectedError, "attachment_refused"),
        (Answer(headers={"Content-Encoding": "br"}), RejectedError, "attachment_refused"),
        (Answer(headers={"Content-Encoding": "gzip"}, body=b"no"), RejectedError, "attachment_refused"),
        (Answer(body=bytes(1001)), RejectedError, "attachment_too_large"),
        (
            Answer(headers={"Content-Encoding": "gzip"}, body=gzip.compress(bytes(100_000))),
            RejectedError,
            "attachment_too_large",
        ),
        (Answer(206, body=b"half"), RejectedError, "attachment_http_206"),
        (
            Answer(headers={"Content-Encoding": "gzip"}, body=gzip.compress(b"Notes")[:-9]),
            TemporaryError,
            "attachment_unreachable",
        ),
        (Answer(500), TemporaryError, "attachment_http_500"),
        (Answer(429), TemporaryError, "attachment_http_429"),
        (Answer(body=b"half", ending="break"), TemporaryError, "attachment_unreachable"),
        (Answer(ending="drop"), TemporaryError, "attachment_unreachable"),
        (Answer(ending="hang"), TemporaryError, "attachment_timeout"),
    ],
)
async def test_an_attachment_that_cannot_be_fetched_is_an_error(
    server: StandIn,
    fetch: Fetch,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    error: type[ProviderError],
    code: str,
) -> None:
    monkeypatch.setattr(attachments, "TIME_LIMIT", 1.0)
    server.answer = lambda _: answer
    with pytest.raises(ProviderError) as caught:
        await fetch([f"{server.url}/secret?token=1"], 1000)
    assert (type(caught.value), caught.value.code) == (error, code)
    assert "token" not in str(caught.value)


async def test_the_limit_applies_to_all_attachments_together(server: StandIn, fetch: Fetch) -> None:
    server.answer = lambda _: Answer(body=bytes(500))
    assert len(await fetch([server.url] * 2, 1000)) == 2
    with pytest.raises(RejectedError, match="larger than"):
        await fetch([server.url] * 3, 1000)


async def test_no_more_than_the_limit_is_decompressed() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    content = downloads._GzipDecoder()(bomb, 1_001)  # noqa: SLF001 - its memory is not visible elsewhere
    assert len(content) == 1_001


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://nobody.example/"])
async def test_an_unreachable_server_is_a_temporary_error(url: str) -> None:
    async with fetching(allow_private=True, look_up=hosts(**{"127": "127.0.0.1", "nobody": ""})) as fetch:
        with pytest.raises(TemporaryError):
            await fetch([url])


@pytest.mark.parametrize(
    "url",
    [
        "ftp://public.example/a",
        "file:///etc/passwd",
        "//public.example/a",
        "gopher://public.example",
        "http://",
        "no url",
        "http://user:password@public.example/",
        "http://public.example:22/",
        "http://private.example/",
        "http://both.example/",
        "http://mapped.example/",
    ],
)
async def test_these_urls_are_refused_without_a_request(url: str) -> None:
    table = hosts(public="1.1.1.1", private="10.0.0.1", both="1.1.1.1 127.0.0.1", mapped="::ffff:1.1.1.1")

    async with fetching(look_up=table) as fetch:
        with pytest.raises(RejectedError) as caught:
            await fetch([url])
    assert caught.value.code == "attachment_refused"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "017700000001", "[::1]", "x" * 64]
)
async def test_no_spelling_of_the_local_host_is_accepted(host: str) -> None:
    async with fetching() as fetch:
        with pytest.raises(RejectedError) as caught:
            await fetch([f"http://{host}/"])
    assert caught.value.code == "attachment_refused"


async def test_silent_name_servers_do_not_block_other_look_ups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *rest: Any, **more: Any) -> Any:  # noqa: ANN401 - as it is
        if host.startswith("silent"):
            answered.wait(20)
        return real("127.0.0.1", *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with fetching() as fetch:
        fetches = [asyncio.ensure_future(fetch([f"http://silent{number}.example/"])) for number in range(48)]
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await asyncio.get_running_loop().getaddrinfo("provider.example", 443)
        answered.set()
        for result in await asyncio.gather(*fetches, return_exceptions=True):
            assert isinstance(result, ProviderError)


class Rebinding:
    """A host that has another address at each look-up."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = list(addresses)

    async def __call__(self, host: str, port: int) -> Sequence[str]:  # noqa: ARG002 - for any host
        return [self._addresses.pop(0)]


@pytest.fixture
def public_loopback(monkeypatch: pytest.MonkeyPatch, server: StandIn) -> None:
    """Make 127.0.0.1 the only public address, and the server's port the only permitted one."""
    monkeypatch.setattr(downloads, "is_public", lambda address: address == "127.0.0.1")
    monkeypatch.setattr(downloads, "PUBLIC_PORTS", {httpx.URL(server.url).port})


@pytest.mark.usefixtures("public_loopback")
async def test_the_request_goes_to_the_address_that_was_checked(server: StandIn) -> None:
    port = httpx.URL(server.url).port
    server.answer = lambda _: Answer(body=b"A")
    async with fetching(look_up=Rebinding("127.0.0.1", "10.0.0.1")) as fetch:
        [file] = await fetch([f"http://files.example:{port}/a.txt"])
    assert file.content == b"A"
    assert server.requests[0].headers["host"] == f"files.example:{port}"


@pytest.mark.usefixtures("public_loopback")
async def test_each_redirect_is_checked(server: StandIn) -> None:
    port = httpx.URL(server.url).port

    def answer(request: ReceivedRequest) -> Answer:
        return (
            Answer(302, {"Location": f"http://inner.example:{port}/"}) if request.path == "/a" else Answer()
        )

    server.answer = answer
    async with fetching(look_up=hosts(files="127.0.0.1", inner="10.0.0.1")) as fetch:
        with pytest.raises(RejectedError) as caught:
            await fetch([f"http://files.example:{port}/a"])
    assert caught.value.code == "attachment_refused"
    assert len(server.requests) == 1


@pytest.mark.usefixtures("public_loopback")
async def test_a_redirect_is_followed(server: StandIn) -> None:
    port = httpx.URL(server.url).port
    answers: Mapping[str, Answer] = {"/a": Answer(302, {"Location": "/b.txt"}), "/b.txt": Answer(body=b"B")}
    server.answer = lambda request: answers[request.path]
    async with fetching(look_up=hosts(files="127.0.0.1")) as fetch:
        assert await fetch([f"http://files.example:{port}/a"]) == [
            File("b.txt", "application/octet-stream", b"B")
        ]


async def test_the_next_address_is_tried_if_one_does_not_answer(server: StandIn) -> None:
    url = f"http://files.example:{httpx.URL(server.url).port}/"
    async with fetching(allow_private=True, look_up=hosts(files="127.0.0.2 127.0.0.1")) as fetch:
        assert len(await fetch([url])) == 1


@pytest.mark.parametrize(("host", "is_trusted"), [("files.example", True), ("other.example", False)])
async def test_tls_is_verified_for_the_host_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, *, is_trusted: bool
) -> None:
    tls = self_signed("files.example", tmp_path)
    monkeypatch.setattr("certifi.where", lambda: str(tmp_path / "certificate.pem"))
    table = hosts(files="127.0.0.1", other="127.0.0.1")
    async with standing_in(tls=tls) as server, fetching(allow_private=True, look_up=table) as fetch:
        fetched = fetch([f"https://{host}:{httpx.URL(server.url).port}/"])
        if is_trusted:
            assert len(await fetched) == 1
        else:
            with pytest.raises(TemporaryError, match="certificate"):
                await fetched
        assert len(server.requests) == is_trusted


def self_signed(host: str, folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(messages.now() - timedelta(days=1))
        .not_valid_after(messages.now() + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / "certificate.pem", folder / "key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    return context


@pytest.mark.parametrize(
    ("header", "url", "name"),
    [
        ("", "https://x.example/a/b%20c.png?d=e.f", "b c.png"),
        ('attachment; filename="report.pdf"', "https://x.example/1", "report.pdf"),
        ("attachment; filename*=UTF-8''%e2%82%ac.pdf", "https://x.example/1", "€.pdf"),
        ('attachment; filename="../../etc/passwd"', "https://x.example/1", "passwd"),
        ('attachment; filename="C:\\\\temp\\\\a.doc"', "https://x.example/1", "a.doc"),
        ("", "https://x.example/..%2f..%2f.bashrc", "bashrc"),
        ("", "https://x.example/a%0d%0aBcc%3a%20x.txt", "aBcc x.txt"),
        ("", "https://x.example/", "attachment.png"),
        ("attachment; filename=..", "https://x.example/..", "attachment.png"),
        ("", f"https://x.example/{'a' * 300}.png", f"{'a' * 100}.png"),
        ("attachment; filename*=nonsense'x'%41", "https://x.example/a.png", "A"),
        ("attachment; filename=\"EUR.pdf\"; filename*=UTF-8''%e2%82%ac.pdf", "https://x.example/1", "€.pdf"),
        ("attachment; filename*=UTF-8''%e2%82%ac.pdf; filename=EUR.pdf", "https://x.example/1", "€.pdf"),
        ("attachment; filename*0*=UTF-8''%e2%82; filename*1*=%ac.pdf", "https://x.example/1", "€.pdf"),
        ("attachment; filename*=UTF-8''..%2f%e2%82%ac.pdf", "https://x.example/1", "€.pdf"),
        ("attachment; filename*=UTF-8''a%2520b.pdf", "https://x.example/1", "a%20b.pdf"),
        ("attachment; FileName=a.pdf", "https://x.example/1", "a.pdf"),
        ('attachment; filename="=?UTF-8?B?5Lit5paHLnBkZg==?="', "https://x.example/1", "中文.pdf"),
        ('attachment; filename="=?iso-8859-1?Q?f=FCr=20uns.pdf?="', "https://x.example/1", "für uns.pdf"),
        (
            'attachment; filename="=?UTF-8?B?5Lit?= =?UTF-8?B?5paHLnBkZg==?="',
            "https://x.example/1",
            "中文.pdf",
        ),
        ('attachment; filename="=?UTF-8?Q?=2E=2E=2Fa=2Epdf?="', "https://x.example/1", "a.pdf"),
        ('attachment; filename="%E4%B8%AD%20%2e%2e%2fa.pdf"', "https://x.example/1", "a.pdf"),
        ('attachment; filename="%E4%B8%AD.pdf"', "https://x.example/1", "中.pdf"),
        ('attachment; filename="100% %e4.pdf"', "https://x.example/1", "100% %e4.pdf"),
        ('attachment; filename="=?nonsense?B?QQ==?=.pdf"', "https://x.example/1", "=nonsenseBQQ===.pdf"),
        ('attachment; filename="=?UTF-8?B?5?=.pdf"', "https://x.example/1", "=UTF-8B5=.pdf"),
    ],
)
def test_a_file_name_is_harmless(header: str, url: str, name: str) -> None:
    assert file_name(header, httpx.URL(url), "image/png") == name


@pytest.mark.parametrize(
    ("header", "type_"),
    [
        ("image/png", "image/png"),
        ("Text/Plain; charset=utf-8", "text/plain"),
        ("", "application/octet-stream"),
        ("nonsense", "application/octet-stream"),
        ("a/b\r\nc", "application/octet-stream"),
    ],
)
def test_an_invalid_media_type_becomes_the_general_one(header: str, type_: str) -> None:
    assert media_type_of(header) == type_
