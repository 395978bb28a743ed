"""The command line: its options, what each of them does, and the code that the process ends with."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import IO, Any

import click
from singer_sdk.exceptions import ConfigValidationError
from singer_sdk.tap_base import CliTestOptionValue

from tap_analytics_exports.errors import SettingsError
from tap_analytics_exports.singer import given
from tap_analytics_exports.singer.tap import EXIT_SETTINGS, TapAnalyticsExports


class CommandLine(TapAnalyticsExports):
    """The tap as a command, which is its `cli`."""

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
                state=given.state(state) if state else None,
                catalog=given.json_object(catalog, "catalog") if catalog else None,
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
