"""A PostgreSQL of the benchmark's own, which is gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from measure import Failed


class Database:
    """A server on a loopback port, with what it has from the factory but for fsync."""

    def __enter__(self) -> Self:
        found = shutil.which("initdb") or next(
            map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None
        )
        if found is None:
            raise Failed("PostgreSQL's initdb is not there")
        initdb = Path(found).resolve()
        # PostgreSQL refuses to run as root.
        user: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = next(one for one in pwd.getpwall() if one.pw_name in ("postgres", "nobody"))
            user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            if user:
                os.chown(folder, user["user"], user["group"])
            log = stack.enter_context(Path(folder, "log").open("w"))
            options = {"cwd": folder, "stdout": log, "stderr": log, **user}
            create = ["--pgdata=data", "--username=tap", "--auth=trust", "--encoding=UTF8", "--locale=C"]
            subprocess.run([initdb, *create, "--no-sync"], check=True, **options)
            serve = [initdb.with_name("postgres"), "-D", "data", "-p", str(port)]
            for setting in (
                "listen_addresses=127.0.0.1",
                "unix_socket_directories=",
                "fsync=off",
                "timezone=UTC",
            ):
                serve += ["-c", setting]
            server = stack.enter_context(subprocess.Popen(serve, **options))
            stack.callback(server.send_signal, signal.SIGINT)
            self.url = f"postgresql://tap@127.0.0.1:{port}/postgres"
            self.settings = {
                "host": "127.0.0.1",
                "port": port,
                "user": "tap",
                "password": "-",
                "database": "postgres",
            }
            for _ in range(100):
                try:
                    self._ask("SELECT 1")
                    break
                except OSError:
                    time.sleep(0.1)
            else:
                raise Failed("PostgreSQL does not start")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def empty(self) -> None:
        """Take away all tables."""
        for schema in ("exports", "public"):
            self._ask(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        self._ask("CREATE SCHEMA public")

    def rows(self, table: str) -> int:
        """How many a table has."""
        return int(self._ask(f"SELECT count(*) FROM {table}")[0][0])

    def _ask(self, words: str) -> list[tuple[Any, ...]]:
        """Ask the server; OSError while there is none."""
        import psycopg

        try:
            with psycopg.connect(self.url, autocommit=True) as connection:
                cursor = connection.execute(words)  # type: ignore[call-overload]
                return cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError as error:
            raise OSError(str(error)) from None
