"""The Singer tap: what Singer and Meltano see of an extraction."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from functools import cached_property
from typing import Any, ClassVar

import click
from singer_sdk import Stream, Tap
from singer_sdk.exceptions import ConfigValidationError
from singer_sdk.helpers.capabilities import CapabilitiesEnum, PluginCapabilities, TapCapabilities

from tap_analytics_exports import redaction
from tap_analytics_exports.ahead import ahead
from tap_analytics_exports.errors import (
    CredentialsRefused,
    ExportsFailed,
    Interrupted,
    SettingsError,
    TapError,
)
from tap_analytics_exports.extraction import Extraction, settings_types
from tap_analytics_exports.settings import META_STREAMS, Settings, decode, json_schema, secrets
from tap_analytics_exports.singer.messages import Messages
from tap_analytics_exports.singer.output import Output
from tap_analytics_exports.singer.signals import Signals
from tap_analytics_exports.singer.streams import TapStream

EXIT_SETTINGS, EXIT_FAILED = 1, 3

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

    def __init__(self, *, state: Mapping[str, Any] | None = None, **arguments: Any) -> None:
        self._given_state = state
        super().__init__(**arguments)

    def _validate_config(self, *, raise_errors: bool = True) -> list[str]:
        """Decode the settings in place of the SDK's validation, whose messages print values."""
        redaction.hide(*secrets(self.config))  # for what is said of them while they are decoded
        try:
            self.settings = decode(self.config, _BLOCKS, also=self._own_settings_of_the_sdk())
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
        return Extraction(self.settings, self._given_state)

    def discover_streams(self) -> list[Stream]:
        """Make one stream an export, and the two that describe the run."""
        batch = self.settings.batch_config
        return [
            TapStream(self, stream, None if name in META_STREAMS else batch)
            for name, stream in self.extraction.streams.items()
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

    def run(self) -> int:
        """Sync all streams.

        Returns:
            The exit code that tells how it went.
        """
        signals = self._signals = Signals(self._stop, self._give_up)
        try:
            self._check_batches()
            self.sync_all()
            code = 0
        except Interrupted:
            code = 128 + signal.SIGTERM
        except CredentialsRefused:
            code = EXIT_SETTINGS
        except ExportsFailed:
            code = EXIT_FAILED
        except TapError as error:
            self.logger.error("%s", error)
            code = EXIT_SETTINGS
        except BrokenPipeError:
            self.logger.error("nobody reads the output any more")
            return 128 + signal.SIGPIPE
        except OSError as error:
            where = error.filename or "standard output"
            self.logger.error("%s: %s", where, error.strerror or error)
            return os.EX_IOERR
        finally:
            self.extraction.close()
        return signals.exit_code or code

    def sync_all(self) -> None:  # type: ignore[misc] # the SDK's own goes from stream to stream
        """Write the messages of the whole run.

        Raises:
            TapError: Some exports failed, or nothing could be done at all.
            Interrupted: The run was asked to stop.
        """
        chosen = self._chosen
        given = set(self.input_catalog or ())
        if unknown := given - set(self.streams):
            self.logger.warning(
                "the catalog has streams that the settings have no export for: %s; discover anew",
                ", ".join(sorted(unknown)),
            )
        self.extraction.choose({name: stream.wanted for name, stream in chosen.items()})
        streams = {**chosen}
        for name in META_STREAMS:
            stream = self.streams[name]
            assert isinstance(stream, TapStream)  # as all are
            streams[name] = stream
        for name, known in self.extraction.streams.items():
            streams[name].update(known)
        # Rows have threads of their own, which those of polars would only get in the way of.
        os.environ.setdefault("POLARS_MAX_THREADS", "1")
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

    def run_sync_dry_run(  # type: ignore[misc] # the SDK's own goes from stream to stream
        self, dry_run_record_limit: int | None = None, streams: Iterable[Stream] | None = None
    ) -> bool:
        """Sync all streams, as the SDK's suite of tests does with it; an export can't be run dry."""
        self.sync_all()
        return True

    def _stop(self) -> None:
        self.output.stopped = True
        self.extraction.stop()

    def _give_up(self) -> None:
        """End where no safe point came, as when nobody reads the output."""
        self.extraction.close(0)
        os._exit(self._signals.exit_code or os.EX_SOFTWARE)

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

    def check(self) -> int:
        """Try each provider's credentials, and say how it went.

        Returns:
            The exit code: 0, all accepted.
        """
        code = 0
        for name, provider in self.extraction.providers.items():
            try:
                provider.check()
            except TapError as error:
                code = EXIT_SETTINGS
                click.echo(redaction.clean(f"{name}: {error}"))
            else:
                click.echo(f"{name}: ok")
        self.extraction.log_out()
        return code
