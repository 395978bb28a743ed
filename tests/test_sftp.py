"""IntelePeer's results on a real OpenSSH server: who it is, who is let in, and that files arrive whole."""

import getpass
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import Sandbox, run_tap, start_tap

from tap_analytics_exports.errors import Refused, Unreachable
from tap_analytics_exports.transport import sftp
from tap_analytics_exports.transport.download import Wanted, download
from tap_analytics_exports.transport.file_settings import FileSettings
from tap_analytics_exports.transport.files import FileStore, file_store

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
START = TODAY - timedelta(days=1)
USER = getpass.getuser()
SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


class Server:
    """An sshd of our own, which lets this user in with a key."""

    def __init__(self, folder: Path, *options: str) -> None:
        sshd = shutil.which("sshd", path=SBIN)
        if sshd is None:
            absent = "there is no sshd; install openssh-server"
            pytest.fail(absent) if os.environ.get("REQUIRE_SERVERS") else pytest.skip(absent)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself in
        self.folder = folder
        self.log = folder / "log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.keys = {}
        for kind in ("ed25519", "ecdsa", "rsa"):
            keygen("-t", kind, "-f", folder / f"host_{kind}")
            self.keys[kind] = " ".join((folder / f"host_{kind}.pub").read_text().split()[:2])
        keygen("-t", "ed25519", "-f", folder / "client")
        shutil.copy(folder / "client.pub", folder / "authorized")
        lines = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            *(f"HostKey {folder}/host_{kind}" for kind in self.keys),
            f"AuthorizedKeysFile {folder}/authorized",
            f"PidFile {folder}/pid",
            "StrictModes no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "Subsystem sftp internal-sftp",
            "LogLevel DEBUG1",
            *options,
        ]
        (folder / "config").write_text("\n".join(lines) + "\n")
        self.process = subprocess.Popen([sshd, "-D", "-f", folder / "config", "-E", self.log])
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def fingerprint(self, kind: str) -> str:
        return keygen("-l", "-f", self.folder / f"host_{kind}.pub").split()[1]

    def forget(self) -> None:
        """Let the client in again, and count logins from here."""
        shutil.copy(self.folder / "client.pub", self.folder / "authorized")
        self._seen = self.log.stat().st_size

    def tried_to_log_in(self) -> bool:
        return "userauth-request" in self.log.read_text()[self._seen :]

    def logins(self) -> int:
        return self.log.read_text()[self._seen :].count("Accepted publickey")

    def pause(self) -> None:
        """Stop the processes behind all open connections."""
        for pid in self._sessions():
            os.kill(pid, signal.SIGSTOP)

    def cut_all(self) -> None:
        """Kill the processes behind all open connections."""
        for pid in self._sessions():
            os.kill(pid, signal.SIGKILL)

    def _sessions(self) -> list[int]:
        """Their ids, those of their parents first."""
        found, parents = [], [self.process.pid]
        while parents:
            command = ["ps", "-o", "pid=", "--ppid", str(parents.pop())]
            below = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
            found += map(int, below)
            parents += map(int, below)
        return found

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def keygen(*arguments: object) -> str:
    options = [] if "-l" in arguments or "-H" in arguments or "-p" in arguments else ["-q", "-N", ""]
    command = ["ssh-keygen", *map(str, arguments), *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.fixture
def server(sshd: Server) -> Server:
    sshd.forget()
    return sshd


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sandbox, Path]]:
    """The services, whose results lie in a folder that they do not serve."""
    results = tmp_path_factory.mktemp("results")
    sandbox = Sandbox(tmp_path_factory.mktemp("sandbox"), "--results-dir", str(results), "--rows", "400")
    yield sandbox, results
    sandbox.stop()


@pytest.fixture
def sandbox(stores: tuple[Sandbox, Path]) -> Sandbox:
    stores[0].post("reset")
    return stores[0]


@pytest.fixture
def config(sandbox: Sandbox, stores: tuple[Sandbox, Path], server: Server) -> dict:
    """One day's calls, by the key in a file, from a server whose key is pinned."""
    settings = sandbox.config(
        "intelepeer", start_date=START.isoformat(), end_date=(START + timedelta(days=1)).isoformat()
    )
    settings["intelepeer"] |= {
        "files_url": f"sftp://{USER}@127.0.0.1:{server.port}{stores[1]}",
        "sftp_private_key_file": str(server.folder / "client"),
        "sftp_host_key": server.keys["ed25519"],
        "exports": [{"name": "calls", "event": "CallEvent"}],
    }
    return settings


@pytest.fixture
def store(server: Server, tmp_path: Path) -> Iterator[Callable[..., FileStore]]:
    """The transport alone; it serves the test's own folder."""
    stores = []

    def make(**block: str | None) -> FileStore:
        settings = {
            "files_url": f"sftp://{USER}@127.0.0.1:{server.port}{tmp_path}",
            "sftp_private_key_file": str(server.folder / "client"),
            "sftp_host_key": server.keys["ed25519"],
            **block,
        }
        stores.append(file_store("intelepeer", FileSettings(base_url="", **settings)))
        return stores[-1]

    yield make
    for each in stores:
        each.close()


def rows(sandbox: Sandbox) -> Counter[str]:
    found = sandbox.get(
        "expected",
        provider="intelepeer",
        export="CallEvent",
        start=START.isoformat(),
        end=(START + timedelta(days=1)).isoformat(),
    )
    return Counter(row["TransactionId"] for row in found)


# Who lets us in


def test_files_arrive_as_they_were_stored(sandbox, config):
    result = run_tap(config)
    assert result.exit_code == 0, result.stderr
    served = sorted(sandbox.get("served"), key=lambda one: one["file"])
    stored = b"".join(_stored(config, one["file"]).read_bytes() for one in served)
    (run,) = result.runs
    assert (run["files"], run["bytes"], run["rows"]) == (3, len(stored), 400)
    assert run["sha256"] == hashlib.sha256(stored).hexdigest()


@pytest.mark.parametrize(
    ("kind", "form"),
    [("rsa", "PEM"), ("rsa", "PKCS8"), ("rsa", "RFC4716"), ("ecdsa", "PEM"), ("ed25519", "RFC4716")],
)
def test_private_keys_of_all_formats_as_text(server, store, tmp_path, kind, form):
    key = tmp_path / "another"
    keygen("-t", kind, "-m", form, "-f", key)
    shutil.copy(key.with_suffix(".pub"), server.folder / "authorized")
    store(sftp_private_key_file=None, sftp_private_key=key.read_text()).check()


def test_a_private_key_whose_line_breaks_are_written_out(sandbox, config, server):
    del config["intelepeer"]["sftp_private_key_file"]
    text = (server.folder / "client").read_text()
    config["intelepeer"]["sftp_private_key"] = text.replace("\n", "\\n")
    result = run_tap(config)
    assert result.exit_code == 0, result.stderr
    assert text.splitlines()[2] not in result.stderr + result.stdout


def test_a_key_with_a_passphrase_is_a_mistake(sandbox, config, tmp_path):
    keygen("-t", "ed25519", "-f", tmp_path / "locked")
    keygen("-p", "-P", "", "-N", "secret", "-f", tmp_path / "locked")
    config["intelepeer"]["sftp_private_key_file"] = str(tmp_path / "locked")
    result = run_tap(config)
    assert result.exit_code == 1
    assert "intelepeer.sftp_private_key_file: is no private key that can be read" in result.stderr
    assert sandbox.get("requests") == []


def test_a_key_that_is_not_known_fails_the_exports_before_anything_is_triggered(sandbox, config, server):
    (server.folder / "authorized").write_text("")
    result = run_tap(config)
    assert (result.exit_code, result.runs) == (3, []), result.stderr
    assert f"{USER} is not let in" in result.stderr
    assert "intelepeer, stream calls, window" in result.stderr
    assert "sftp://127.0.0.1" in result.stderr
    assert result.bookmark("calls")["jobs"] == []
    assert [
        one for one in sandbox.get("requests") if one["path"].endswith("/Q") and one["method"] == "POST"
    ] == []


def test_a_job_whose_files_are_refused_is_kept(sandbox, config, server):
    sandbox.post("settings", {"job_seconds": 3})
    with start_tap(config) as process:
        while not any(
            one["method"] == "POST" and one["path"].endswith("/Q") for one in sandbox.get("requests")
        ):
            time.sleep(0.05)
        (server.folder / "authorized").write_text("")
        server.cut_all()
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    assert "the job is kept, and the next run goes on with it" in stderr
    states = [m["value"] for m in map(json.loads, stdout.splitlines()) if m["type"] == "STATE"]
    assert len(states[-1]["bookmarks"]["calls"]["jobs"]) == 1

    shutil.copy(server.folder / "client.pub", server.folder / "authorized")
    resumed = run_tap(config, state=states[-1])
    assert [(run["status"], run["resumed"]) for run in resumed.runs] == [("loaded", True)]


def test_a_server_that_takes_no_passwords_says_so(config):
    config["intelepeer"] |= {"sftp_password": "sftp-pass"}
    del config["intelepeer"]["sftp_private_key_file"]
    result = run_tap(config, "--test")
    assert result.exit_code == 1
    assert "is not let in (Bad authentication type; allowed types: ['publickey'])" in result.stdout
    assert "sftp-pass" not in result.stdout + result.stderr


# Who the server is


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_any_of_the_servers_keys_may_be_pinned(server, store, kind):
    store(sftp_host_key=server.keys[kind]).check()


def test_a_whole_line_of_known_hosts_may_be_pinned(server, store):
    store(sftp_host_key=f"[127.0.0.1]:{server.port} {server.keys['rsa']} a comment").check()


@pytest.mark.parametrize("hashed", [False, True])
def test_known_hosts(server, store, tmp_path, hashed):
    known = tmp_path / "known_hosts"
    known.write_text(
        f"# a comment\nelsewhere {server.keys['ecdsa']}\n[127.0.0.1]:{server.port} {server.keys['rsa']}\n"
    )
    if hashed:
        keygen("-H", "-f", known)
    store(sftp_host_key=None, sftp_known_hosts=str(known)).check()


def test_a_host_key_that_is_not_configured_is_refused_before_authentication(config, server):
    del config["intelepeer"]["sftp_host_key"]
    result = run_tap(config)
    assert (result.exit_code, result.runs) == (3, []), result.stderr
    assert "the host key is not configured" in result.stderr
    assert server.fingerprint("ed25519") in result.stderr
    assert f"set sftp_host_key to: {server.keys['ed25519']}" in result.stderr
    assert not server.tried_to_log_in()
    assert result.bookmark("calls")["jobs"] == []


@pytest.mark.parametrize("other", ["ed25519", "rsa"])
def test_a_host_key_that_differs_is_refused_before_authentication(config, server, tmp_path, other):
    keygen("-t", other, "-f", tmp_path / "elsewhere")
    config["intelepeer"]["sftp_host_key"] = (tmp_path / "elsewhere.pub").read_text()
    result = run_tap(config)
    assert (result.exit_code, result.runs) == (3, []), result.stderr
    assert server.fingerprint(other) in result.stderr
    assert keygen("-l", "-f", tmp_path / "elsewhere.pub").split()[1] in result.stderr
    assert not server.tried_to_log_in()


@pytest.mark.parametrize("text", ["elsewhere {key}\n", "", "[127.0.0.1]:{port} ssh-ed25519 !\n"])
def test_known_hosts_without_the_host_is_no_trust(server, store, tmp_path, text):
    known = tmp_path / "known_hosts"
    known.write_text(text.format(key=server.keys["ed25519"], port=server.port))
    with pytest.raises(Refused):
        store(sftp_host_key=None, sftp_known_hosts=str(known)).check()
    assert not server.tried_to_log_in()


# Files


def test_a_folder_that_is_not_there_is_a_mistake_and_no_reason_to_ask_again(sandbox, config):
    config["intelepeer"]["files_url"] += "/nowhere"
    result = run_tap(config)
    assert (result.exit_code, result.runs) == (3, []), result.stderr
    assert "/nowhere/; check files_url; nothing was triggered" in result.stderr
    assert "check files_url" in run_tap(config, "--test").stdout


def test_a_file_that_is_gone_means_a_new_job(sandbox, config):
    other = {"substitute": ["000000000001.csv.gz", "000000000009.csv.gz"]}
    sandbox.post("faults", [{"service": "intelepeer", "path": r"/Q/[0-9a-f]+$", "times": 2, "action": other}])
    result = run_tap(config)
    assert result.exit_code == 0, result.stderr
    assert [run["status"] for run in result.runs] == ["failed", "loaded"]
    assert "is not there any more" in result.runs[0]["error"]
    assert Counter(record["transaction_id"] for record in result.records("calls")) == rows(sandbox)


def test_a_large_file_arrives_whole_and_soon(store, tmp_path):
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        for n in range(64):
            file.write(hashlib.shake_256(bytes([n])).digest(1 << 20))
        file.write(b"and a bit")
    (remote,) = store().files(["large.bin"])
    begun = time.monotonic()
    local = download(remote, tmp_path / "arrived")
    assert time.monotonic() - begun < 30
    assert local.size == large.stat().st_size
    assert _sha256(local.path) == _sha256(large)


def test_a_connection_that_breaks_is_made_anew(server, store, tmp_path):
    (tmp_path / "file").write_bytes(os.urandom(30 << 20))
    (remote,) = store().files(["file"])
    with remote.open(Wanted()) as body:
        next(body.chunks)
        server.cut_all()
        with pytest.raises(Unreachable, match=r"sftp://127\.0\.0\.1"):
            list(body.chunks)
    assert _sha256(download(remote, tmp_path / "arrived").path) == _sha256(tmp_path / "file")


def test_a_connection_on_which_nothing_arrives_is_broken(server, store, tmp_path, monkeypatch):
    monkeypatch.setattr(sftp, "SILENCE_SECONDS", 1)
    (tmp_path / "file").write_bytes(bytes(30 << 20))
    (remote,) = store().files(["file"])
    with remote.open(Wanted()) as body:
        next(body.chunks)
        server.pause()
        begun = time.monotonic()
        with pytest.raises(Unreachable):
            list(body.chunks)
        assert time.monotonic() - begun < 5
        server.cut_all()


def test_files_that_are_fetched_at_once_share_a_connection(server, store, tmp_path):
    for n in range(4):
        (tmp_path / f"{n}").write_bytes(os.urandom(5 << 20))
    remotes = store().files([f"{n}" for n in range(4)])
    with ThreadPoolExecutor(4) as pool:
        locals_ = list(
            pool.map(lambda remote: download(remote, tmp_path / f"arrived-{remote.name}"), remotes)
        )
    for n, local in enumerate(locals_):
        assert _sha256(local.path) == _sha256(tmp_path / f"{n}")
    assert server.logins() == 1


def _stored(config: dict, path: str) -> Path:
    return Path("/" + config["intelepeer"]["files_url"].split("/", 3)[3], path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
