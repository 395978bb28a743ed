"""A replay: the provider's files come from the archive, and nobody else is asked for anything."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from tap_analytics_exports.archive import (
    Archive,
    ArchivedFile,
    Manifest,
    identity_hash,
    snapshot_of,
    window_folder,
    window_of,
)
from tap_analytics_exports.errors import ExportFailed, SettingsError, Unreachable
from tap_analytics_exports.providers.base import Empty, Handle, JobState, Provider, Ready, Request
from tap_analytics_exports.redaction import clean_logger
from tap_analytics_exports.settings import Export, ProviderSettings
from tap_analytics_exports.transport.download import Body, RemoteFile, Wanted
from tap_analytics_exports.transport.network import Offline
from tap_analytics_exports.windows import Window

logger = clean_logger(__name__)


class Replayed(Provider[Any, Any]):
    """What stands for a provider whose jobs are exports of the archive; all else is as the provider says.

    Args:
        kind: The provider.
        settings: Its block.
        archive: The archive.

    Raises:
        SettingsError: Nothing says where that is.
    """

    begins = "found in the archive"

    def __init__(
        self, kind: type[Provider[Any, Any]], settings: ProviderSettings, archive: Archive | None
    ) -> None:
        if archive is None:
            raise SettingsError(["archive_url: is required for a replay, whose files are there"])
        super().__init__(settings)
        self.name = kind.name  # type: ignore[misc] # of which all others have one for their class
        self._provider = kind(settings, Offline())
        self._archive = archive
        self._exports: dict[str, dict[str, list[str]]] = {}  # by stream
        self._snapshots: dict[str, str] = {}  # the folder that is replayed, by stream
        self._manifests: dict[str, Manifest] = {}
        self._warned: set[str] = set()
        for name in ("wanted", "dictionary", "constants", "dialect"):
            setattr(self, name, getattr(self._provider, name))

    def available(
        self, export: Export, grid: Sequence[Window], span: Window
    ) -> tuple[list[Window | None], list[str]]:
        """See what the archive has of an export.

        Args:
            export: The export.
            grid: The windows that are wanted of it.
            span: The span that they touch, in which a snapshot has to be triggered.

        Returns:
            What can be replayed, cut as it was; and what the archive lacks, in words.

        Raises:
            SettingsError: The archive can't be read.
        """
        exports = self._listed(export)
        if not export.incremental:
            taken = {folder: at for folder in exports if (at := snapshot_of(folder))}
            recent = [folder for folder, at in taken.items() if span.start <= at < span.end]
            if not recent:
                return [], [f"no snapshot that was triggered within {span}"]
            self._snapshots[export.name] = max(recent, key=lambda folder: taken[folder])
            return [None], []
        known = sorted(window for folder in exports if (window := window_of(folder)))
        starts = [window.start for window in known]
        found: list[Window | None] = []
        lacking: list[Window] = []
        odd = False
        for window in grid:
            within = known[bisect_left(starts, window.start) : bisect_left(starts, window.end)]
            # Of those that were cut by the end of their run, the longest is the latest.
            fitting = [each for each in within if each.start == window.start and each.end <= window.end]
            if fitting and within[-1].start == window.start:
                found.append(fitting[-1])
                continue
            odd = odd or bool(within)
            if lacking and lacking[-1].end == window.start:
                lacking[-1] = Window(lacking[-1].start, window.end)
            else:
                lacking.append(window)
        hint = "; it has other windows there: set `window`, `timezone` and `start_date` as they were"
        return found, [f"no export of {window}{hint if odd else ''}" for window in lacking]

    def columns(self, export: Export) -> Sequence[str]:
        """Those that were asked for, as a provider may have to ask its vendor which there are."""
        exports = self._listed(export)
        if exports:
            folder = max(exports)
            asked = self._archive.manifest(f"{export.name}/{folder}/{exports[folder][0]}").columns
            if asked is not None:
                return asked
        return self._provider.columns(export)

    def _listed(self, export: Export) -> dict[str, list[str]]:
        """List what the archive has of an export.

        Raises:
            SettingsError: The archive can't be read.
        """
        if export.name not in self._exports:
            try:
                self._exports[export.name] = self._archive.exports(export.name)
            except Unreachable as error:
                raise SettingsError([str(error)]) from None
        return self._exports[export.name]

    def identity(self, export: Export) -> Mapping[str, Any]:
        """Say what the provider says."""
        return self._provider.identity(export)

    def check(self) -> None:
        """Nothing: the vendor has no part in this."""

    def check_export(self, export: Export) -> None:
        """Nothing, for the same reason."""

    def submit(self, request: Request[Any]) -> Handle:
        """Find the latest export of the window."""
        stream = request.export.name
        exports = self._exports[stream]
        window = request.window
        folder = self._snapshots[stream] if window is None else window_folder(window)
        folders = [f"{stream}/{folder}/{export_id}" for export_id in exports[folder]]
        found = {folder: self._archive.manifest(folder) for folder in folders}
        folder = max(found, key=lambda folder: found[folder].archived_at)
        self._manifests[folder] = found[folder]
        return {"archived": folder}

    def poll(self, request: Request[Any], handle: Handle) -> JobState:
        """See whether it had files."""
        return Ready() if self._manifests[handle["archived"]].files else Empty()

    def files(self, request: Request[Any], handle: Handle) -> Sequence[RemoteFile]:
        """The files, which have to be what the manifest says."""
        folder = handle["archived"]
        manifest = self._manifests[folder]
        form = self.dialect(request.export).format
        if manifest.provider != self.name or manifest.format != form:
            raise ExportFailed(
                f"archive_url: {folder} is a file of {manifest.provider} in the format {manifest.format}, "
                f"and the settings say {self.name} and {form}; set the export's `format` as it was"
            )
        same = manifest.identity == identity_hash(self, request.export)
        if not same and request.export.name not in self._warned:
            self._warned.add(request.export.name)
            logger.warning(
                "%s, stream %s: %s was exported with another account or other settings of the export than "
                "those of now", self.name, request.export.name, folder,
            )  # fmt: skip
        return [
            RemoteFile(file.name, partial(self._open, f"{folder}/{file.file}", file), file.size, file.rows)
            for file in manifest.files
        ]

    def find(self, request: Request[Any], last: str | None) -> None:
        """Nothing: what the archive has is not triggered."""

    def cancel(self, request: Request[Any], handle: Handle) -> None:
        """Nothing, for nothing runs."""

    def done(self, request: Request[Any], handle: Handle) -> None:
        """Nothing: the archive keeps what it has."""

    def close(self) -> None:
        """Leave the archive; there was no session."""
        self._archive.close()

    @contextmanager
    def _open(self, key: str, file: ArchivedFile, wanted: Wanted) -> Iterator[Body]:
        def checked() -> Iterator[bytes]:
            digest = hashlib.sha256()
            for chunk in self._archive.read(key):
                digest.update(chunk)
                yield chunk
            if digest.hexdigest() != file.sha256:
                raise ExportFailed(
                    f"archive_url: {key} has another SHA-256 than its manifest says, so it was changed; put "
                    "the right file there, or remove its folder for an older export to count"
                )

        yield Body(checked(), None, total=file.size)
