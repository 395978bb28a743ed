"""A replay: the provider's files come from the archive, and nobody else is asked for anything."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import requests
from requests.adapters import HTTPAdapter

from tap_analytics_exports.archive import (
    Archive,
    ArchivedFile,
    Manifest,
    identity_hash,
    snapshot_of,
    window_folder,
    window_of,
)
from tap_analytics_exports.errors import ExportFailed, Refused, SettingsError
from tap_analytics_exports.providers.base import Empty, Handle, JobState, Provider, Ready, Request
from tap_analytics_exports.redaction import clean_logger
from tap_analytics_exports.settings import Export, ProviderSettings
from tap_analytics_exports.transport.download import Body, RemoteFile, Wanted
from tap_analytics_exports.transport.network import Network
from tap_analytics_exports.windows import Window

logger = clean_logger(__name__)


class Replayed(Provider[Any, Any]):
    """What a provider becomes whose jobs are exports of the archive; all else is as the provider says.

    Attributes:
        archive: The archive.
        span: The span that is replayed.
    """

    archive: Archive
    span: Window

    def available(self, export: Export, grid: Sequence[Window]) -> tuple[list[Window | None], list[str]]:
        """See what the archive has of an export.

        Args:
            export: The export.
            grid: The windows that are wanted of it.

        Returns:
            What can be replayed, cut as it was; and what the archive lacks, in words.

        Raises:
            Unreachable: The archive can't be read.
        """
        folders = sorted(self.archive.exports(export.name))
        if not export.incremental:
            at = [snapshot_of(folder) for folder in folders]
            if any(each and self.span.start <= each < self.span.end for each in at):
                return [None], []
            return [], [f"no snapshot that was triggered within {self.span}"]
        # Of those that were cut by the end of their run, the longest is the latest.
        longest = {window.start: window for folder in folders if (window := window_of(folder))}
        found: list[Window | None] = []
        lacking: list[Window] = []
        for window in grid:
            archived = longest.get(window.start)
            if archived is not None and archived.end <= window.end:
                found.append(archived)
            elif lacking and lacking[-1].end == window.start:
                lacking[-1] = Window(lacking[-1].start, window.end)
            else:
                lacking.append(window)
        return found, [f"no export of {window}" for window in lacking]

    def check(self) -> None:
        """Nothing: the vendor has no part in this."""

    def submit(self, request: Request[Any]) -> Handle:
        """Find the latest export of the window."""
        folders = self.archive.exports(request.export.name)
        if request.window is not None:
            folder = window_folder(request.window)
        else:
            taken = {at: each for each in folders if (at := snapshot_of(each))}
            folder = taken[max(at for at in taken if self.span.start <= at < self.span.end)]
        places = [f"{request.export.name}/{folder}/{export_id}" for export_id in folders[folder]]
        found = {place: self._manifest(place) for place in places}
        return {"archived": max(found, key=lambda place: found[place].archived_at)}

    def poll(self, request: Request[Any], handle: Handle) -> JobState:
        """See whether it had files."""
        return Ready() if self._manifest(handle["archived"]).files else Empty()

    def files(self, request: Request[Any], handle: Handle) -> Sequence[RemoteFile]:
        """The files, which have to be what the manifest says."""
        place = handle["archived"]
        manifest = self._manifest(place)
        form = self.dialect(request.export).format
        if manifest.provider != self.name or manifest.format != form:
            raise ExportFailed(
                f"archive_url: {place} is a file of {manifest.provider} in the format {manifest.format}, and "
                f"the settings say {self.name} and {form}; set the export's `format` as it was"
            )
        if manifest.identity != identity_hash(self, request.export):
            logger.warning(
                "%s, stream %s: %s was exported with another account or other settings of the export than "
                "those of now", self.name, request.export.name, place,
            )  # fmt: skip
        return [
            RemoteFile(file.name, partial(self._open, f"{place}/{file.file}", file), file.size, file.rows)
            for file in manifest.files
        ]

    def find(self, request: Request[Any], last: str | None) -> None:
        """Nothing: what the archive has is not triggered."""

    def cancel(self, request: Request[Any], handle: Handle) -> None:
        """Nothing, for nothing runs."""

    def done(self, request: Request[Any], handle: Handle) -> None:
        """Nothing: the archive keeps what it has."""

    def close(self) -> None:
        """Nothing: there was no session."""

    def _manifest(self, place: str) -> Manifest:
        return self.archive.manifest(place)

    @contextmanager
    def _open(self, key: str, file: ArchivedFile, wanted: Wanted) -> Iterator[Body]:
        def checked() -> Iterator[bytes]:
            digest = hashlib.sha256()
            for chunk in self.archive.read(key):
                digest.update(chunk)
                yield chunk
            if digest.hexdigest() != file.sha256:
                raise ExportFailed(
                    f"archive_url: {key} has another SHA-256 than its manifest says, so it was changed; put "
                    " the right file there, or remove its folder for an older export to count"
                )

        yield Body(checked(), None, total=file.size)


class _Silent(HTTPAdapter):
    """Sends nothing."""

    def send(self, *request: Any, **how: Any) -> requests.Response:
        raise Refused("a replay asks no vendor for anything")


class _Nobody(Network):
    """Connects to nobody."""

    def session(self) -> requests.Session:
        session = requests.Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Silent())
        return session


def replayed(
    kind: type[Provider[Any, Any]], settings: ProviderSettings, archive: Archive | None, span: Window | None
) -> Replayed:
    """Make a provider whose jobs are exports of the archive.

    Raises:
        SettingsError: Nothing says where that is, or what is replayed.
    """
    if archive is None or span is None:
        raise SettingsError(["archive_url: is required for a replay, as is a span: its files are there"])
    made = cast("Replayed", type(kind.__name__, (Replayed, kind), {})(settings, _Nobody()))
    made.archive, made.span = archive, span
    return made
