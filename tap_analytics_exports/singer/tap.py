"""The Singer tap: settings schema, streams, the flags of the command line, how a run ends."""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import logging
import os
import shutil
import signal
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, ClassVar

import click
import platformdirs
from singer_sdk import Stream, Tap
from singer_sdk.exceptions import ConfigValidationError
from singer_sdk.helpers.capabilities import CapabilitiesEnum, PluginCapabilities, TapCapabilities
from singer_sdk.tap_base import CliTestOptionValue

from tap_analytics_exports import redaction
from tap_analytics_exports.errors import Interrupted, SettingsError, TapError
from tap_analytics_exports.jobs.ledger import Ledger
from tap_analytics_exports.jobs.runner import Job, Jobs, now
from tap_analytics_exports.providers import installed
from tap_analytics_exports.providers.base import Provider
from tap_analytics_exports.settings import Settings, decode, json_schema, secrets
from tap_analytics_exports.singer.streams import ExportStream, RunStream, export_runs, rejected_rows
from tap_analytics_exports.writers.standard_output import Output

if TYPE_CHECKING:
    from tap_analytics_exports.singer.writing import WindowWriter

EXIT_SETTINGS, EXIT_FAILED = 1, 3

GRACE_SECONDS = 4
"""After a signal: how long the next safe point may be away before the process ends without it."""

LOG_OUT_SECONDS = 10

_BLOCKS = {name: provider.settings_type for name, provider in installed().items()}


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

    def __init__(self, **arguments: Any) -> None:  # noqa: ANN401 - the SDK's own
        self._signal: int | None = None
        self._stop = threading.Event()
        self._failed: list[Job] = []
        super().__init__(**arguments)
        self.output.safe_point = self._safe_point

    def _validate_config(self, *, raise_errors: bool = True) -> list[str]:
        """Decode the settings in place of the SDK's validation, whose messages print values."""
        redaction.hide(*secrets(self.config))  # for what is said of them while they are decoded
        try:
            self.settings = decode(self.config, _BLOCKS)
        except SettingsError as error:
            if raise_errors:
                raise ConfigValidationError(
                    "the settings are wrong", errors=error.problems, schema={}
                ) from None
            return error.problems
        redaction.hide(*secrets(self.settings))
        return []

    @property
    def output(self) -> Output:
        """Standard output."""
        assert isinstance(self.message_writer, Output)  # noqa: S101 - it is the class's own
        return self.message_writer

    @cached_property
    def providers(self) -> dict[str, Provider[Any, Any]]:
        """The providers that the settings use, by name."""
        return {name: installed()[name](block) for name, block in self.settings.providers.items()}

    @cached_property
    def export_runs(self) -> RunStream:
        """The stream that tells of each job."""
        return export_runs(self)

    @cached_property
    def rejected_rows(self) -> RunStream:
        """The stream of diverted rows."""
        return rejected_rows(self)

    def discover_streams(self) -> list[Stream]:
        """One stream an export, and the two that describe the run."""
        exports = [
            ExportStream(self, export, provider, self.settings)
            for provider in self.providers.values()
            for export in provider.settings.all_exports
        ]
        return [*exports, self.export_runs, self.rejected_rows]

    @cached_property
    def jobs(self) -> Jobs:
        """All jobs of this run, planned and on their way."""
        # The rows have threads of their own, which those of polars only get in the way of.
        os.environ.setdefault("POLARS_MAX_THREADS", "1")
        jobs = Jobs(self.providers, self.settings, self._stop, self._write_state_of)
        moment = now().replace(microsecond=0)
        end = min(moment, self.settings.end_date or moment)
        needed = (
            {"columns.casting"}
            if self.settings.batch_config is None
            else {"columns.casting", "writers.batches"}
        )
        rows = False
        for stream in self._selected_exports():
            ledger = self._ledger(stream)
            planned = stream.plan(end, ledger)
            jobs.plan(stream.name, planned, ledger)
            rows = rows or bool(planned)
            needed.add(f"parse.{stream.provider.dialect(stream.export).format}")
        jobs.start()
        if rows:
            threading.Thread(target=_prepare_rows, args=[needed, jobs.wake], daemon=True).start()
        return jobs

    @cached_property
    def window_writer(self) -> type[WindowWriter]:
        """What writes the rows of a window; asked for by the main thread before the first one's are."""
        from tap_analytics_exports.singer.writing import WindowWriter  # noqa: PLC0415 - costs time to import

        self._setup_signal_handlers()  # polars has taken SIGINT, whichever thread has imported it
        return WindowWriter

    def _ledger(self, stream: ExportStream) -> Ledger:
        """The stream's ledger, and the place of its downloads, which outlive a crash if the ledger does."""
        if self.settings.ledger != "":
            folder = Path(self.settings.ledger or platformdirs.user_state_path(self.name)).expanduser()
            try:
                # A spool for each ledger, for what a ledger does not know is removed from its spool.
                place = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:12]
                spool = _private(self._spool_parent / f"{self.name}-{place}")
                return Ledger(folder / stream.key, spool / stream.key)
            except OSError as error:
                self.logger.warning(
                    "the ledger can't be used, so a crash may cost a job; set `ledger` to a folder that can "
                    "be written, or to an empty text: %s",
                    error,
                )
        return Ledger(None, self._spool / stream.key)

    @property
    def _spool_parent(self) -> Path:
        return Path(self.settings.spool_dir or tempfile.gettempdir()).expanduser()

    @cached_property
    def _spool(self) -> Path:
        """For downloads that nothing remembers."""
        try:
            self._spool_parent.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=self._spool_parent))
        except OSError as error:
            raise SettingsError([f"spool_dir: {self._spool_parent}: {error.strerror}"]) from None

    def _selected_exports(self) -> list[ExportStream]:
        return [
            stream for stream in self.streams.values() if isinstance(stream, ExportStream) and stream.selected
        ]

    def _write_state_of(self, job: Job) -> None:
        stream = self.streams[job.stream]
        assert isinstance(stream, ExportStream)  # noqa: S101 - only those have jobs
        stream.write_state()

    def failed(self, job: Job) -> None:
        """Remember that an export did not get to its end."""
        self.logger.error("%s", job.error)
        self._failed.append(job)

    def run(self) -> int:
        """Sync all streams.

        Returns:
            The exit code that tells how it went.
        """
        try:
            self._check_batches()
            self.sync_all()
        except Interrupted:
            return 128 + (self._signal or signal.SIGTERM)
        except TapError as error:
            self.logger.error("%s", error)  # noqa: TRY400 - the traceback says no more
            return EXIT_SETTINGS
        except BrokenPipeError:
            self.logger.error("nobody reads the output any more")  # noqa: TRY400 - the traceback says no more
            return 128 + signal.SIGPIPE
        except OSError as error:
            where = error.filename or "standard output"
            self.logger.error("%s: %s", where, error.strerror or error)  # noqa: TRY400 - nor here
            return os.EX_IOERR
        else:
            self.jobs.close()
            self._log_out()
        finally:
            self._clean_up()
        if not self._failed:
            return 0
        used = {stream.provider.name for stream in self._selected_exports()}
        # With an empty handle nothing was triggered: the vendor answers with the file itself.
        untouched = [job for job in self._failed if not any(part.handle for part in job.parts)]
        refused = {job.provider for job in untouched if job.refused}
        return EXIT_SETTINGS if refused == used else EXIT_FAILED

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
            for stream in self._selected_exports()
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
        for name, provider in self.providers.items():
            try:
                provider.check()
            except TapError as error:
                code = EXIT_SETTINGS
                click.echo(redaction.clean(f"{name}: {error}"))
            else:
                click.echo(f"{name}: ok")
        self._log_out()
        return code

    def _log_out(self) -> None:
        """End the sessions with the vendors, a matter of courtesy that nobody waits long for."""

        def close() -> None:
            for provider in self.providers.values():
                try:
                    provider.close()
                except TapError as error:
                    self.logger.info("the session was not ended: %s", error)

        thread = threading.Thread(target=close, daemon=True)
        thread.start()
        thread.join(LOG_OUT_SECONDS)

    def _clean_up(self) -> None:
        if "_spool" in self.__dict__:
            shutil.rmtree(self._spool, ignore_errors=True)

    def _handle_termination(self, signum: int, frame: FrameType | None) -> None:
        """Ask the run to stop; a handler that wrote anything would write it into the middle of a line."""
        self._signal = signum
        self._stop.set()
        if "jobs" in self.__dict__:
            self.jobs.wake()
        watchdog = threading.Timer(GRACE_SECONDS, self._give_up)
        watchdog.daemon = True
        watchdog.start()

    def _give_up(self) -> None:
        """End where no safe point came, as when nobody reads the output."""
        self._clean_up()
        os._exit(128 + (self._signal or signal.SIGTERM))

    def _safe_point(self) -> None:
        if self._stop.is_set():
            raise Interrupted

    # The command line

    @classmethod
    def invoke(  # type: ignore[override]
        cls,
        *,
        about: bool = False,
        about_format: str | None = None,
        config: Any = None,  # noqa: ANN401 - the SDK's own type
        state: IO[str] | None = None,
        catalog: IO[str] | None = None,
    ) -> None:
        """Run the tap, and end the process with the code that tells how it went."""
        if about:
            cls.print_about(about_format)
            return
        cls.print_version(print_fn=cls.logger.info)
        tap = cls(
            config=config.config,
            parse_env_config=config.parse_env,
            state=json.load(state) if state else None,
            catalog=json.load(catalog) if catalog else None,
        )
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
                cls.logger.error("%s", problem)  # noqa: TRY400 - a traceback says no more
            ctx.exit(EXIT_SETTINGS)
        ctx.exit(tap.check())


def _prepare_rows(modules: Iterable[str], wake: Callable[[], None]) -> None:
    """Import what only rows need while the vendors are busy, and the main thread tells of their jobs."""
    importlib.import_module("tap_analytics_exports.singer.writing")
    # With the handler of polars, SIGINT would not end the main thread's wait for news.
    signal.siginterrupt(signal.SIGINT, True)  # noqa: FBT003 - the name says what
    wake()  # one may have come before
    for name in modules:
        importlib.import_module(f"tap_analytics_exports.{name}")
    importlib.import_module("pyarrow.compute")  # polars does so with the first data from pyarrow


def _private(folder: Path) -> Path:
    """A folder of ours that nobody else can look into.

    Raises:
        OSError: It is somebody else's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a private folder of this user")
    return folder
