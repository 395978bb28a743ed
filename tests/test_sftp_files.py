"""Files of an SFTP server of this process: which are fetched, in which version, and that they are whole."""

import gzip
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sftp_server import Server

from tap_analytics_exports.errors import Busy, ExportFailed, JobGone, TapError, Unreachable
from tap_analytics_exports.transport import download as files
from tap_analytics_exports.transport import sftp
from tap_analytics_exports.transport.download import Wanted, download
from tap_analytics_exports.transport.file_settings import FileSettings
from tap_analytics_exports.transport.files import FileStore, file_store

OLD = time.time() - 3600
CSV = b"a,b\n1,2\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "root" / "base").mkdir(parents=True)
    server = Server(tmp_path / "root")
    yield server
    server.close()


@pytest.fixture(autouse=True)
def one_try(request, monkeypatch):
    """Nothing is tried again, where a test is about what is not accepted."""
    if "cut" in request.node.name:
        monkeypatch.setattr(files, "TRIES", 1)


@pytest.fixture
def store(server: Server) -> Iterator[FileStore]:
    with closing(server.store()) as store:
        yield store


@pytest.fixture
def put(server: Server) -> Callable[[str, bytes], Path]:
    """Stores a file of yesterday."""

    def put(name: str, content: bytes) -> Path:
        path = server.root / "base" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (OLD, OLD))
        return path

    return put


def fetch(store: FileStore, name: str, path: Path) -> bytes:
    (remote,) = store.files([name])
    return download(remote, path).path.read_bytes()


# Which


def test_a_file_below_the_base(store, put, tmp_path):
    put("folder/f.csv", CSV)
    assert fetch(store, "folder/f.csv", tmp_path / "f") == CSV


def test_a_link_within_the_base_is_followed(store, put, tmp_path):
    put("f.csv", CSV).with_name("link.csv").symlink_to("f.csv")
    assert fetch(store, "link.csv", tmp_path / "f") == CSV


@pytest.mark.parametrize("target", ["../secret.csv", "../base-other/secret.csv"])
def test_a_link_out_of_the_base_is_not_followed(server, store, target):
    (server.root / "base-other").mkdir()
    for folder in ("", "base-other"):
        (server.root / folder / "secret.csv").write_bytes(CSV)
    (server.root / "base" / "link.csv").symlink_to(target)
    with pytest.raises(ExportFailed, match=r"link\.csv is a link out of the folder of files_url"):
        store.files(["link.csv"])


def test_a_folder_that_is_a_link_out_of_the_base_is_not_followed(server, store):
    (server.root / "other").mkdir()
    (server.root / "other" / "secret.csv").write_bytes(CSV)
    (server.root / "base" / "folder").symlink_to("../other")
    with pytest.raises(ExportFailed, match="link out of the folder"):
        store.files(["folder/secret.csv"])


def test_a_folder_is_no_file(server, store):
    (server.root / "base" / "folder").mkdir()
    with pytest.raises(ExportFailed, match="folder is no file"):
        store.files(["folder"])


def test_what_is_not_there_is_gone(store):
    with pytest.raises(JobGone):
        store.files(["f.csv"])


# Whole


@pytest.mark.parametrize(
    "content",
    [CSV, gzip.compress(CSV), gzip.compress(b"a\n") + gzip.compress(b"1\n")],
    ids=["csv", "csv.gz", "csv.gz of two members"],
)
def test_a_file_cut_at_any_byte_is_not_accepted(server, store, put, tmp_path, content):
    put("f", content)
    (remote,) = store.files(["f"])
    for server.short in range(len(content)):
        with pytest.raises(TapError):
            download(remote, tmp_path / "f")
    server.short = None
    assert fetch(store, "f", tmp_path / "f") == content


def test_a_transfer_goes_on_where_it_broke_off(server, store, put, tmp_path):
    content = random.Random(1).randbytes(20 << 20)
    put("f", content)
    server.cuts = [5 << 20, 9 << 20, 3 << 20]
    assert fetch(store, "f", tmp_path / "f") == content
    assert server.read < len(content) + (8 << 20)  # what was asked for ahead at each break


def test_a_later_run_goes_on(server, store, put, tmp_path):
    put("f", CSV)
    (tmp_path / "f.part").write_bytes(CSV[:3])
    (remote,) = store.files(["f"])
    with remote.open(Wanted()) as body:
        (tmp_path / "f.version").write_text(body.version)
    assert download(remote, tmp_path / "f").path.read_bytes() == CSV
    assert server.read == len(CSV) - 3


def test_a_file_that_is_another_now_begins_anew(server, store, put, tmp_path):
    path = put("f", CSV)
    (tmp_path / "f.part").write_bytes(b"x,y")
    (tmp_path / "f.version").write_text(f"{len(CSV)} {int(path.stat().st_mtime) - 1}")
    assert fetch(store, "f", tmp_path / "f") == CSV


def test_a_file_that_grows_while_it_is_read_is_to_be_fetched_later(store, put, tmp_path):
    path = put("f", CSV * 1000)
    (remote,) = store.files(["f"])
    with remote.open(Wanted()) as body:
        next(body.chunks)
        with path.open("ab") as file:
            file.write(CSV)
        with pytest.raises(Unreachable, match="still being written") as failure:
            list(body.chunks)
    assert failure.value.after
    os.utime(path, (OLD, OLD))
    assert fetch(store, "f", tmp_path / "f") == CSV * 1001


def test_a_file_that_was_just_written_to_is_watched(store, put, tmp_path, monkeypatch):
    monkeypatch.setattr(sftp, "_WATCH", 0.3)
    path = put("f", CSV)
    os.utime(path)

    def grow() -> None:
        with path.open("ab") as file:
            file.write(CSV)

    (remote,) = store.files(["f"])
    threading.Timer(0.15, grow).start()
    with pytest.raises(Busy, match="still being written"):
        download(remote, tmp_path / "f")
    assert download(remote, tmp_path / "f").path.read_bytes() == CSV * 2


# When nobody lets us in


def test_a_server_that_hangs_up_at_once_is_to_be_asked_later():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def hang_up() -> None:
            listening.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        settings = FileSettings(
            base_url="", files_url=f"sftp://acme@127.0.0.1:{port}/base", sftp_password="invented"
        )
        with pytest.raises(Unreachable, match="hangs up") as failure:
            file_store("vendor", settings).files(["f"])
    assert failure.value.after
    assert not failure.value.sent


@pytest.mark.parametrize(
    ("address", "words"),
    [("127.0.0.1:1", "connection refused; check files_url"), ("nobody.invalid", "name is not known")],
)
def test_a_server_that_is_not_there_is_called_so(address, words):
    settings = FileSettings(base_url="", files_url=f"sftp://acme@{address}/base", sftp_password="invented")
    with pytest.raises(Unreachable, match=words) as failure:
        file_store("vendor", settings).check()
    assert not failure.value.sent
    assert failure.value.after is None
