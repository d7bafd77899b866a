"""Keyset pagination, in which the time to read a page does not depend on the number of rows.

A list is read from ranges of indexes, whose rows are in the order of the list. A filter that no range covers
is applied to the rows of the ranges: to at most `SCANNED` of them for a page, which may therefore have fewer
items than it could, or none, although the list continues.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Row, Select, Subquery, literal, select, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

SCANNED = 1_000
"""Rows."""

Place = Sequence[Any]
"""The position of a row: its values in the columns that order the list."""


@dataclass(frozen=True, slots=True)
class Keyset:
    """The rows of a list after a position.

    Attributes:
        ranges: selections of the same columns; an index has the rows of each in the order of the list.
        order: the names of the columns that order the list, the last of which is unique.
        after: the position of the last row of the previous page.
        is_ascending: whether the list is in ascending order.
    """

    ranges: Sequence[Select[Any]]
    order: Sequence[str]
    after: Place | None = None
    is_ascending: bool = False

    def first(self, limit: int, *, until: Place | None = None) -> Subquery:
        """Return the first rows, or those up to a position."""
        parts = [self._part(each, limit, until) for each in self.ranges]
        if len(parts) == 1:
            return parts[0]
        merged = union_all(*(select(part) for part in parts)).subquery()
        return select(merged).order_by(*self.ordered(merged)).limit(limit).subquery()

    def ordered(self, page: Subquery) -> Sequence[ColumnElement[Any]]:
        """Return the columns of `first` by which to sort."""
        return self._sorted([page.c[name] for name in self.order])

    async def end_of_scan(self, connection: AsyncConnection) -> Row[Any] | None:
        """Return the last row that a filter is applied to, or None if that is the end of the list."""
        page = self.first(SCANNED)
        statement = select(page).order_by(*self.ordered(page)).offset(SCANNED - 1).limit(1)
        return (await connection.execute(statement)).one_or_none()

    def _part(self, rows: Select[Any], limit: int, until: Place | None) -> Subquery:
        columns = [rows.selected_columns[name] for name in self.order]
        place = tuple_(*columns)
        if self.after is not None:
            after = _literals(self.after)
            rows = rows.where(place > after if self.is_ascending else place < after)
        if until is not None:
            end = _literals(until)
            rows = rows.where(place <= end if self.is_ascending else place >= end)
        return rows.order_by(*self._sorted(columns)).limit(limit).subquery()

    def _sorted(self, columns: Sequence[ColumnElement[Any]]) -> Sequence[ColumnElement[Any]]:
        return columns if self.is_ascending else [column.desc() for column in columns]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a page.

    Attributes:
        rows: one more than the page shows if there are more.
        end: the position at which the list continues if no more were found, but some are not filtered yet.
    """

    rows: Sequence[Row[Any]]
    end: Row[Any] | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """The conditions that the ranges of a list do not cover.

    Attributes:
        rows: the tables that the conditions are about.
        key: the column of `rows` that is equal to the last one of the order.
    """

    rows: FromClause
    key: ColumnElement[Any]
    conditions: Sequence[ColumnElement[bool]]


async def read_page(
    connection: AsyncConnection,
    keyset: Keyset,
    details: Select[Any],
    key: ColumnElement[Any],
    limit: int,
    selected: Filter | None = None,
) -> Rows:
    """Read a page.

    Args:
        connection: to the database.
        keyset: the rows of the list.
        details: selects the columns that are shown.
        key: the column of `details` that is equal to the last one of the order.
        limit: the number of rows.
        selected: the conditions that the ranges of the list do not cover.
    """
    end = None
    if selected is None or not selected.conditions:
        page = keyset.first(limit)
    else:
        end = await keyset.end_of_scan(connection)
        page = _filtered(keyset, selected, limit, end)
    # The position of the last row becomes the cursor.
    place = [page.c[name] for name in keyset.order if name not in details.selected_columns]
    statement = details.add_columns(*place).join(page, page.c[keyset.order[-1]] == key)
    statement = statement.order_by(*keyset.ordered(page))
    rows = (await connection.execute(statement)).all()
    return Rows(rows, end if len(rows) < limit else None)


def _filtered(keyset: Keyset, selected: Filter, limit: int, end: Row[Any] | None) -> Subquery:
    until = end and [end._mapping[name] for name in keyset.order]  # noqa: SLF001 - public despite its name
    # Rows that were inserted since the end was read may precede it.
    scanned = keyset.first(2 * SCANNED, until=until)
    found = scanned.join(selected.rows, scanned.c[keyset.order[-1]] == selected.key)
    statement = select(scanned).select_from(found).where(*selected.conditions)
    return statement.order_by(*keyset.ordered(scanned)).limit(limit).subquery()


def _literals(place: Place) -> ColumnElement[Any]:
    return tuple_(*map(literal, place))
