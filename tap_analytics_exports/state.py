"""The state: what earlier runs have written, as a target hands it back, and what this run adds to it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from tap_analytics_exports.errors import SettingsError
from tap_analytics_exports.jobs.entries import Entry, entry_of_state
from tap_analytics_exports.redaction import clean_logger
from tap_analytics_exports.windows import Window

logger = clean_logger(__name__)

REPLICATION_KEY = "_sdc_window_end"


class StreamState:
    """The bookmark of one stream; whatever else stands in it stays as it is.

    Attributes:
        bookmark: The end of the unbroken row of windows that were written, in UTC; None: none was.
        last_export_id: Of the last snapshot that was written.
        version: Table version of the last snapshot; 0: there was none.
        names: Header to property, for the headers whose property is not plainly derived.
        jobs: Those that were triggered and not fully written, by what the input state says.
    """

    def __init__(self, name: str, content: dict[str, Any]) -> None:
        self._name = name
        self._content = content
        self.bookmark = self._timestamp(content.get("replication_key_value"))
        self.last_export_id = self._known("last_export_id", str, "")
        self.version = self._known("version", int, 0)
        self.names = self._known("names", dict[str, str], {})
        jobs = content.get("jobs") or []
        found = [entry_of_state(job) for job in jobs] if isinstance(jobs, list) else [None]
        self.jobs: list[Entry] = [entry for entry in found if entry is not None]
        if len(self.jobs) < len(found):
            logger.warning(
                "stream %s: %d of the state's jobs are none that this version can go on with, and are left "
                "aside; their windows are exported anew",
                name,
                len(found) - len(self.jobs),
            )
        self.set_jobs([job.to_state() for job in self.jobs])

    def set_jobs(self, jobs: Iterable[Mapping[str, Any]]) -> None:
        """Say which jobs are triggered and not fully written; the key is always there."""
        self._content["jobs"] = list(jobs)

    def pass_window(self, window: Window) -> None:
        """Move the bookmark to the end of a window that was written, never back."""
        self._content["replication_key"] = REPLICATION_KEY
        if self.bookmark is None or self.bookmark < window.end:
            self.bookmark = window.end
            self._content["replication_key_value"] = window.end.isoformat()

    def pass_snapshot(self, export_id: str, version: int) -> None:
        """Remember the snapshot that was written, and its table version."""
        self.last_export_id, self.version = export_id, version
        self._content |= {"last_export_id": export_id, "version": version}

    def remember_names(self, names: Mapping[str, str]) -> None:
        """Keep which property each header is."""
        if names:
            self._content["names"] = dict(names)

    def _known(self, key: str, kind: Callable[..., Any], default: Any) -> Any:
        try:
            return msgspec.convert(self._content.get(key) or default, kind)
        except msgspec.ValidationError:
            logger.warning("stream %s: the state's %s can't be read, and is left aside", self._name, key)
            del self._content[key]
            return default

    def _timestamp(self, text: object) -> datetime | None:
        if text is None:
            return None
        try:
            found = datetime.fromisoformat(text)  # type: ignore[arg-type] # refused by it, if it is no text
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, TypeError, OverflowError):
            raise SettingsError(
                [
                    (
                        f"state: bookmarks.{self._name}.replication_key_value: is no date-time, such as "
                        "2026-01-03T00:00:00+00:00; mend it, or run without a state"
                    )
                ]
            ) from None


class State:
    """All bookmarks of a run.

    Args:
        given: The state of an earlier run, `{"bookmarks": {stream: …}}`; None: there was none.

    Raises:
        SettingsError: It is no state.
    """

    def __init__(self, given: Mapping[str, Any] | None) -> None:
        if not isinstance(given, Mapping | None):
            raise SettingsError(
                ['state: is no object, such as {"bookmarks": {}}; give the last one that was saved, or none']
            )
        self._content = copy.deepcopy(dict(given or {}))
        bookmarks = self._content.get("bookmarks") or {}
        if not isinstance(bookmarks, dict) or not all(isinstance(each, dict) for each in bookmarks.values()):
            raise SettingsError(
                ["state: `bookmarks` is no object that holds one for each stream; mend it, or give none"]
            )
        self._bookmarks: dict[str, dict[str, Any]] = bookmarks
        self._content["bookmarks"] = bookmarks

    def stream(self, name: str) -> StreamState:
        """Find the part of a stream, made if need be."""
        return StreamState(name, self._bookmarks.setdefault(name, {}))

    def dump(self) -> dict[str, Any]:
        """Copy the whole, as a dict that JSON can hold and that does not change any more."""
        return copy.deepcopy(self._content)
