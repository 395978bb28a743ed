"""The Singer tap: what Singer, Meltano and the command line see of an extraction."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import IO, Any, ClassVar

import click
from singer_sdk import Stream, Tap
from singer_sdk.exceptions import ConfigValidationError
from singer_sdk.helpers.capabilities import CapabilitiesEnum, PluginCapabilities, TapCapabilities
from singer_sdk.tap_base import CliTestOptionValue

from tap_analytics_exports import redaction
from tap_analytics_exports.ahead import ahead
from tap_analytics_exports.errors import (
    ExportsFailed,
    Interrupted,
    NoCredentialsAccepted,
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
        except NoCredentialsAccepted:
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

    # The command line

    @classmethod
    def invoke(  # type: ignore[override]
        cls,
        *,
        about: bool = False,
        about_format: str | None = None,
        config: Any = None,
        state: IO[str] | None = None,
        catalog: IO[str] | None = None,
    ) -> None:
        """Run the tap, and end the process with the code that tells how it went."""
        if about:
            cls.print_about(about_format)
            return
        cls.print_version(print_fn=cls.logger.info)
        try:
            tap = cls(
                config=config.config,
                parse_env_config=config.parse_env,
                state=_state_in(state) if state else None,
                catalog=_object_in(catalog, "catalog") if catalog else None,
            )
        except (ConfigValidationError, SettingsError) as error:
            for problem in error.errors if isinstance(error, ConfigValidationError) else error.problems:
                cls.logger.error("%s", problem)
            sys.exit(EXIT_SETTINGS)
        code = tap.run()
        if code in (128 + signal.SIGPIPE, os.EX_IOERR):  # nor shall the interpreter try to write what is left
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stdout.flush()
        logging.shutdown()
        os._exit(code)  # threads that still wait for a vendor do not hold up the end

    @classmethod
    def cb_test(cls, ctx: click.Context, param: click.Option, value: str) -> None:
        """Try the credentials; `--test=schema` is the SDK's."""
        if value != CliTestOptionValue.All.value:
            super().cb_test(ctx, param, value)
            return
        config = ctx.params["config"]
        try:
            tap = cls(config=config.config, parse_env_config=config.parse_env, setup_mapper=False)
        except ConfigValidationError as error:
            for problem in error.errors:
                cls.logger.error("%s", problem)
            ctx.exit(EXIT_SETTINGS)
        ctx.exit(tap.check())


def _object_in(file: IO[str], what: str) -> dict[str, Any]:
    """Read the JSON object that a file of the command line holds.

    Raises:
        SettingsError: It holds none.
    """
    try:
        content = json.load(file)
    except (ValueError, RecursionError) as error:
        raise SettingsError([f"{what}: {file.name}: is no JSON ({type(error).__name__})"]) from None
    if not isinstance(content, dict):
        raise SettingsError([f"{what}: {file.name}: holds no JSON object"])
    return content


def _state_in(file: IO[str]) -> dict[str, Any]:
    """Read a state, taken out of a STATE message, or of what Meltano wraps it in.

    Raises:
        SettingsError: It is none.
    """
    content = _object_in(file, "state")
    for key in ("singer_state", "value"):
        if key in content and (key != "value" or content.get("type") == "STATE"):
            content = content[key]
            break
    if not isinstance(content, dict) or (content and not isinstance(content.get("bookmarks"), dict)):
        raise SettingsError(
            [f'state: {Path(file.name)}: is no state, such as {{"bookmarks": {{}}}}, nor a STATE message']
        )
    return content
