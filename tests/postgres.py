"""A PostgreSQL server of a test's own."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from programs import program


@contextmanager
def server() -> Iterator[int]:
    """Run one on a loopback port, which is given; its user is `tap`, whom it trusts."""
    initdb = Path(shutil.which("initdb") or program("/usr/lib/postgresql/*/bin/initdb")).resolve()
    # PostgreSQL refuses to run as root, and another user can't enter pytest's folders.
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        account = next(one for one in pwd.getpwall() if one.pw_name in ("postgres", "nobody"))
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w+") as log:
        if user:
            os.chown(folder, user["user"], user["group"])
        options = {"cwd": folder, "stdout": log, "stderr": log, **user}
        create = [initdb, "--pgdata=data", "--username=tap", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        subprocess.run([*create, "--no-sync"], check=True, **options)
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "timezone=UTC"]
        serve = [initdb.with_name("postgres"), "-D", "data", "-p", str(port)]
        serve += [part for setting in settings for part in ("-c", setting)]
        ready = [initdb.with_name("pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={port}"]
        with subprocess.Popen(serve, **options) as running:
            try:
                for _ in range(100):
                    assert running.poll() is None, Path(folder, "log").read_text()
                    if subprocess.run(ready, check=False, cwd=folder).returncode == 0:
                        break
                    time.sleep(0.1)
                yield port
            finally:
                running.send_signal(signal.SIGINT)
