"""The users that deploy/postgres/roles.sql creates for the services."""

import asyncio
import os
import shutil

import asyncpg
import pytest
from sqlalchemy import make_url

from dev.local_stack.database import server_program
from tests.integration.alembic_command import ROOT, alembic

pytestmark = pytest.mark.integration

PASSWORDS = {
    "POSTGRES_GATEWAY_PASSWORD": "gateway's password",
    "POSTGRES_INGEST_PASSWORD": "ingest's password",
    "POSTGRES_NOTIFIER_PASSWORD": "notifier's password",
}


async def create_roles(url: str) -> None:
    psql = shutil.which("psql") or server_program("psql")
    target = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    script = str(ROOT / "deploy/postgres/roles.sql")
    process = await asyncio.create_subprocess_exec(
        psql, target, "--quiet", "--file", script, env={**os.environ, **PASSWORDS}
    )
    assert await process.wait() == 0


async def connect(url: str, user: str) -> asyncpg.Connection:
    password = PASSWORDS[f"POSTGRES_{user.upper()}_PASSWORD"]
    target = make_url(url).set(drivername="postgresql", username=user, password=password)
    return await asyncpg.connect(target.render_as_string(hide_password=False))


@pytest.fixture(params=["new", "existing"])
async def url(request: pytest.FixtureRequest, empty_database_url: str) -> str:
    """Create the roles before the tables, as in a new volume, or after them."""
    if request.param == "new":
        await create_roles(empty_database_url)
    result = await alembic("upgrade", "head", database_url=empty_database_url)
    assert result.status == 0, result.errors
    await create_roles(empty_database_url)  # also a second time
    return empty_database_url


@pytest.mark.parametrize("user", ["gateway", "notifier"])
async def test_the_gateway_and_the_notifier_can_only_read(url: str, user: str) -> None:
    connection = await connect(url, user)
    try:
        assert await connection.fetchval("SELECT count(*) FROM message_history") == 0
        for statement in (
            "INSERT INTO conversations DEFAULT VALUES",
            "UPDATE messages SET body = ''",
            "DELETE FROM messages",
            "TRUNCATE messages",
            "SELECT * FROM conversations FOR UPDATE",
            "DROP TABLE messages",
            "CREATE TABLE mine ()",
            "SELECT take_notifications(1)",
            "SELECT count_traffic('[]')",
            "SELECT delete_old_webhook_attempts(1)",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_ingest_can_write_and_delete_nothing(url: str) -> None:
    connection = await connect(url, "ingest")
    try:
        await connection.execute("SELECT key FROM conversations FOR NO KEY UPDATE")
        await connection.execute("SELECT take_notifications(1)")
        await connection.execute("SELECT count_traffic('[]')")
        await connection.execute("SELECT delete_old_webhook_attempts(1)")
        with pytest.raises(asyncpg.NotNullViolationError):  # so it was allowed to insert
            await connection.execute("INSERT INTO conversations (id) VALUES (DEFAULT)")
        for statement in ("DELETE FROM messages", "TRUNCATE messages", "DROP TABLE messages"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()
