"""The store in a folder, and in a bucket of a real MinIO."""

import asyncio
import hashlib
import hmac
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from shared.errors import MediaStoreUnavailableError
from shared.ids import MediaId
from shared.media import Media, MediaStatus
from shared.media_store import MediaStore, digest_of, open_store
from shared.settings import MediaSettings, SettingsError
from tests.ports import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.integration

MINIO = shutil.which("minio", path=f"{os.environ['PATH']}:{Path.home()}/go/bin")
KEY, SECRET, REGION = "access-key", "secret-key", "us-east-1"


@asynccontextmanager
async def minio(folder: Path) -> AsyncIterator[str]:
    """Run a MinIO with a bucket `media`; yield its URL."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(str(MINIO), "server", "--quiet", "--address", f"127.0.0.1:{port}", str(folder)),
        env={**os.environ, "MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": SECRET},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient() as client:
            await eventually(lambda: _has_created_bucket(client, url))
        yield url
    finally:
        process.kill()
        await process.wait()


async def _has_created_bucket(client: httpx.AsyncClient, url: str) -> bool:
    try:
        response = await client.put(f"{url}/media", headers=_signed("PUT", "/media", url.partition("//")[2]))
    except httpx.TransportError:
        return False
    return response.is_success or "AlreadyOwned" in response.text


def _signed(method: str, path: str, host: str) -> dict[str, str]:
    """Return the headers of a request without a body (AWS Signature Version 4)."""
    now = datetime.now(UTC)
    moment, date = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    empty = hashlib.sha256(b"").hexdigest()
    names = "host;x-amz-content-sha256;x-amz-date"
    headers = f"host:{host}\nx-amz-content-sha256:{empty}\nx-amz-date:{moment}\n"
    request = f"{method}\n{path}\n\n{headers}\n{names}\n{empty}"
    scope = f"{date}/{REGION}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{SECRET}".encode()
    for part in (date, REGION, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.new(key, text.encode(), "sha256").hexdigest()
    authorization = f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {"x-amz-date": moment, "x-amz-content-sha256": empty, "Authorization": authorization}


def opened(**values: Any) -> MediaStore:  # noqa: ANN401 - any setting
    store = open_store(MediaSettings(_env_file=None, **values))
    assert store
    return store


def in_bucket(url: str, secret: str = SECRET) -> MediaStore:
    return opened(
        media_store="s3://media/messages",
        media_store_endpoint=url,
        media_store_access_key_id=KEY,
        media_store_secret_access_key=secret,
    )


async def read(store: MediaStore, digest: str, start: int, end: int) -> bytes:
    return b"".join([chunk async for chunk in store.read(digest, start, end)])


async def keeps_files(store: MediaStore) -> None:
    content = bytes(range(256)) * 4_000
    digest = digest_of(content)
    assert await store.size_of(digest) is None
    await store.put(digest, content)
    await store.put(digest, content)
    assert await store.size_of(digest) == len(content)
    assert await read(store, digest, 0, len(content)) == content
    assert await read(store, digest, 1_000_000, 1_000_010) == content[1_000_000:1_000_010]
    media = Media(
        id=MediaId(uuid4()), position=0, status=MediaStatus.STORED, digest=digest, filename="ä/\0.txt"
    )
    assert await store.record(media.id) is None
    await store.put_record(media)
    assert await store.record(media.id) == media


async def test_a_folder_keeps_files(tmp_path: Path) -> None:
    await keeps_files(opened(media_store=str(tmp_path / "new" / "media")))


async def test_a_file_that_was_cut_off_is_stored_again(tmp_path: Path) -> None:
    store, digest = opened(media_store=str(tmp_path)), digest_of(b"whole")
    await store.put(digest, b"whole")
    (tmp_path / "sha256" / digest[:2] / digest).write_bytes(b"wh")
    await store.put(digest, b"whole")
    assert await read(store, digest, 0, 5) == b"whole"


@pytest.mark.skipif(MINIO is None, reason="go install github.com/minio/minio@latest")
async def test_a_bucket_keeps_files(tmp_path: Path) -> None:
    async with minio(tmp_path) as url:
        await keeps_files(in_bucket(url))
        with pytest.raises(MediaStoreUnavailableError):
            await in_bucket(url, secret="wrong").put(digest_of(b"a"), b"a")
    with pytest.raises(MediaStoreUnavailableError) as caught:
        await in_bucket(url).put(digest_of(b"a"), b"a")
    assert SECRET not in str(caught.value)


def test_a_store_that_cannot_be_opened_is_a_fault_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="MEDIA_STORE"):
        opened(media_store=str(tmp_path / "file" / "media"))
