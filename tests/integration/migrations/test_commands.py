"""The commands of a deployment, with a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest
from sqlalchemy import TextClause, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from migrations.indexes import FORMER_INDEXES
from shared.db.tables import Base
from tests.integration.alembic_command import ROOT, alembic, run
from tests.integration.migrations.schema import everything, tables
from tests.waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
async def engine(empty_database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(empty_database_url)
    yield engine
    await engine.dispose()


@pytest.fixture
async def connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with engine.connect() as connection:
        # Each statement commits: an open transaction would block the migrations.
        yield await connection.execution_options(isolation_level="AUTOCOMMIT")


async def migrate(target: str, url: str) -> None:
    command = "downgrade" if target == "base" else "upgrade"
    result = await alembic(command, target, database_url=url)
    assert result.status == 0, result.errors


async def test_upgrading_after_a_downgrade_leads_to_the_same_schema(
    connection: AsyncConnection, empty_database_url: str
) -> None:
    await migrate("head", empty_database_url)
    first = await everything(connection)

    await migrate("base", empty_database_url)
    await migrate("head", empty_database_url)

    assert await everything(connection) == first
    assert all(first.values())


async def test_a_downgrade_leaves_only_the_empty_table_of_alembic(
    connection: AsyncConnection, empty_database_url: str
) -> None:
    await migrate("head", empty_database_url)
    await migrate("base", empty_database_url)

    left = await everything(connection)
    assert not any(left.values()), left
    assert await connection.scalar(text("SELECT count(*) FROM alembic_version")) == 0


async def test_models_and_migrations_lead_to_the_same_schema(
    engine: AsyncEngine, connection: AsyncConnection, empty_database_url: str
) -> None:
    arguments = "(timestamptz, timestamptz)"
    async with engine.begin() as creating:
        # The models have an index on its values, but only the migrations create functions.
        function = f"CREATE FUNCTION place_in_time{arguments} RETURNS timestamptz"
        await creating.execute(text(f"{function} LANGUAGE sql IMMUTABLE AS 'SELECT $1'"))
        await creating.run_sync(Base.metadata.create_all)
    from_models = await tables(connection)
    async with engine.begin() as dropping:
        await dropping.run_sync(Base.metadata.drop_all)
        await dropping.execute(text(f"DROP FUNCTION place_in_time{arguments}"))
    await migrate("head", empty_database_url)
    await connection.execute(text("DROP VIEW message_history"))
    await connection.execute(text(f"DROP INDEX {', '.join(FORMER_INDEXES)}"))

    assert await tables(connection) == from_models


async def test_the_models_have_no_change_without_a_migration(database_url: str) -> None:
    result = await alembic("check", database_url=database_url)

    assert result.status == 0, result.output


async def test_two_deployments_may_migrate_at_the_same_time(empty_database_url: str) -> None:
    results = await asyncio.gather(
        *(alembic("upgrade", "head", database_url=empty_database_url) for _ in range(2))
    )

    assert [result.status for result in results] == [0, 0], results


INVALID = text("SELECT count(*) FROM pg_index WHERE NOT indisvalid")
BUILDING = text("""
    SELECT count(*) FROM pg_stat_progress_create_index
    WHERE datname = current_database() AND phase LIKE 'waiting for %'
""")
INTERRUPT = text("""
    SELECT pg_terminate_backend(pid) FROM pg_stat_progress_create_index WHERE datname = current_database()
""")
# Between two attempts to take the lock, the last statement is the end of a transaction.
WAITING_FOR_MIGRATION = text("""
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND (query LIKE '%advisory_lock%' OR query LIKE 'ROLLBACK%')
""")


async def is_any(connection: AsyncConnection, query: TextClause) -> bool:
    return bool(await connection.scalar(query))


async def test_two_deployments_may_build_indexes_while_a_writer_is_active(
    engine: AsyncEngine, connection: AsyncConnection, empty_database_url: str
) -> None:
    await migrate("0012", empty_database_url)
    async with engine.begin() as writer:
        await writer.execute(text("LOCK TABLE webhook_attempts IN ROW EXCLUSIVE MODE"))
        first = asyncio.create_task(alembic("upgrade", "head", database_url=empty_database_url))
        await eventually(partial(is_any, connection, BUILDING))
        second = asyncio.create_task(alembic("upgrade", "head", database_url=empty_database_url))
        await eventually(partial(is_any, connection, WAITING_FOR_MIGRATION))
        await connection.execute(text("SET lock_timeout = '1s'"))
        await connection.execute(text("DELETE FROM webhook_attempts"))  # which does not wait for the build
    results = await asyncio.gather(first, second)

    assert [result.status for result in results] == [0, 0], results
    assert await connection.scalar(INVALID) == 0


async def test_an_index_whose_build_was_interrupted_is_built_again(
    engine: AsyncEngine, connection: AsyncConnection, empty_database_url: str
) -> None:
    await migrate("0012", empty_database_url)
    async with engine.begin() as writer:
        await writer.execute(text("LOCK TABLE webhook_attempts IN ROW EXCLUSIVE MODE"))
        migrating = asyncio.create_task(alembic("upgrade", "head", database_url=empty_database_url))
        await eventually(partial(is_any, connection, BUILDING))
        await connection.execute(INTERRUPT)
        assert (await migrating).status == 1
    assert await connection.scalar(INVALID) == 1

    await migrate("head", empty_database_url)

    assert await connection.scalar(INVALID) == 0


async def test_a_migration_never_waits_for_a_table_in_use(
    engine: AsyncEngine, empty_database_url: str
) -> None:
    await migrate("head", empty_database_url)
    async with engine.connect() as reader:
        await reader.execute(text("SELECT FROM messages"))

        result = await alembic("downgrade", "base", database_url=empty_database_url)

    assert result.status == 1
    assert "migrate: a table was in use; try again" in result.errors
    assert "Traceback" not in result.errors


async def test_a_missing_database_url_is_reported_in_one_line() -> None:
    result = await alembic("upgrade", "head", database_url="")

    assert result.status == 1
    assert result.errors == "migrate: DATABASE_URL is not set; see .env.example\n"


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("postgresql+asyncpg://user:sesame@127.0.0.1:1/messages", "PostgreSQL at 127.0.0.1:1"),
        ("mysql://user:sesame@127.0.0.1/messages", "begins with mysql://"),
        ("sesame", "is not of the form"),
    ],
)
async def test_an_unreachable_database_is_reported_in_one_line_without_the_password(
    url: str, error: str
) -> None:
    result = await alembic("upgrade", "head", database_url=url)

    assert result.status == 1
    assert error in result.errors
    assert len(result.errors.splitlines()) == 1
    assert "sesame" not in result.errors


async def test_a_wrong_password_is_reported_in_one_line_without_the_password(empty_database_url: str) -> None:
    url = make_url(empty_database_url).set(password="sesame").render_as_string(hide_password=False)

    result = await alembic("current", database_url=url)

    assert result.status == 1
    assert len(result.errors.splitlines()) == 1
    assert "password authentication failed" in result.errors
    assert "sesame" not in result.errors


async def test_the_sql_can_be_printed_without_a_database() -> None:
    result = await alembic("upgrade", "head", "--sql", database_url="")

    assert result.status == 0
    assert result.output.index("CREATE FUNCTION") < result.output.index("CREATE TRIGGER")


async def test_a_new_migration_needs_a_message(database_url: str) -> None:
    before = list((ROOT / "migrations" / "versions").iterdir())

    result = await run("bin/migrate.sh", "new", database_url=database_url, standard_input="  \n")

    assert result.status == 1
    assert "needs a message" in result.errors
    assert list((ROOT / "migrations" / "versions").iterdir()) == before


async def test_an_unknown_command_lists_the_known_ones() -> None:
    result = await run("bin/migrate.sh", "sideways", database_url="")

    assert result.status == 2
    assert "to the newest migration" in result.errors


WAITING = text("""
    SELECT count(*) FROM pg_locks
    WHERE relation = 'suppression_changes'::regclass AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")


async def test_messages_can_be_read_while_a_migration_waits_for_a_writer(
    engine: AsyncEngine, connection: AsyncConnection, empty_database_url: str
) -> None:
    await migrate("0006", empty_database_url)
    async with engine.begin() as writer:
        await writer.execute(text("LOCK TABLE suppression_changes IN ROW EXCLUSIVE MODE"))
        migrating = asyncio.create_task(alembic("upgrade", "head", database_url=empty_database_url))
        await eventually(partial(is_any, connection, WAITING))
        await connection.execute(text("SET lock_timeout = '1s'"))
        assert await connection.scalar(text("SELECT count(*) FROM messages")) == 0
        assert await connection.scalar(text("SELECT count(*) FROM message_history")) == 0
    await migrating
