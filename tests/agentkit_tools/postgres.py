"""A PostgreSQL server of its own, on a Unix socket in a folder of its own."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SETUP = """
CREATE TABLE customer (id int PRIMARY KEY, name text NOT NULL, since date);
CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customer, total numeric(10, 2));
INSERT INTO customer VALUES (1, 'Ada', '2026-01-31'), (2, 'Bob', NULL);
INSERT INTO orders VALUES (1, 1, 9.50);
CREATE SEQUENCE numbers;
CREATE FUNCTION add_one(n int) RETURNS int LANGUAGE sql AS 'SELECT n + 1';
CREATE FUNCTION wipe() RETURNS int LANGUAGE sql AS 'DELETE FROM orders; SELECT 1';
CREATE ROLE reader LOGIN;
GRANT SELECT ON customer TO reader;
CREATE ROLE locked LOGIN PASSWORD 'right';
"""


def programs() -> Path | None:
    """Return the folder of the newest server that is installed."""
    found = [shutil.which("initdb"), *sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))]
    folders = [Path(path).resolve().parent for path in found if path]
    return folders[-1] if folders else None


def user() -> str | None:
    """Return whom the server runs as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Start a server and return the end of its addresses, `/postgres?host=…`."""
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed")
    home = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # sockets have short paths
    options: dict[str, Any] = {"cwd": home, "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}}
    if owner := user():
        shutil.chown(home, owner)
        options |= {"user": owner, "group": pwd.getpwnam(owner).pw_gid, "extra_groups": []}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, **options}
    data = home / "data"
    setup = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run([folder / "initdb", "-D", data, *setup], check=True, **quiet)
    (data / "pg_hba.conf").write_text("local all locked scram-sha-256\nlocal all all trust\n")
    command = [folder / "postgres", "-D", data, "-k", home, "-h", "", "-F"]
    server = subprocess.Popen(command, **quiet)
    try:
        ready = [folder / "pg_isready", "-q", "-h", home]
        while subprocess.run(ready, check=False).returncode:
            assert server.poll() is None, "the server has ended"
            time.sleep(0.05)
        psql = [folder / "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-h", home, "-U", "postgres"]
        subprocess.run([*psql, "-c", SETUP], check=True, **quiet)
        yield f"/postgres?host={home}"
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(home)
