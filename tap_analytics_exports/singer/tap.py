"""The Singer tap: what Singer and Meltano see of an extraction."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import click
from singer_sdk import Stream, Tap
from singer_sdk.exceptions import ConfigValidationError
from singer_sdk.helpers.capabilities import CapabilitiesEnum, PluginCapabilities, TapCapabilities

from tap_analytics_exports import process, redaction
from tap_analytics_exports.ahead import ahead
from tap_analytics_exports.errors import SettingsError, TapError
from tap_analytics_exports.extraction import Extraction, settings_types
from tap_analytics_exports.process import EXIT_FAILED, EXIT_SETTINGS
from tap_analytics_exports.providers import broken
from tap_analytics_exports.settings import META_STREAMS, Settings, decode, json_schema, secrets
from tap_analytics_exports.singer.messages import Messages
from tap_analytics_exports.singer.metrics import log_metrics
from tap_analytics_exports.singer.output import Output
from tap_analytics_exports.singer.samples import as_yaml
from tap_analytics_exports.singer.streams import TapStream

_BLOCKS = settings_types()


class TapAnalyticsExports(Tap):
    """Singer tap for analytics vendors that offer exports: trigger one, wait for it, download a file."""

    name = "tap-analytics-exports"
    config_jsonschema: ClassVar[dict[str, Any]] = json_schema(_BLOCKS)
    capabilities: ClassVar[list[CapabilitiesEnum]] = [
        TapCapabilities.CATALOG,
        TapCapabilities.STATE,
        TapCapabilities.DISCOVER,
        TapCapabilities.ACTIVATE_VERSION,
        PluginCapabilities.ABOUT,
        PluginCapabilities.BATCH,
        PluginCapabilities.STREAM_MAPS,
        PluginCapabilities.FLATTENING,
        PluginCapabilities.STRUCTURED_LOGGING,
    ]
    message_writer_class = Output
    dynamic_catalog = True  # so that the SDK checks the settings before it discovers, too

    settings: Settings

    def __init__(
        self,
        *,
        state: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        self._given_state = state
        self._run = run or {}  # `streams`, `span` and `replay`, as an Extraction has them
        super().__init__(**arguments)

    def _validate_config(self, *, raise_errors: bool = True) -> list[str]:
        """Decode the settings in place of the SDK's validation, whose messages print values."""
        redaction.hide(*secrets(self.config))  # for what is said of them while they are decoded
        try:
            self.settings = decode(
                self.config, _BLOCKS, also=self._own_settings_of_the_sdk(), broken=broken()
            )
        except SettingsError as error:
            if raise_errors:
                raise ConfigValidationError(
                    "the settings are wrong", errors=error.problems, schema={}
                ) from None
            return error.problems
        redaction.hide(*secrets(self.settings))
        return []

    def _setup_signal_handlers(self) -> None:
        """Leave signals to `run`, whose handlers do not write into the middle of a line."""

    @classmethod
    def _own_settings_of_the_sdk(cls) -> Collection[str]:
        """List the settings that the SDK reads itself, such as `stream_maps`."""
        schema: dict[str, Any] = {}
        cls.append_builtin_config(schema)
        return list(schema["properties"])

    @property
    def output(self) -> Output:
        """Standard output."""
        assert isinstance(self.message_writer, Output)  # it is the class's own
        return self.message_writer

    @cached_property
    def extraction(self) -> Extraction:
        """The run."""
        return Extraction(self.settings, self._given_state, **self._run)

    def discover_streams(self) -> list[Stream]:
        """Make one stream an export, and the two that describe the run."""
        batch = self.settings.batch_config
        return [
            TapStream(self, stream, None if name in META_STREAMS else batch)
            for name, stream in self.extraction.discover().items()
        ]

    @property
    def _chosen(self) -> dict[str, TapStream]:
        """The exports that are selected, in the order of the settings."""
        streams = {name: self.streams[name] for name in self.extraction.streams if name not in META_STREAMS}
        return {
            name: stream
            for name, stream in streams.items()
            if isinstance(stream, TapStream) and stream.selected
        }

    def choose(self) -> dict[str, TapStream]:
        """Let the run have the streams that are selected, and tell it what the catalog says of them.

        Returns:
            The exports among them, by name.
        """
        given = set(self.input_catalog or ())
        exports = {each.name for block in self.settings.providers.values() for each in block.all_exports}
        if unknown := given - exports - set(META_STREAMS):
            self.logger.warning(
                "the catalog has streams that the settings have no export for: %s; discover anew",
                ", ".join(sorted(unknown)),
            )
        chosen = self._chosen
        if given and not chosen and self._run.get("streams"):
            self.logger.warning("the catalog selects none of the streams that --streams names")
        self.extraction.choose({name: stream.wanted for name, stream in chosen.items()})
        return chosen

    def run(self, report: Path | None = None) -> int:
        """Sync all streams.

        Args:
            report: Where the page about the run goes; None: nowhere.

        Returns:
            The exit code that tells how it went.
        """
        return process.exit_code(self._write_all, self.extraction, self.output, report)

    def _write_all(self) -> None:
        self._check_batches()
        self.sync_all()

    def sample(self) -> int:
        """Print what an export of each selected stream shows of its columns.

        Returns:
            The exit code that tells how it went.
        """
        self.choose()
        code = 0
        try:
            for each in self.extraction.sample():
                click.echo(as_yaml(each))
                code = code if each.problem is None else EXIT_FAILED
        except TapError as error:
            self.logger.error("%s", error)
            code = EXIT_SETTINGS
        finally:
            self.extraction.log_out()
            self.extraction.close()
        if self.settings.ledger == "":
            self.logger.warning(
                "the ledger is turned off, so neither discovery nor the next run knows of this"
            )
        return code

    def sync_all(self) -> None:  # type: ignore[misc] # the SDK's own goes from stream to stream
        """Write the messages of the whole run.

        Raises:
            TapError: Some exports failed, or nothing could be done at all.
            Interrupted: The run was asked to stop.
        """
        streams = self.choose()
        for name in META_STREAMS:
            stream = self.streams[name]
            assert isinstance(stream, TapStream)  # as all are
            streams[name] = stream
        for name, known in self.extraction.streams.items():
            streams[name].update(known)
        messages = Messages(streams, self.output)
        try:
            with closing(ahead(messages.pieces(iter(self.extraction)), "renders")) as pieces:
                for write in pieces:
                    self.output.safe_point()
                    write()
                    del write  # it may be large
        finally:
            messages.abandon()
            self.extraction.log_out()
            log_metrics(self.extraction.jobs)

    def run_sync_dry_run(  # type: ignore[misc] # the SDK's own goes from stream to stream
        self, dry_run_record_limit: int | None = None, streams: Iterable[Stream] | None = None
    ) -> bool:
        """Sync all streams, as the SDK's suite of tests does with it; an export can't be run dry."""
        self.sync_all()
        return True

    def _check_batches(self) -> None:
        """Find what makes batches impossible, before anything is triggered.

        Raises:
            SettingsError: With what it is.
        """
        batch = self.settings.batch_config
        if batch is None:
            return
        problems = [
            f"batch_config: the stream {stream.name} has stream maps or flattening, which batches "
            "can't have: leave them to the target, or go without batches"
            for stream in self._chosen.values()
            if not stream.batchable
        ]
        folder = batch.storage.folder
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                if not os.access(folder, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            except OSError as error:
                problems.append(f"batch_config.storage.root: {folder}: {error.strerror}")
        if problems:
            raise SettingsError(problems)
