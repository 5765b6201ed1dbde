"""Connections to a database that can do no more than a tool may: one class an engine.

What holds is the engine's own: SQLite opens the file read-only and asks an authorizer about
each thing that a statement would do; PostgreSQL runs it in a read-only transaction, as the
query of a cursor, which can be nothing but one SELECT without changes.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.pool import NullPool

from agentkit import ToolError
from agentkit.errors import ConfigurationError

MAX_COLUMNS = 100


class Database(Protocol):
    """A database of one kind."""

    name: str

    def connect(self, seconds: float, *, write: bool) -> contextlib.AbstractContextManager[Any]:
        """Open a guarded connection, which ends what takes longer."""
        ...

    def check(self, connection: sa.Connection, statement: str, *, write: bool) -> None:
        """Refuse what the engine itself would let pass."""
        ...

    def run(
        self, connection: sa.Connection, statement: str, parameters: Mapping[str, Any]
    ) -> sa.CursorResult[Any]:
        """Run a statement with its parameters bound."""
        ...

    def tables(self, connection: sa.Connection) -> list[tuple[str, str, list[str]]]:
        """Return name, kind and columns of each table and view."""
        ...

    def timed_out(self, error: BaseException | None) -> bool:
        """Tell whether an error means that the time was up."""
        ...


def database(url: str | sa.URL) -> Database:
    """Return the database of an address.

    Raises:
        ConfigurationError: The address is malformed, or of an engine that cannot be guarded.
    """
    try:
        read = sa.make_url(url)
    except (exc.ArgumentError, ValueError) as error:
        raise ConfigurationError(
            "The url is not a database address. Write 'sqlite:///shop.db' or "
            "'postgresql://user@host/name'."
        ) from error
    if read.drivername in ("sqlite", "sqlite+pysqlite"):
        if not read.database or read.database.startswith((":memory:", "file:")) or read.query:
            raise ConfigurationError(
                f"{read.render_as_string()!r} is not a plain file. Write 'sqlite:///shop.db'; how "
                "it is opened is up to sql_tools, and one in memory would be empty."
            )
        return Sqlite(path=Path(read.database).absolute())
    if read.drivername in ("postgresql", "postgresql+psycopg"):
        return Postgres(url=read.set(drivername="postgresql+psycopg"))
    raise ConfigurationError(
        f"{read.drivername!r} is not supported: sql_tools knows how to keep SQLite and PostgreSQL "
        "(through psycopg) read-only. Write 'sqlite:///…' or 'postgresql://…'."
    )


_NAMED = set(
    "table_info table_xinfo table_list index_list index_info index_xinfo foreign_key_list".split()
)
_PLAIN = {
    "data_version",
    "encoding",
    "foreign_keys",
    "page_count",
    "page_size",
    "schema_version",
    "user_version",
}
_READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_WRITES = {
    getattr(sqlite3, f"SQLITE_{name}")
    for name in (
        "INSERT UPDATE DELETE CREATE_TABLE CREATE_INDEX CREATE_VIEW CREATE_TRIGGER DROP_TABLE "
        "DROP_INDEX DROP_VIEW DROP_TRIGGER DROP_VTABLE ALTER_TABLE REINDEX ANALYZE"
    ).split()
}
_MODULES = {"fts4", "fts5", "rtree"}
# The last three can take half a minute in one step, which no time-out ends: "regexp" is of
# SQLAlchemy, in Python, and the others write a character two thousand million times.
_FORBIDDEN = set(
    "load_extension readfile writefile edit eval fts3_tokenizer regexp printf format".split()
)
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 5_000_000,  # bytes of a value or a row
    sqlite3.SQLITE_LIMIT_COLUMN: MAX_COLUMNS,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 50,
}


@dataclass(frozen=True, kw_only=True)
class Sqlite:
    """A SQLite file."""

    path: Path
    name = "SQLite"

    @contextlib.contextmanager
    def connect(self, seconds: float, *, write: bool) -> Generator[sa.Connection]:
        """Open the file with an authorizer, limits, and a handler that ends long statements."""
        engine = sa.create_engine(
            "sqlite://", creator=lambda: self._open(seconds, write), poolclass=NullPool
        )
        with engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            # Wide tables count as columns, too, when they are read: so before the limit.
            connection.exec_driver_sql("SELECT 1 FROM sqlite_master LIMIT 1").close()
            for limit, value in _LIMITS.items():
                raw.setlimit(limit, value)
            raw.text_factory = _decoded
            end = time.monotonic() + seconds
            raw.set_progress_handler(lambda: time.monotonic() > end, 1_000)
            raw.set_authorizer(partial(_authorized, write))
            yield connection

    def _open(self, seconds: float, write: bool) -> sqlite3.Connection:
        address = f"{self.path.as_uri()}?mode={'rwc' if write else 'ro'}"
        return sqlite3.connect(address, uri=True, isolation_level=None, timeout=min(seconds, 5))

    def check(self, connection: sa.Connection, statement: str, *, write: bool) -> None:
        """Do nothing: the authorizer sees all that a statement does."""

    def run(
        self, connection: sa.Connection, statement: str, parameters: Mapping[str, Any]
    ) -> sa.CursorResult[Any]:
        """Run a statement with its parameters bound, by SQLite itself."""
        return connection.exec_driver_sql(statement, dict(parameters))

    def tables(self, connection: sa.Connection) -> list[tuple[str, str, list[str]]]:
        """Return name, kind and columns of each table and view."""
        listed = connection.exec_driver_sql(
            "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') "
            "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
        )
        return [(name, kind, self._columns(connection, name)) for name, kind in listed.all()]

    def _columns(self, connection: sa.Connection, table: str) -> list[str]:
        try:
            rows = connection.exec_driver_sql(
                'SELECT c.name, c.type, c."notnull", c.pk, f."table", f."to" '
                "FROM pragma_table_xinfo(?) c LEFT JOIN pragma_foreign_key_list(?) f "
                'ON f."from" = c.name WHERE c.hidden != 1 ORDER BY c.cid',
                (table, table),
            ).all()
        except exc.DBAPIError:
            return ["(broken: it names what does not exist)"]  # a view
        return [
            _column(name, kind, bool(required), bool(key), f"{other}({to or ''})" if other else "")
            for name, kind, required, key, other, to in rows
        ]

    def timed_out(self, error: BaseException | None) -> bool:
        """Tell whether the progress handler ended the statement."""
        return getattr(error, "sqlite_errorname", "") in ("SQLITE_INTERRUPT", "SQLITE_BUSY")


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _authorized(write: bool, action: int, one: str | None, two: str | None, *_: str | None) -> int:
    """Answer SQLite's question whether a statement may do a thing."""
    if action == sqlite3.SQLITE_FUNCTION:
        allowed = (two or "").lower() not in _FORBIDDEN
    elif action == sqlite3.SQLITE_PRAGMA:
        allowed = one in _NAMED or (one in _PLAIN and two is None)
    elif action == sqlite3.SQLITE_CREATE_VTABLE:
        allowed = write and (two or "").lower() in _MODULES
    elif (action, one) == (sqlite3.SQLITE_UPDATE, "sqlite_master"):
        allowed = True  # asked when a virtual table is opened; it takes a pragma to do it
    else:
        allowed = action in _READS or (write and action in _WRITES)
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


# Functions that change something, or reach out of the database, are volatile, and a read-only
# transaction does not stop them all. These few are harmless.
_HARMLESS = (
    "random random_normal gen_random_uuid uuidv4 uuidv7 clock_timestamp timeofday "
    "current_query system bernoulli"  # the last two are ways to sample a table
).split()
_SEQUENCES = "nextval currval lastval setval".split()
_SIZES = r"pg_\w+_size|uuid_generate_\w+"
_VOLATILE = sa.text(
    """
    SELECT proname FROM pg_catalog.pg_proc p
    WHERE p.provolatile = 'v' AND p.proname = ANY(:words)
      AND NOT p.proname = ANY(:harmless) AND p.proname !~ :sizes
      AND (p.pronamespace = 'pg_catalog'::regnamespace OR EXISTS (
        SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'))
    ORDER BY 1 LIMIT 1
    """
)
# What runs a text as a statement, or holds passwords.
_CLOSED = re.compile(
    r"(table|query|cursor|schema|database)_to_xml\w*|pg_(authid|shadow|user_mappings?|subscription)"
    r"|pg_(hba|ident)_file\w+|pg_file_settings"
)
_QUERY = re.compile(r"[\s(]*(select|with|values|table)\b")
_CHANGES = re.compile(
    r"\s*(insert|update|delete|merge|with|truncate)\b|"
    r"\s*(create|alter|drop)\s+(or\s+replace\s+)?"
    r"((temp|temporary|unlogged|unique|materialized|recursive)\s+)*"
    r"(table|index|view|sequence)\b"
)
_COMMENT = re.compile(r"\s*(--[^\n]*(\n|$)|/\*([^*/]|\*(?!/)|/(?!\*))*\*/)")
_POWERS = """
    SELECT EXISTS (
      SELECT FROM pg_catalog.pg_roles WHERE pg_has_role(session_user, oid, 'MEMBER') AND (rolsuper
        OR rolname IN
          ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')))
"""
_TABLES = """
    SELECT CASE WHEN pg_table_is_visible(c.oid) THEN '' ELSE n.nspname || '.' END || c.relname,
      CASE WHEN c.relkind IN ('v', 'm') THEN 'view' ELSE 'table' END,
      a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
      EXISTS (SELECT FROM pg_constraint k
        WHERE k.conrelid = c.oid AND k.contype = 'p' AND a.attnum = ANY(k.conkey)),
      (SELECT k.confrelid::regclass || '(' || b.attname || ')' FROM pg_constraint k
        JOIN pg_attribute b ON b.attrelid = k.confrelid
          AND b.attnum = k.confkey[array_position(k.conkey, a.attnum)]
        WHERE k.conrelid = c.oid AND k.contype = 'f' AND a.attnum = ANY(k.conkey) LIMIT 1)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^(pg_|information_schema$)'
      AND has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')
    ORDER BY n.nspname, c.relname, a.attnum
"""


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A PostgreSQL database."""

    url: sa.URL
    name = "PostgreSQL"

    @cached_property
    def _engine(self) -> sa.Engine:
        return sa.create_engine(
            self.url,
            poolclass=NullPool,  # no session outlives a call, with what was set in it
            connect_args={"connect_timeout": 10, "application_name": "agentkit"},
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url}

    @contextlib.contextmanager
    def connect(self, seconds: float, *, write: bool) -> Generator[sa.Connection]:
        """Begin a transaction with time-outs, without the powers of a superuser."""
        with self._engine.connect() as connection:
            connection.execution_options(postgresql_readonly=not write)
            raw: Any = connection.connection.driver_connection
            raw.prepare_threshold = 0  # the protocol in which several statements are an error
            for setting in ("statement_timeout", "lock_timeout", "idle_session_timeout"):
                connection.exec_driver_sql(
                    "SELECT set_config(%s, %s, true) FROM pg_settings WHERE name = %s",
                    (setting, str(int(seconds * 1000) + 1), setting),
                )
            if not write and connection.exec_driver_sql(_POWERS).scalar():
                self._drop_powers(connection)
            yield connection
            if write:
                connection.commit()

    def _drop_powers(self, connection: sa.Connection) -> None:
        try:
            connection.exec_driver_sql("SET LOCAL ROLE pg_read_all_data")
        except exc.DBAPIError as error:
            raise ToolError(
                "The database role may reach the server's files, so it is not used. The tool needs "
                "a role that may only read tables."
            ) from error

    def check(self, connection: sa.Connection, statement: str, *, write: bool) -> None:
        """Refuse functions that reach out of the database, and statements that are no changes.

        Every word counts, also in a text or a comment: so no quoting hides a name.
        """
        lower = statement.lower()
        words = re.findall(r"[^\W\d][\w$]*", lower)
        closed = next(filter(_CLOSED.fullmatch, words), None)
        harmless = [*_HARMLESS, *(_SEQUENCES if write else [])]
        known = {"words": words, "harmless": harmless, "sizes": f"^({_SIZES})$"}
        if "u&" in lower:
            closed = "U&"
        if closed := closed or connection.execute(_VOLATILE, known).scalar():
            raise ToolError(
                f"{closed} may not be used here: it reaches beyond the tables of the database."
            )
        while comment := _COMMENT.match(lower):
            lower = lower[comment.end() :]
        if not write and not _QUERY.match(lower):
            raise ToolError("Only one SELECT can be run: this tool reads.")
        if write and not _CHANGES.match(lower):
            raise ToolError(
                "Only one INSERT, UPDATE, DELETE, MERGE or TRUNCATE, or CREATE, ALTER or DROP "
                "of a table, index, view or sequence can be executed."
            )

    def run(
        self, connection: sa.Connection, statement: str, parameters: Mapping[str, Any]
    ) -> sa.CursorResult[Any]:
        """Run a statement with its parameters bound, and typed by the server."""
        if not parameters:
            return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        # Colons that begin no parameter stay as they are, and `:day::date` is one.
        statement = re.sub(
            r"(?<![:\w\\]):(\w+)(::)?",
            lambda m: f":{m[1]} {m[2] or ''}" if m[1] in parameters else f"\\:{m[1]}{m[2] or ''}",
            statement,
        )
        # Without a type of ours, so that a text fits a date.
        bound = [
            sa.bindparam(name, value, sa.types.NullType()) for name, value in parameters.items()
        ]
        return connection.execute(sa.text(statement).bindparams(*bound))

    def tables(self, connection: sa.Connection) -> list[tuple[str, str, list[str]]]:
        """Return name, kind and columns of each table and view that may be read."""
        tables: dict[tuple[str, str], list[str]] = {}
        for name, kind, column, of_type, required, key, other in connection.exec_driver_sql(
            _TABLES
        ):
            columns = tables.setdefault((name, kind), [])
            columns.append(_column(column, of_type, required, key, other or ""))
        return [(name, kind, columns) for (name, kind), columns in tables.items()]

    def timed_out(self, error: BaseException | None) -> bool:
        """Tell whether the server ended the statement."""
        return getattr(error, "sqlstate", "") in ("57014", "55P03", "57P05")


def _column(name: str, kind: str, required: bool, key: bool, other: str) -> str:
    marks = [kind.lower(), "primary key" if key else "not null" if required else ""]
    return " ".join([name, *filter(None, marks), *([f"-> {other}"] if other else [])])
