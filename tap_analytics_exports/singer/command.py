"""The command line: its options, what each of them does, and the code that the process ends with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Any

import click
from singer_sdk.exceptions import ConfigValidationError
from singer_sdk.tap_base import CliTestOptionValue

from tap_analytics_exports import process
from tap_analytics_exports.errors import SettingsError
from tap_analytics_exports.process import EXIT_SETTINGS
from tap_analytics_exports.report import check_writable
from tap_analytics_exports.singer import given, plans
from tap_analytics_exports.singer.tap import TapAnalyticsExports


class CommandLine(TapAnalyticsExports):
    """The tap as a command, which is its `cli`."""

    @classmethod
    def invoke(  # type: ignore[override]
        cls,
        *,
        about: bool = False,
        about_format: str | None = None,
        plan: bool = False,
        sample: bool = False,
        report: Path | None = None,
        config: Any = None,
        state: IO[str] | None = None,
        catalog: IO[str] | None = None,
        streams: str | None = None,
        backfill: str | None = None,
        replay: str | None = None,
    ) -> None:
        """Run the tap, and end the process with the code that tells how it went."""
        if plan and about_format == "markdown":
            raise click.BadOptionUsage("format", "--plan is a table, or --format json")
        if about:
            cls.print_about(about_format)
            return
        cls.print_version(print_fn=cls.logger.info)
        try:
            if report is not None:
                check_writable(report)
            tap = cls(
                config=config.config,
                parse_env_config=config.parse_env,
                state=given.state(state) if state else None,
                catalog=given.catalog(catalog) if catalog else None,
                run=cls._run_of(streams, backfill, replay, sample=sample),
            )
        except (ConfigValidationError, SettingsError) as error:
            for problem in error.errors if isinstance(error, ConfigValidationError) else error.problems:
                cls.logger.error("%s", problem)
            sys.exit(EXIT_SETTINGS)
        if plan:
            tap.choose()
            write = plans.as_json if about_format else plans.as_text
            click.echo(write(tap.extraction.plan(), tap.extraction.providers))
            return
        if sample:
            sys.exit(tap.sample())
        process.end(tap.run(report))

    @classmethod
    def get_singer_command(cls) -> click.Command:
        """Make the command, with the SDK's options and ours."""
        command = super().get_singer_command()
        texts = {
            "test": "Check each provider's credentials, and each export as far as can be seen without "
            "triggering any; print a line for each, and exit with 1 if anything is wrong. --test=schema "
            "prints the SCHEMA messages.",
            "about_format": "How --about is written (json, markdown), or --plan (json).",
        }
        for option in command.params:
            if isinstance(option, click.Option) and option.name in texts:
                option.help = texts[option.name]
        flags = {
            "--plan": "Print the jobs that a run would trigger, and those of earlier runs that it would go "
            "on with, for this --state and --catalog; trigger none, and change nothing.",
            "--sample": "Export the last whole window of each selected stream, or a snapshot, and print the "
            "`columns` of its settings with the types that were seen. No bookmark moves, and the next run "
            "uses these exports.",
        }
        options = {
            "--streams": ("NAMES", "Run these exports only, such as calls,messages."),
            "--backfill": (
                "START/END",
                "Export the windows of this span again, whatever the bookmarks say, which stay.",
            ),
            "--replay": (
                "START/END",
                "As --backfill, with the files that archive_url has; no vendor is asked for anything.",
            ),
        }
        command.params += [click.Option([flag], is_flag=True, help=text) for flag, text in flags.items()]
        command.params.append(
            click.Option(
                ["--report"],
                type=click.Path(path_type=Path, dir_okay=False),
                metavar="FILE.html",
                help="Write a page about the run when it ends, however it ends.",
            )
        )
        command.params += [
            click.Option([name], metavar=shape, help=text) for name, (shape, text) in options.items()
        ]
        return command

    @staticmethod
    def _run_of(
        streams: str | None, backfill: str | None, replay: str | None, *, sample: bool
    ) -> dict[str, Any]:
        """Read the options that say what a run is to do.

        Raises:
            SettingsError: They can't be read, or don't go together.
        """
        run: dict[str, Any] = {}
        if streams is not None:
            run["streams"] = given.names(streams)
        if backfill is not None and replay is not None:
            raise SettingsError(["--backfill and --replay: are two ways to get the same rows; use one"])
        if sample and (backfill is not None or replay is not None):
            raise SettingsError(["--sample: is of the last window; leave --backfill and --replay out"])
        if backfill is not None:
            run["span"] = given.span(backfill, "--backfill")
        if replay is not None:
            run |= {"span": given.span(replay, "--replay"), "replay": True}
        return run

    @classmethod
    def cb_config(cls, ctx: click.Context, param: click.Option, value: tuple[str, ...]) -> Any:
        """Read the configuration; the SDK would show a traceback, or what it can't read."""
        schema = dict(cls.config_jsonschema)
        cls.append_builtin_config(schema)
        try:
            return given.configuration(value, schema, cls._env_var_prefix)
        except SettingsError as error:
            cls.logger.error("%s", error)
            ctx.exit(EXIT_SETTINGS)

    @classmethod
    def cb_test(cls, ctx: click.Context, param: click.Option, value: str) -> None:
        """Check providers and exports; `--test=schema` is the SDK's."""
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
        code = 0
        for checked in tap.extraction.check():
            click.echo(f"{checked.name}: {'ok' if checked.problem is None else checked.problem}")
            code = code if checked.problem is None else EXIT_SETTINGS
        tap.extraction.log_out()
        ctx.exit(code)
