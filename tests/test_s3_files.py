"""Objects of a bucket: which version is fetched, where it goes on, and that it is whole."""

import contextlib
import gzip
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from peers import Peer, Seen, response, self_signed, serving

from tap_analytics_exports.errors import Busy, ExportFailed, JobGone, TapError, Unreachable
from tap_analytics_exports.transport import download as files
from tap_analytics_exports.transport.download import RemoteFile, download
from tap_analytics_exports.transport.file_settings import FileSettings
from tap_analytics_exports.transport.files import FileStore, file_store
from tap_analytics_exports.transport.network import Network

FILE = b"".join(b"%d,row\n" % n for n in range(200))


class Bucket:
    """What S3 answers for one object.

    Attributes:
        cuts: After how many bytes the next transfers break off.
        matches: Whether If-Match is known.
        refusals: How many requests are answered with 503 first.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.cuts: list[int] = []
        self.matches = True
        self.refusals = 0

    @property
    def tag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()}"'

    def __call__(self, seen: Seen) -> Iterator[bytes]:
        if self.refusals:
            self.refusals -= 1
            yield response(503, b"<Error><Code>SlowDown</Code></Error>")
        elif self.matches and seen.headers.get("If-Match", self.tag) != self.tag:
            yield response(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        elif seen.method == "HEAD":
            yield response(200, self.content, f"ETag: {self.tag}")[: -len(self.content)]
        else:
            yield self._part(re.fullmatch(r"bytes=(\d+)-", seen.headers.get("Range", "")))

    def _part(self, wanted: re.Match[str] | None) -> bytes:
        first, size = int(wanted[1]) if wanted else 0, len(self.content)
        headers = [f"ETag: {self.tag}"]
        if wanted:
            headers.append(f"Content-Range: bytes {first}-{size - 1}/{size}")
        whole = response(206 if wanted else 200, self.content[first:], *headers)
        cut = self.cuts.pop(0) if self.cuts else size
        return whole[: len(whole) - (size - first) + cut]


@pytest.fixture
def bucket() -> Bucket:
    return Bucket(FILE)


@pytest.fixture
def peer(bucket: Bucket) -> Iterator[Peer]:
    with serving() as start:
        yield start(bucket)


@pytest.fixture
def reach(monkeypatch) -> Iterator[Callable[..., FileStore]]:
    """Makes the bucket at an address the one that is fetched from."""
    stores = contextlib.ExitStack()

    def reach(origin: str, **how: Network) -> FileStore:
        environment = {
            "AWS_ENDPOINT_URL": origin,
            "AWS_ACCESS_KEY_ID": "AKIAINVENTED",
            "AWS_SECRET_ACCESS_KEY": "invented-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
        }
        for name, text in environment.items():
            monkeypatch.setenv(name, text)
        settings = FileSettings(base_url="", files_url="s3://acme/base")
        store = file_store("vendor", settings, how.get("network"))
        stores.callback(store.close)
        return store

    with stores:
        yield reach


@pytest.fixture
def remote(peer: Peer, reach) -> RemoteFile:
    (remote,) = reach(peer.origin).files(["f.csv"])
    return remote


def gets(peer: Peer) -> list[tuple[str | None, str | None]]:
    return [(seen.headers["If-Match"], seen.headers["Range"]) for seen in peer.seen if seen.method == "GET"]


def test_the_version_that_was_seen_first_is_asked_for(remote, peer, bucket, tmp_path):
    assert download(remote, tmp_path / "f").path.read_bytes() == FILE
    assert gets(peer) == [(bucket.tag, None)]


def test_a_transfer_goes_on_where_it_broke_off(remote, peer, bucket, tmp_path):
    bucket.cuts = [300, 500]
    assert download(remote, tmp_path / "f").path.read_bytes() == FILE
    assert gets(peer) == [(bucket.tag, None), (bucket.tag, "bytes=300-"), (bucket.tag, "bytes=800-")]


def test_a_later_run_goes_on(remote, peer, bucket, reach, tmp_path):
    bucket.cuts = [300, 0, 0, 0]
    with pytest.raises(ExportFailed, match="did not arrive whole"):
        download(remote, tmp_path / "f")
    (later,) = reach(peer.origin).files(["f.csv"])
    assert download(later, tmp_path / "f").path.read_bytes() == FILE
    assert gets(peer)[-1] == (bucket.tag, "bytes=300-")


@pytest.mark.parametrize("matches", [True, False], ids=["412", "another ETag"])
def test_an_object_that_is_another_now_begins_anew(remote, bucket, tmp_path, matches):
    bucket.cuts, bucket.matches = [300, 0, 0, 0], matches
    with pytest.raises(ExportFailed):
        download(remote, tmp_path / "f")
    assert (tmp_path / "f.part").stat().st_size == 300
    bucket.content = FILE[::-1]
    assert download(remote, tmp_path / "f").path.read_bytes() == FILE[::-1]


@pytest.mark.parametrize("content", [FILE[:40], gzip.compress(FILE[:40], mtime=0)], ids=["csv", "csv.gz"])
def test_an_object_cut_at_any_byte_is_not_accepted(remote, bucket, tmp_path, monkeypatch, content):
    monkeypatch.setattr(files, "TRIES", 1)
    bucket.content = content
    with pytest.raises(TapError):  # it is another than the one that was seen first
        download(remote, tmp_path / "f")
    for cut in range(len(content)):
        bucket.cuts = [cut, 0]  # nor does it go on
        with pytest.raises(TapError):
            download(remote, tmp_path / "f")
        assert not (tmp_path / "f").exists()
        (tmp_path / "f.version").unlink(missing_ok=True)
    bucket.cuts = []
    assert download(remote, tmp_path / "f").path.read_bytes() == content


def test_a_server_without_room_is_to_be_asked_later(remote, bucket, reach, peer, tmp_path):
    bucket.refusals = 1
    with pytest.raises(Busy, match="SlowDown"):
        download(remote, tmp_path / "f")
    bucket.refusals = 1
    with pytest.raises(Unreachable) as failure:
        reach(peer.origin).files(["f.csv"])
    assert failure.value.after
    assert not isinstance(failure.value, JobGone)


def test_a_further_authority_is_trusted(bucket, reach, tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    with serving() as start:
        peer = start(bucket, self_signed(tmp_path))
        with pytest.raises(Unreachable, match="set ca_bundle") as failure:
            reach(peer.origin).files(["f.csv"])
        assert not failure.value.sent
        network = Network(str(tmp_path / "pem"))
        (remote,) = reach(peer.origin, network=network).files(["f.csv"])
        assert download(remote, Path(tmp_path / "f")).path.read_bytes() == FILE
