"""From a provider's webhook to the client, through the gateway, ingest and the fetcher."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.ingest.outbox import Outbox
from services.ingest.repository import Repository
from services.ingest.settings import IngestSettings
from services.ingest.worker import Worker
from shared.bus.client import Bus
from shared.bus.publisher import Publisher
from shared.bus.topology import Stream
from shared.db.engine import connecting
from tests import webhooks
from tests.integration.gateway.conftest import _start_gateway
from tests.integration.media.conftest import RunFetcher
from tests.stand_in import Answer, StandIn
from tests.waiting import eventually
from tests.webhooks import MAIL, MULTIPART, SMS, multipart

pytestmark = pytest.mark.integration

KEY = "0123456789abcdef"
HOSTILE = Answer(
    headers={
        "Content-Type": 'text/html; charset="x"',
        "Content-Disposition": "attachment; filename*=UTF-8''..%2Fa%22%0D%0AX-Evil%3A%201%3B%E2%82%AC.html",
    },
    body=b"<script>alert(1)</script>",
)


@pytest.fixture
async def gateway(nats_url: str, database_url: str, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with _start_gateway(
        nats_url=nats_url,
        database_url=database_url,
        media_store=str(folder),
        api_keys=f"tests:{KEY}",
    ) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        yield client


@pytest.fixture
async def ingest(bus: Bus, publisher: Publisher, database_url: str) -> AsyncIterator[None]:
    settings = IngestSettings(_env_file=None, database_url=database_url, nats_url="nats://127.0.0.1:1")
    async with connecting(settings, pool_size=6, application="tests") as engine:
        worker = Worker(bus, Repository(engine), publisher, Outbox(engine, publisher))
        worker.start()
        yield
        await worker.stop()


async def message_with(gateway: httpx.AsyncClient, status: str) -> dict[str, Any]:
    """Wait for the only message, whose files all have a status, and return it."""

    async def found() -> dict[str, Any]:
        response = await gateway.get("/api/conversations")
        assert response.status_code == 200, response.text
        conversations = response.json()["items"]
        if not conversations:
            return {}
        messages = (await gateway.get(f"/api/conversations/{conversations[0]['id']}/messages")).json()
        message: dict[str, Any] = messages["items"][0]
        return message if {each["status"] for each in message["media"]} == {status} else {}

    return await eventually(found)


@pytest.mark.usefixtures("ingest")
async def test_an_mms_is_served_harmlessly(
    gateway: httpx.AsyncClient, run_fetcher: RunFetcher, provider: StandIn
) -> None:
    provider.answer = lambda _: HOSTILE
    form = {**SMS, "NumMedia": "1", "MediaUrl0": f"{provider.url}/ME1", "MediaContentType0": "image/jpeg"}
    posted = await gateway.post(
        webhooks.TWILIO_MESSAGES, content=webhooks.urlencoded(form), headers=webhooks.FORM
    )
    assert posted.status_code == 200
    [pending] = (await message_with(gateway, "pending"))["media"]
    assert (await gateway.get(pending["url"])).json()["code"] == "media_not_stored"

    async with run_fetcher():
        [media] = (await message_with(gateway, "stored"))["media"]
    assert media == {
        "id": pending["id"],
        "url": f"/api/media/{pending['id']}",
        "status": "stored",
        "content_type": "text/html",
        "size": len(HOSTILE.body),
        "filename": "aX-Evil 1;€.html",
        "reason": None,
    }
    response = await gateway.get(media["url"])
    assert (response.status_code, response.content) == (200, HOSTILE.body)
    headers = response.headers
    assert 'attachment; filename="aX-Evil 1__.html"; filename*=' in headers["content-disposition"]
    assert headers["content-security-policy"].startswith("sandbox")
    assert headers["x-content-type-options"] == "nosniff"
    assert "x-evil" not in headers

    async def status_of(**given: str) -> tuple[int, bytes]:
        names = {name.replace("_", "-"): value for name, value in given.items()}
        answer = await gateway.get(media["url"], headers=names)
        return answer.status_code, answer.content

    assert await status_of(range="bytes=1-6") == (206, b"script")
    assert await status_of(range="bytes=-9") == (206, b"</script>")
    assert (await status_of(range="bytes=99-"))[0] == 416
    assert await status_of(range="bytes=1-6", if_range='"other"') == (200, HOSTILE.body)
    assert await status_of(if_none_match=headers["etag"]) == (304, b"")
    assert (await status_of(authorization="Bearer wrong"))[0] == 401


@pytest.mark.usefixtures("ingest")
async def test_the_attachments_of_an_email_are_stored_before_the_answer(
    gateway: httpx.AsyncClient, folder: Path
) -> None:
    files = {
        "attachment1": ("a.txt", "text/plain", b"the same"),
        "attachment2": ("b.bin", "not a type", b"the same"),
        "attachment3": ("empty", "image/png", b""),
    }
    posted = await gateway.post(webhooks.SENDGRID_INBOUND, content=multipart(MAIL, files), headers=MULTIPART)
    assert posted.status_code == 200
    assert len(list(folder.rglob("sha256/*/*"))) == 2  # noqa: ASYNC240 - a small folder
    media = (await message_with(gateway, "stored"))["media"]
    assert [(each["filename"], each["content_type"], each["size"]) for each in media] == [
        ("a.txt", "text/plain", 8),
        ("b.bin", "application/octet-stream", 8),
        ("empty", "image/png", 0),
    ]
    assert [(await gateway.get(each["url"])).content for each in media] == [b"the same", b"the same", b""]
    for path in folder.rglob("sha256/*/*"):  # noqa: ASYNC240
        path.unlink()
    assert (await gateway.get(media[0]["url"])).json()["code"] == "media_gone"


async def test_an_email_waits_at_its_provider_while_its_attachments_cannot_be_stored(
    gateway: httpx.AsyncClient, bus: Bus, folder: Path
) -> None:
    raw = (
        b"From: ann@example.com\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"
        b"--b\nContent-Type: text/plain\n\nHello\n"
        b"--b\nContent-Type: image/png; name=a.png\nContent-Transfer-Encoding: base64\n\naGk=\n--b--\n"
    )
    form = multipart({"envelope": MAIL["envelope"], "email": raw})

    async def post() -> httpx.Response:
        return await gateway.post(webhooks.SENDGRID_INBOUND, content=form, headers=MULTIPART)

    folder.rmdir()  # noqa: ASYNC240
    folder.touch()  # noqa: ASYNC240
    refused = await post()
    assert (refused.status_code, refused.json()["code"]) == (503, "media_store_unavailable")
    assert (await bus.jetstream.stream_info(Stream.INBOUND)).state.messages == 0
    folder.unlink()  # noqa: ASYNC240
    assert (await post()).status_code == 200
    assert [path.read_bytes() for path in folder.rglob("sha256/*/*")] == [b"hi"]  # noqa: ASYNC240
