"""`sql_tools`: two databases that cannot be changed, whatever a statement tries."""

from __future__ import annotations

import json
import pickle
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from agentkit_tools.sql import sql_tools

from agentkit import Agent, RunContext, Tool, ToolError
from agentkit.errors import ConfigurationError
from agentkit.testing import ScriptedModel
from tests.agentkit_tools import postgres
from tests.support import run_python, tool_texts

pytestmark = pytest.mark.anyio

Tools = dict[str, Tool[..., Any]]


def tools_of(url: str, **options: Any) -> Tools:
    return {tool.name: tool for tool in sql_tools(url, **options).tools(RunContext())}  # type: ignore[union-attr]


async def call(tools: Tools, tool: str, sql: str, /, **parameters: Any) -> dict[str, Any]:
    return await tools[tool].call(json.dumps({"sql": sql, "parameters": parameters or None}))


async def rows(tools: Tools, sql: str, /, **parameters: Any) -> list[list[Any]]:
    return (await call(tools, "sql_query", sql, **parameters))["rows"]


async def refusal(tools: Tools, sql: str, tool: str = "sql_query", /, **parameters: Any) -> str:
    with pytest.raises(ToolError) as caught:
        await call(tools, tool, sql, **parameters)
    return str(caught.value)


def content(file: Path) -> bytes:
    return file.read_bytes()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# SQLite


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A shop with a customer and an order, under a path that has to be quoted."""
    folder = tmp_path / "a ?mode=rwc&x=#%41"
    folder.mkdir()
    shop = sqlite3.connect(folder / "shop.db")
    shop.executescript(
        "CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, photo BLOB);"
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customer (id),"
        " total REAL);"
        "INSERT INTO customer VALUES (1, 'Ada', x'00ff'), (2, 'Bob', NULL);"
        "INSERT INTO orders VALUES (1, 1, 9.5);"
        "CREATE VIEW rich AS SELECT name FROM customer; CREATE VIEW broken AS SELECT * FROM gone;"
        "CREATE VIRTUAL TABLE notes USING fts5(text); INSERT INTO notes VALUES ('hello world');"
    )
    shop.close()
    return folder / "shop.db"


def url_of(file: Path) -> str:
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(file))  # type: ignore[return-value]


@pytest.fixture
def shop(file: Path) -> Tools:
    return tools_of(url_of(file), timeout=60)


async def test_schema_of_a_file(shop: Tools) -> None:
    """Tables and views with types, keys and references; a broken view spoils nothing."""
    text = await shop["sql_schema"].call("{}")
    assert "customer (table): id integer primary key, name text not null, photo blob" in text
    assert "orders (table): id integer primary key, customer integer -> customer(id)" in text
    assert "rich (view): name text" in text
    assert "broken (view): (broken" in text
    assert (await shop["sql_schema"].call('{"table": "ORDERS"}')).startswith("orders (table)")
    with pytest.raises(ToolError, match="There is no table 'nope'"):
        await shop["sql_schema"].call('{"table": "nope"}')


async def test_values_of_a_file(shop: Tools) -> None:
    """Blobs, infinity, text that is not UTF-8 and full-text search; parameters are bound."""
    assert await rows(shop, "SELECT * FROM customer;") == [
        [1, "Ada", "<2 bytes: 00ff>"],
        [2, "Bob", None],
    ]
    assert await rows(shop, "SELECT 1e999, CAST(x'61ff' AS TEXT), 9223372036854775807") == [
        ["inf", "a\ufffd", 9223372036854775807]
    ]
    assert await rows(shop, "SELECT text FROM notes WHERE notes MATCH 'hello'") == [["hello world"]]
    hostile = "x' OR 1=1; DELETE FROM customer --"
    assert await rows(shop, "SELECT * FROM customer WHERE name = :n", n=hostile) == []
    assert await rows(shop, "SELECT :a, ':b', '12:30', 5 % 3, :a LIKE 'a%'", a="ab", b=1) == [
        ["ab", ":b", "12:30", 2, 1]
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM orders",
        "INSERT INTO orders VALUES (2, 1, 1) RETURNING *",
        "DROP TABLE orders",
        "UPDATE orders SET total = 0",
        "REPLACE INTO orders VALUES (1, 1, 0)",
        "WITH x AS (SELECT 1) DELETE FROM orders",
        "SELECT 1; DELETE FROM orders",
        "SELECT 1;;DELETE FROM orders",
        "SELECT 1;\x00DELETE FROM orders",
        "/* ; */ DELETE FROM orders",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t (a)",
        "CREATE TEMP VIEW t AS SELECT 1",
        "ALTER TABLE orders ADD x",
        "CREATE TRIGGER t AFTER INSERT ON orders BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE t USING fts5(a)",
        "REINDEX",
        "ANALYZE",
        "VACUUM",
        "VACUUM INTO '{folder}/copy.db'",
        "ATTACH '{folder}/other.db' AS o",
        "ATTACH ':memory:' AS o",
        "DETACH main",
        "BEGIN",
        "BEGIN EXCLUSIVE",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT s",
        "PRAGMA writable_schema = ON",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA user_version = 9",
        "PRAGMA query_only = OFF",
        "PRAGMA database_list",
        "SELECT * FROM pragma_database_list",
        "PRAGMA temp_store_directory = '/'",
        "PRAGMA wal_checkpoint",
        "PRAGMA optimize",
        "PRAGMA foreign_keys(0)",
        "PRAGMA hard_heap_limit = 1",
        "PRAGMA trusted_schema = ON",
        "SELECT load_extension('x')",
        "SELECT writefile('{folder}/x', 'x')",
        "SELECT readfile('/etc/passwd')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT edit('x')",
        "INSERT INTO notes(notes) VALUES ('rebuild')",
        "UPDATE sqlite_master SET sql = ''",
        "DELETE FROM sqlite_master",
        "SELECT 'aaaa' REGEXP '(a+)+$'",
        "EXPLAIN; DELETE FROM orders",
    ],
)
async def test_a_file_is_not_changed(file: Path, shop: Tools, sql: str) -> None:
    """Whatever the statement, the file stays as it is and no other appears; no path is told."""
    before = content(file)
    text = await refusal(shop, sql.format(folder=file.parent))
    assert content(file) == before
    assert names_in(file.parent) == ["shop.db"]
    assert str(file.parent) not in text
    assert "sqlalche" not in text


async def test_statements_of_a_file_end(file: Path, shop: Tools) -> None:
    """A query without end, a huge value, row or pattern is stopped in time."""
    began, hasty = time.monotonic(), tools_of(url_of(file), timeout=1)
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT "
    for tail in ("count(*) FROM n", "i FROM n WHERE i < 0", "i FROM n ORDER BY random()"):
        assert await refusal(hasty, numbers + tail) == (
            "The statement took longer than 1 s and was ended."
        )
    assert time.monotonic() - began < 60
    assert "printf" in await refusal(shop, "SELECT printf('%.*c', 2000000000, 'x')")
    assert "format" in await refusal(shop, "SELECT format('%.*c', 2000000000, 'x')")
    assert "too big" in await refusal(shop, "SELECT hex(zeroblob(500000000))")
    wide = f"SELECT {', '.join(['zeroblob(5000000)'] * 500)}"
    assert "too many columns" in await refusal(shop, wide)
    assert "LIKE" in await refusal(shop, f"SELECT 'a' LIKE '{'%a' * 2000}'")
    assert "allowed" in await refusal(shop, f"SELECT '{'x' * 100_000}'")
    assert "refused it" in await refusal(shop, f"SELECT {'(' * 5000}1{')' * 5000}")


async def test_results_have_a_size(file: Path) -> None:
    """Rows, bytes and single values are cut, and the model reads that they were."""
    tools = tools_of(url_of(file), max_rows=3, max_bytes=1000)
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50) SELECT "
    assert await call(tools, "sql_query", many + "i FROM n") == {
        "columns": ["i"],
        "rows": [[1], [2], [3]],
        "note": "There are more rows than these 3: narrow the query, or count.",
    }
    assert "note" not in await call(tools, "sql_query", many + "i FROM n LIMIT 3")
    wide = await call(tools, "sql_query", many + "hex(zeroblob(300)) FROM n")
    assert len(wide["rows"]) == 1
    ((value,),) = await rows(tools, "SELECT hex(zeroblob(100000))")
    assert value.endswith("… (200,000 characters)")
    assert len(value) < 1100


async def test_errors_explain(shop: Tools) -> None:
    """Mistakes of the model are explained in the engine's words, parameters in ours."""
    assert await refusal(shop, "SELECT nope FROM orders") == (
        "The database refused it: no such column: nope"
    )
    assert "syntax error" in await refusal(shop, "SELEC")
    assert "only reads" in await refusal(shop, " -- nothing")
    assert "for binding parameter :b" in await refusal(shop, "SELECT :a, :b", a=1)
    assert "OverflowError" in await refusal(shop, "SELECT :a", a=2**70)


async def test_a_file_that_is_none(tmp_path: Path) -> None:
    """A missing file is not made, and neither its path nor what it holds is told."""
    missing = tools_of(f"sqlite:///{tmp_path}/secret.db")
    assert await refusal(missing, "SELECT 1") == "The database cannot be opened."
    assert names_in(tmp_path) == []
    await anyio.Path(tmp_path / "text").write_text("not a database, " * 100)
    text = await refusal(tools_of(f"sqlite:///{tmp_path}/text"), "SELECT * FROM t")
    assert str(tmp_path) not in text
    assert text == "The database cannot be opened."


async def test_writing_to_a_file(file: Path) -> None:
    """`write=True` adds a tool for rows and tables; the other stays read-only."""
    tools = tools_of(url_of(file), write=True)
    insert = "INSERT INTO customer (name) VALUES (:name) RETURNING id"
    assert (await call(tools, "sql_execute", insert, name="Cy"))["rows"] == [[3]]
    many = (
        "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 509) "
        "INSERT INTO customer (id, name) SELECT i, 'x' FROM n RETURNING id"
    )
    assert len((await call(tools, "sql_execute", many))["rows"]) == 100
    changed = await call(tools, "sql_execute", "DELETE FROM customer WHERE id >= 10")
    assert changed == {"changed_rows": 500}
    await call(tools, "sql_execute", "CREATE TABLE t (a)")
    assert await rows(tools, "SELECT count(*) FROM customer") == [[3]]
    assert "not allowed" in await refusal(tools, "DELETE FROM customer")
    for sql in (
        "ATTACH 'x.db' AS x",
        "PRAGMA writable_schema = ON",
        "VACUUM INTO 'x.db'",
        "BEGIN",
        "SELECT load_extension('x')",
        "CREATE VIRTUAL TABLE v USING csv(filename='/etc/passwd')",
        "INSERT INTO sqlite_master VALUES (1, 1, 1, 1, 1)",
        "DELETE FROM t; DROP TABLE orders",
    ):
        assert "refused it" in await refusal(tools, sql, "sql_execute")
    new = tools_of(url_of(file.parent / "new.db"), write=True)
    await call(new, "sql_execute", "CREATE TABLE t (a)")
    assert (await new["sql_schema"].call("{}")).startswith("t (table): a")


async def test_what_a_model_sees(file: Path) -> None:
    """The engine is named; reads are reads; writes need approval; nothing warns."""
    tools = tools_of(url_of(file), write=True)
    assert [*tools] == ["sql_schema", "sql_query", "sql_execute"]
    assert [*tools_of(url_of(file))] == ["sql_schema", "sql_query"]
    assert "SQLite database" in tools["sql_query"].description
    assert [tool.effect for tool in tools.values()] == ["read", "read", "write"]
    assert [tool.approval for tool in tools.values()] == [False, False, True]
    assert [tool.warnings for tool in tools.values()] == [(), (), ()]
    again = pickle.loads(pickle.dumps(tools["sql_query"]))
    assert await rows({"sql_query": again}, "SELECT 1") == [[1]]


async def test_an_agent_reads(file: Path) -> None:
    """A run ends with the rows as JSON."""
    question = ("sql_query", {"sql": "SELECT name FROM customer ORDER BY id", "parameters": None})
    agent = Agent(ScriptedModel([[question], "Ada and Bob."]), tools=[sql_tools(url_of(file))])
    assert tool_texts(await agent.run("Who?")) == ['{"columns":["name"],"rows":[["Ada"],["Bob"]]}']


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///x.db?mode=rwc",
        "sqlite:///file:x.db?mode=rwc&uri=true",
        "mysql://u:secret@h/d",
        "sqlite+aiosqlite:///x.db",
        "postgresql+asyncpg://u:secret@h/d",
        "oracle://u:secret@h",
        "postgresql://u:secret@h:x/d",
    ],
)
async def test_addresses_that_are_not_supported(url: str) -> None:
    """The developer reads what to write, at once and without the password."""
    with pytest.raises(ConfigurationError, match="Write '") as caught:
        sql_tools(url)
    assert "secret" not in str(caught.value)


async def test_wrong_options_are_refused() -> None:
    """Bounds that are none, and a call without a database."""
    with pytest.raises(ConfigurationError, match="max_rows=0 has to be a number above 0"):
        sql_tools("sqlite:///x.db", max_rows=0)
    with pytest.raises(TypeError):
        sql_tools()  # type: ignore[call-arg]


def test_the_extra_is_named() -> None:
    """Without SQLAlchemy the developer reads which extra has it."""
    code = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "from agentkit_tools.sql import sql_tools\n"
        "try: sql_tools('sqlite:///x.db')\n"
        "except Exception as error: print(error)"
    )
    assert 'pip install "agentkit-replay[tools]"' in run_python("-c", code).stdout


# PostgreSQL


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres.serving() as address:
        yield address


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that the server's user could write to."""
    for folder in (tmp_path, tmp_path.parent):
        folder.chmod(0o777)
    return tmp_path


@pytest.fixture
def admin(server: str) -> Tools:
    """The tools of a superuser: what he could do is the most that there is to refuse."""
    return tools_of(f"postgresql://postgres@{server}", timeout=60, write=True)


@pytest.fixture
def reader(server: str) -> Tools:
    return tools_of(f"postgresql://reader@{server}", timeout=60)


async def test_schema_of_a_server(admin: Tools, reader: Tools) -> None:
    """What the role may read, with types, keys and references."""
    text = await admin["sql_schema"].call("{}")
    assert "customer (table): id integer primary key, name text not null, since date" in text
    assert "customer integer -> customer(id), total numeric(10,2)" in text
    assert "orders" not in await reader["sql_schema"].call("{}")
    assert "PostgreSQL database" in admin["sql_schema"].description


async def test_values_of_a_server(admin: Tools) -> None:
    """Every type has a form; parameters are bound and fit their columns."""
    assert await rows(
        admin,
        r"SELECT 'NaN'::float8, 1.50::numeric, '\x00ff'::bytea, interval '1 day', array[1, 2], "
        """'{"a": 1}'::jsonb, '[1,3)'::int4range, '1.2.3.4'::inet, time '12:30', point(1, 2)""",
    ) == [
        [
            "nan",
            "1.50",
            "<2 bytes: 00ff>",
            "1 day, 0:00:00",
            [1, 2],
            {"a": 1},
            "[1, 3)",
            "1.2.3.4",
            "12:30:00",
            "(1,2)",
        ]
    ]
    dated = "SELECT name FROM customer WHERE since = :day AND name LIKE 'A%' -- end"
    assert await rows(admin, dated, day="2026-01-31") == [["Ada"]]
    assert await rows(admin, "SELECT name FROM customer WHERE since > :day::date", day="1-1-1") == [
        ["Ada"]
    ]
    hostile = "x'; DELETE FROM customer --"
    assert await rows(admin, "SELECT 1 FROM customer WHERE name = :n", n=hostile) == []
    assert await rows(admin, "SELECT add_one(1), random() < 2") == [[2, True]]
    assert "infinity" in await refusal(admin, "SELECT 'infinity'::timestamp")
    assert "invalid input syntax" in await refusal(admin, "SELECT 1 WHERE 1 = :a", a="x")
    assert "each :name" in await refusal(admin, "SELECT 1", a=1)
    assert await rows(admin, "SELECT :a, ':b', 'x:a', '12:30', 5 % 3", a="x") == [
        ["x", ":b", "x:a", "12:30", 2]
    ]
    assert len(await rows(admin, f"SELECT {', '.join('1' * 100)}")) == 1
    assert "101 columns" in await refusal(admin, f"SELECT {', '.join('1' * 101)}")


ATTACKS = [
    "DELETE FROM orders",
    "SELECT 1; DELETE FROM orders",
    "SELECT 1; COMMIT; DELETE FROM orders",
    "WITH x AS (DELETE FROM orders RETURNING *) SELECT * FROM x",
    "SELECT wipe()",
    "SELECT 1 FROM customer FOR UPDATE",
    "SELECT * INTO t FROM customer",
    "CREATE TEMP TABLE t (a int)",
    "EXPLAIN ANALYZE DELETE FROM orders",
    "COMMIT",
    "ROLLBACK",
    "SET TRANSACTION READ WRITE",
    "SET default_transaction_read_only = off",
    "RESET ROLE",
    "SHOW data_directory",
    "LOCK customer",
    "DO $$ BEGIN DELETE FROM orders; END $$",
    "CALL wipe()",
    "LISTEN x",
    "NOTIFY x",
    "LOAD 'x'",
    "COPY customer TO PROGRAM 'touch {folder}/x'",
    "COPY customer FROM '/etc/passwd'",
    "COPY (SELECT 1) TO '{folder}/x'",
    "PREPARE p AS DELETE FROM orders",
    "VACUUM",
    "CHECKPOINT",
    "DECLARE c CURSOR FOR SELECT 1",
    "select set_config('transaction_read_only', 'off', false)",
    "SELECT set_config('role', 'none', false)",
    "SELECT set_config('statement_timeout', '0', false)",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_read_binary_file('/etc/passwd')",
    "SELECT \"pg_read_file\"('/etc/passwd')",
    "SELECT pg_catalog . pg_read_file ('/etc/passwd')",
    "SELECT PG_READ_FILE/**/('/etc/passwd')",
    "SELECT pg_read_file--\n('/etc/passwd')",
    r'SELECT U&"pg\005fread_file"(' "'/etc/passwd')",
    r"SELECT u&'\0041'",
    "SELECT * FROM pg_ls_dir('/')",
    "SELECT pg_stat_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_create(0)",
    "SELECT lo_export(1, '{folder}/x')",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT lo_unlink(1)",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_lock(1)",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT pg_sleep(9)",
    "SELECT pg_terminate_backend(1)",
    "SELECT pg_cancel_backend(1)",
    "SELECT pg_reload_conf()",
    "SELECT pg_rotate_logfile()",
    "SELECT pg_switch_wal()",
    "SELECT pg_notify('a', 'b')",
    "SELECT pg_logical_emit_message(false, 'a', 'b')",
    "SELECT pg_create_physical_replication_slot('x')",
    "SELECT nextval('numbers')",
    "SELECT setval('numbers', 5)",
    "SELECT query_to_xml('DELETE FROM orders', true, true, '')",
    "SELECT table_to_xml(('pg_' || 'authid')::regclass, true, true, '')",
    "SELECT schema_to_xml('pg_catalog', true, true, '')",
    "SELECT * FROM ts_stat('SELECT 1')",
    "SELECT rolpassword FROM pg_authid",
    "SELECT * FROM pg_shadow",
    'SELECT * FROM "pg_shadow"',
    "SELECT * FROM pg_file_settings",
    "SELECT * FROM pg_hba_file_rules",
    "TABLE pg_authid",
    "SELECT current_setting('data_directory')",
    "",
]


async def test_a_server_is_not_changed(admin: Tools, reader: Tools, open_folder: Path) -> None:
    """Not by a superuser: no row, no file, no lock, no setting, no other session."""
    for sql in ATTACKS:
        for tools in (admin, reader):
            text = await refusal(tools, sql.format(folder=open_folder))
            assert "root:" not in text, sql
            assert "/pg" not in text, sql
    assert names_in(open_folder) == []
    assert await rows(admin, "SELECT count(*) FROM orders") == [[1]]
    assert await rows(admin, "SELECT last_value, is_called FROM numbers") == [[1, False]]
    assert await rows(admin, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [[0]]


async def test_a_superuser_reads_as_a_reader(admin: Tools) -> None:
    """His powers are dropped for a query, so what slips through has none."""
    (names,) = await rows(admin, "SELECT current_user, current_setting('transaction_read_only')")
    assert names == ["pg_read_all_data", "on"]


async def test_statements_of_a_server_end(server: str, admin: Tools) -> None:
    """In the engine, and over all rows together; a huge value is cut."""
    began, hasty = time.monotonic(), tools_of(f"postgresql://postgres@{server}", timeout=1)
    too_long = "The statement took longer than 1 s and was ended."
    assert await refusal(hasty, "SELECT count(*) FROM generate_series(1, 1e10)") == too_long
    slow = "SELECT (SELECT count(*) + i FROM generate_series(1, 1e6)) FROM generate_series(1, 99) i"
    assert await refusal(hasty, slow) == too_long
    assert time.monotonic() - began < 60
    result = await call(admin, "sql_query", "SELECT i FROM generate_series(1, 1000000) i")
    assert len(result["rows"]) == 100
    ((value,),) = await rows(admin, "SELECT repeat('x', 1000000)")
    assert len(value) < 2100
    left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'agentkit'"
    assert await rows(admin, left) == [[1]]


async def test_writing_to_a_server(admin: Tools, open_folder: Path) -> None:
    """One change of rows or tables, committed; nothing that reaches beyond them."""
    execute = "INSERT INTO customer VALUES (:id, :name) RETURNING name"
    assert (await call(admin, "sql_execute", execute, id=3, name="Cy"))["rows"] == [["Cy"]]
    assert await call(admin, "sql_execute", "-- a\n/* b */ DELETE FROM customer WHERE id = 3") == {
        "changed_rows": 1
    }
    await call(admin, "sql_execute", "CREATE TABLE t (a int DEFAULT nextval('numbers'))")
    await call(admin, "sql_execute", "DROP TABLE t")
    for sql in (
        "COPY customer TO PROGRAM 'touch {folder}/x'",
        "/* INSERT */ COPY customer TO '{folder}/x'",
        "INSERT INTO customer VALUES (9, 'x'); DROP TABLE orders",
        "DO $$ BEGIN END $$",
        "CREATE ROLE x SUPERUSER",
        "ALTER SYSTEM SET fsync = off",
        "CREATE EXTENSION dblink",
        "ALTER ROLE reader SUPERUSER",
        "SET ROLE postgres",
        "GRANT ALL ON orders TO reader",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TABLESPACE x LOCATION '/'",
        "INSERT INTO customer SELECT 9, pg_read_file('/etc/passwd')",
        "COMMIT",
        "VACUUM",
        "LOAD 'x'",
        "INSERT INTO customer SELECT 9, lo_export(1, '{folder}/x')::text",
        "CREATE DATABASE x",
        "",
        "WITH x AS (SELECT pg_sleep(9)) DELETE FROM orders",
        "DELETE FROM nope",
    ):
        await refusal(admin, sql.format(folder=open_folder), "sql_execute")
    assert names_in(open_folder) == []
    assert await rows(admin, "SELECT count(*) FROM customer") == [[2]]
    assert await rows(admin, "SELECT count(*) FROM orders") == [[1]]


async def test_a_server_that_is_not_there(server: str) -> None:
    """Neither host, role nor password is told."""
    for url in (f"postgresql://locked:wrong@{server}", "postgresql:///x?host=/nowhere/secret"):
        tools = tools_of(url)
        assert await refusal(tools, "SELECT 1") == "The database cannot be opened."
        assert "secret" not in repr(tools)
    right = tools_of(f"postgresql://locked:right@{server}")
    assert await rows(right, "SELECT 1") == [[1]]
    assert "right" not in repr(right) + repr(sql_tools(f"postgresql://locked:right@{server}"))
    assert "permission denied" in await refusal(right, "SELECT * FROM orders")
    assert await rows({"sql_query": pickle.loads(pickle.dumps(right["sql_query"]))}, "SELECT 1")
