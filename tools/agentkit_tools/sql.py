"""A database for an agent: `sql_tools(url)`, read-only unless the user says otherwise."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from agentkit import Tool, ToolError
from agentkit.tools import FunctionToolset
from agentkit_tools._options import check_positive, missing

if TYPE_CHECKING:
    import sqlalchemy as sa

    from agentkit_tools._databases import Database

Value: TypeAlias = str | int | float | bool | None

MAX_CELL = 2_000
"""Characters of one value that a model reads."""
MAX_SQL = 50_000
_NOT_ALLOWED = ("not authorized", "authorization denied")


def sql_tools(
    url: str | sa.URL,
    write: bool = False,
    *,
    timeout: float = 10,
    max_rows: int = 100,
    max_bytes: int = 20_000,
) -> FunctionToolset:
    """Return the tools `sql_schema` and `sql_query` for one database, and `sql_execute` to write.

    `sql_query` cannot change anything, nor read the server's files, whatever the role may do.
    `sql_execute` is there only with `write=True`, and each call needs approval.

    Args:
        url: "sqlite:///shop.db" or "postgresql://user:password@host/name". For PostgreSQL, give
            it a role of its own that may read only what the agent is to read.
        write: Whether there is a tool that changes rows and tables.
        timeout: Seconds for one statement.
        max_rows: Rows that one call returns.
        max_bytes: Bytes of JSON that one call returns.

    Raises:
        ConfigurationError: The address is of no database that can be kept read-only, or
            SQLAlchemy is not installed.
    """
    try:
        from agentkit_tools._databases import database
    except ImportError as error:
        raise missing("sql_tools", "SQLAlchemy") from error
    check_positive(timeout=timeout, max_rows=max_rows, max_bytes=max_bytes)
    of_url = database(url)
    sql = _Sql(database=of_url, seconds=timeout, max_rows=max_rows, max_bytes=max_bytes)
    longest = timeout + 15  # the engine ends a statement; this is for a server that is gone
    tools = [
        Tool(sql.sql_schema, effect="read", timeout=longest, max_output=max_bytes),
        Tool(sql.sql_query, effect="read", timeout=longest, max_output=None, strict=False),
    ]
    if write:
        tools.append(
            Tool(sql.sql_execute, approval=True, timeout=longest, max_output=None, strict=False)
        )
    return FunctionToolset([tool.with_(description=_described(tool, of_url)) for tool in tools])


def _described(tool: Tool[..., Any], database: Database) -> str:
    return tool.description.replace("the database", f"the {database.name} database", 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sql:
    """One database and the bounds of what is read from it."""

    database: Database
    seconds: float
    max_rows: int
    max_bytes: int

    def sql_schema(self, table: str | None = None) -> str:
        """List the tables and views of the database with their columns.

        Args:
            table: Only this one.
        """
        with self._connect(write=False) as connection:
            tables = self.database.tables(connection)
        if table is not None:
            tables = [one for one in tables if one[0].lower() == table.lower()]
            if not tables:
                raise ToolError(f"There is no table {table[:100]!r}; call sql_schema without one.")
        if len(tables) > 100:
            names = ", ".join(name for name, _, _ in tables)
            return f"{len(tables)} tables; ask for the columns of one: {names}"
        return "\n".join(f"{name} ({kind}): {', '.join(of)}" for name, kind, of in tables) or (
            "There are no tables."
        )

    def sql_query(self, sql: str, parameters: dict[str, Value] | None = None) -> dict[str, Any]:
        """Read from the database with one SELECT statement.

        Args:
            sql: One SELECT (or WITH … SELECT). Write :name where a parameter stands.
            parameters: Values for the names; never write values into the SQL yourself.
        """
        options = {"stream_results": True, "max_row_buffer": 1}
        end = time.monotonic() + self.seconds
        with self._connect(write=False) as connection:
            self.database.check(connection, sql, write=False)
            reading = connection.execution_options(**options)
            with self._run(reading, sql, parameters) as result:
                if not result.returns_rows:
                    raise ToolError("This is not a SELECT. sql_query only reads.")
                return self._rows(result, end)

    def sql_execute(self, sql: str, parameters: dict[str, Value] | None = None) -> dict[str, Any]:
        """Change the database with one statement, such as INSERT, UPDATE or CREATE TABLE.

        Args:
            sql: One statement. Write :name where a parameter stands.
            parameters: Values for the names; never write values into the SQL yourself.
        """
        with self._connect(write=True) as connection:
            self.database.check(connection, sql, write=True)
            with self._run(connection, sql, parameters) as result:
                if result.returns_rows:
                    return self._rows(result, math.inf)
                return {"changed_rows": max(0, result.rowcount)}

    def _run(
        self, connection: sa.Connection, sql: str, parameters: dict[str, Value] | None
    ) -> contextlib.closing[sa.CursorResult[Any]]:
        if len(sql) > MAX_SQL:
            raise ToolError(f"The statement has {len(sql):,} characters; {MAX_SQL:,} are allowed.")
        return contextlib.closing(self.database.run(connection, sql, parameters or {}))

    @contextlib.contextmanager
    def _connect(self, *, write: bool) -> Generator[sa.Connection]:
        """Open a connection, and explain what the database refuses without saying where it is."""
        from sqlalchemy import exc

        connected = False
        try:
            with self.database.connect(self.seconds, write=write) as connection:
                connected = True
                yield connection
        except exc.DBAPIError as error:
            if self.database.timed_out(error.orig):
                text = self._too_long()
            elif connected:
                text = f"The database refused it: {_reason(error.orig)}"
            else:
                text = "The database cannot be opened."
            raise ToolError(text) from error
        except (exc.StatementError, exc.ArgumentError) as error:
            raise ToolError(
                "The parameters do not fit the statement: each :name needs a parameter, and each "
                "parameter a :name."
            ) from error
        except (exc.SQLAlchemyError, OSError, OverflowError, ValueError) as error:
            raise ToolError(f"The statement could not be run ({type(error).__name__}).") from error

    def _too_long(self) -> str:
        return f"The statement took longer than {self.seconds:g} s and was ended."

    def _rows(self, result: sa.CursorResult[Any], end: float) -> dict[str, Any]:
        """Return as many rows as fit, and say whether there are more."""
        columns = list(result.keys())
        if len(columns) > 100:
            raise ToolError(f"The result has {len(columns)} columns; select 100 at most.")
        longest = max(20, min(MAX_CELL, self.max_bytes // max(1, len(columns))))
        rows: list[list[Any]] = []
        size, more = 0, False
        for row in _one_by_one(result):
            cells = [_cell(value, longest) for value in row]
            size += len(json.dumps(cells, ensure_ascii=False).encode("utf-8", "replace"))
            if rows and (len(rows) >= self.max_rows or size > self.max_bytes):
                more = True
                break
            rows.append(cells)
            if time.monotonic() > end:  # each row has the engine's time-out for itself
                raise ToolError(self._too_long())
        shown: dict[str, Any] = {"columns": columns, "rows": rows}
        if more:
            shown["note"] = (
                f"There are more rows than these {len(rows)}: narrow the query, or count."
            )
        return shown


def _one_by_one(result: sa.CursorResult[Any]) -> Iterator[tuple[Any, ...]]:
    while (row := result.fetchone()) is not None:
        yield tuple(row)


def _cell(value: Any, longest: int) -> Any:
    """Return a value as JSON that is not longer than it may be."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(cast("bytes", value))
        return f"<{len(data)} bytes: {data[:16].hex()}{'…' if len(data) > 16 else ''}>"
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, (list, tuple, dict)):
        text = json.dumps(value, ensure_ascii=False, default=str)
        return json.loads(text) if len(text) <= longest else _cut(text, longest)
    return _cut(str(value), longest)


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    return f"{text[:longest]}… ({len(text):,} characters)"


def _reason(error: BaseException | None) -> str:
    """Return what the engine says of a statement; of PostgreSQL's, the parts about that alone."""
    about = getattr(error, "diag", None)
    parts = [about.message_primary, about.message_hint] if about else []
    text = " ".join(filter(None, parts)) or str(error)
    return "it is not allowed here." if text in _NOT_ALLOWED else text[:500]
