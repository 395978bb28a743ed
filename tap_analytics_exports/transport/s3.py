"""Files in an S3 bucket."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any
from urllib.parse import urlsplit

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from tap_analytics_exports.errors import FilesRefused, JobGone, TapError, Unreachable
from tap_analytics_exports.transport.download import Body, RemoteFile, Wanted
from tap_analytics_exports.transport.file_settings import FileSettings
from tap_analytics_exports.transport.http import CONNECT_SECONDS, SILENCE_SECONDS
from tap_analytics_exports.transport.network import Network

_CHUNK = 1 << 17
_PAUSE = 5.0
"""Seconds after which a server that has no room for us is asked again."""

_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)")


class _Changed(Unreachable):
    """An object is another than the one that was seen first."""


@dataclass(slots=True)
class _Object:
    """An object, and the ETag of the version that is fetched."""

    key: str
    tag: str


class S3Client:
    """A client of S3, by the usual AWS environment, and the authorities that it trusts.

    Args:
        network: What holds for all connections.
    """

    def __init__(self, network: Network) -> None:
        import boto3  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]

        self._bundle = None if network.ca_bundle is None else _authorities(network.ca_bundle)
        config = Config(connect_timeout=CONNECT_SECONDS, read_timeout=SILENCE_SECONDS)
        self.s3: Any = boto3.client("s3", config=config, verify=self._bundle and self._bundle.name)

    def close(self) -> None:
        """Remove what was made for the connections."""
        if self._bundle is not None:
            self._bundle.close()


def _authorities(ca_bundle: str) -> IO[bytes]:
    """A file of all authorities that are trusted, as boto3 takes no two; it is there until it is closed."""
    bundle = NamedTemporaryFile(suffix=".pem")  # noqa: SIM115
    bundle.write(
        Path(DEFAULT_CA_BUNDLE_PATH).read_bytes() + b"\n" + Path(ca_bundle).expanduser().read_bytes()
    )
    bundle.flush()
    return bundle


class S3Store:
    """A bucket, reached with the usual AWS environment."""

    def __init__(self, provider: str, settings: FileSettings, network: Network) -> None:
        parts = urlsplit(settings.files_url)
        self._provider = provider
        self._settings = settings
        self._network = network
        self._bucket = parts.netloc
        base = parts.path.strip("/")
        self._base = f"{base}/" if base else ""
        self._lock = threading.Lock()
        self._client: S3Client | None = None

    def __str__(self) -> str:
        """For messages."""
        return f"{self._provider}: s3://{self._bucket}"

    def check(self) -> None:
        """List a file, as that tells most of what may be wrong; not being allowed to is no mistake."""
        with self._troubles(allowed=("AccessDenied",)):
            self._s3().list_objects_v2(Bucket=self._bucket, MaxKeys=1)

    def files(self, paths: Sequence[str]) -> list[RemoteFile]:
        """The files, as they are now."""
        return [self._file(self._base + self._settings.below(path)) for path in paths]

    def close(self) -> None:
        """Remove what was made for the connections."""
        if self._client is not None:
            self._client.close()

    def _file(self, key: str) -> RemoteFile:
        try:
            tag = self._tag(key)
        except JobGone:
            self._check_base()
            raise
        return RemoteFile(key.rpartition("/")[2], partial(self._open, _Object(key, tag)))

    def _tag(self, key: str) -> str:
        with self._troubles(key):
            return str(self._s3().head_object(Bucket=self._bucket, Key=key)["ETag"])

    def _check_base(self) -> None:
        with self._troubles(allowed=("AccessDenied",)):
            listed = self._s3().list_objects_v2(Bucket=self._bucket, Prefix=self._base, MaxKeys=1)
            if not listed["KeyCount"]:
                raise FilesRefused(f"{self}: there is nothing below {self._base}; check files_url")

    @contextmanager
    def _open(self, remote: _Object, wanted: Wanted) -> Iterator[Body]:
        tag, _, size = (wanted.version or "").rpartition("/")
        goes_on = tag == remote.tag and size.isdecimal() and wanted.offset < int(size)
        how = {"Range": f"bytes={wanted.offset}-"} if goes_on else {}
        try:
            with self._troubles(remote.key):
                # A version's id would ask for a right of its own.
                answer = self._s3().get_object(Bucket=self._bucket, Key=remote.key, IfMatch=remote.tag, **how)
        except _Changed:
            remote.tag = self._tag(remote.key)
            raise
        with closing(answer["Body"]) as stream:
            if answer["ETag"] != remote.tag:  # by a server that knows no If-Match
                remote.tag = answer["ETag"]
                raise _Changed(f"{self}: an object has changed since it was first seen; it is begun anew")
            offset, total = 0, answer["ContentLength"]
            if "ContentRange" in answer:
                found = _CONTENT_RANGE.fullmatch(answer["ContentRange"])
                if not goes_on or found is None or int(found[1]) != wanted.offset:
                    raise Unreachable(f"{self}: a part of an object came that was not asked for")
                offset, total = wanted.offset, int(found[3])
            yield Body(self._read(stream), None, version=f"{remote.tag}/{total}", offset=offset, total=total)

    def _read(self, stream: Any) -> Iterator[bytes]:
        with self._troubles():
            while chunk := stream.read(_CHUNK):
                yield chunk

    def _s3(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = S3Client(self._network)
            return self._client.s3

    @contextmanager
    def _troubles(self, key: str = "a file", *, allowed: Sequence[str] = ()) -> Iterator[None]:
        """Say in the tap's words what goes wrong, with which file."""
        from botocore import exceptions  # type: ignore[import-untyped]

        try:
            yield
        except exceptions.ClientError as error:
            if error.response["Error"]["Code"] not in allowed:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                raise self._trouble(key, error, error.response["Error"]["Code"], status) from None
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
            raise FilesRefused(f"{self}: {error}; set the usual AWS environment variables") from None
        except exceptions.SSLError as error:
            words = f"{error}; if you trust its authority, set ca_bundle"
            raise Unreachable(f"{self}: {words}", sent=False) from None
        except (exceptions.BotoCoreError, OSError) as error:
            raise Unreachable(f"{self}: {error}") from None

    def _trouble(self, key: str, error: Exception, code: str, status: int) -> TapError:
        """What an answer of S3 means."""
        if status == 412:
            return _Changed(f"{self}: an object has changed since it was first seen; it is begun anew")
        if status in (429, 503):
            return Unreachable(f"{self}: {error}", _PAUSE)
        if code in ("404", "NoSuchKey"):
            return JobGone(f"{self}: {key} is not there any more")
        if code == "NoSuchBucket":
            return FilesRefused(f"{self}: there is no such bucket ({error}); check files_url")
        if status in (400, 401, 403):
            return FilesRefused(f"{self}: {error}; check the AWS credentials and what they allow")
        return Unreachable(f"{self}: {error}")
