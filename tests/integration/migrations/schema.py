"""The contents of a database schema, as PostgreSQL describes them."""

from collections.abc import Mapping

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

Schema = Mapping[str, list[str]]

_COLUMNS = """
    SELECT format(
        '%s.%s %s %s %s %s', table_name, column_name, udt_name, is_nullable, column_default, is_identity
    )
    FROM information_schema.columns WHERE table_schema = :schema AND table_name <> 'alembic_version'
"""
_CONSTRAINTS = """
    SELECT format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE connamespace = CAST(:schema AS regnamespace) AND contype <> 'n'
        AND conrelid <> coalesce(to_regclass('alembic_version'), 0)
"""
_INDEXES = """
    SELECT indexdef FROM pg_indexes WHERE schemaname = :schema AND tablename <> 'alembic_version'
"""
_FUNCTIONS = """
    SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = CAST(:schema AS regnamespace)
"""
_TRIGGERS = """
    SELECT pg_get_triggerdef(pg_trigger.oid) FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
    WHERE NOT tgisinternal AND relnamespace = CAST(:schema AS regnamespace)
"""
_VIEWS = "SELECT viewname || pg_get_viewdef(viewname::regclass) FROM pg_views WHERE schemaname = :schema"
_TYPES = """
    SELECT typname::text FROM pg_type WHERE typnamespace = CAST(:schema AS regnamespace)
        AND typname NOT IN ('alembic_version', '_alembic_version')
"""
_SEQUENCES = "SELECT sequencename::text FROM pg_sequences WHERE schemaname = :schema"

_TABLE_PARTS = {"columns": _COLUMNS, "constraints": _CONSTRAINTS, "indexes": _INDEXES}
_OTHER_PARTS = {
    "functions": _FUNCTIONS,
    "triggers": _TRIGGERS,
    "views": _VIEWS,
    "types": _TYPES,
    "sequences": _SEQUENCES,
}


async def everything(connection: AsyncConnection) -> Schema:
    """Return all objects except those of Alembic."""
    return await _read(connection, _TABLE_PARTS | _OTHER_PARTS, "public")


async def tables(connection: AsyncConnection) -> Schema:
    """Return the columns, the constraints and the indexes."""
    return await _read(connection, _TABLE_PARTS, "public")


async def _read(connection: AsyncConnection, parts: Mapping[str, str], schema: str) -> Schema:
    return {
        name: sorted(await connection.scalars(text(query), {"schema": schema}))
        for name, query in parts.items()
    }
