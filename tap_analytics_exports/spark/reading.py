"""Reading, in an executor: the files of a planned job are fetched and proved, and become Arrow."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from tap_analytics_exports import redaction
from tap_analytics_exports.errors import ExportFailed, TapError
from tap_analytics_exports.exports import EXPORT_ID, WINDOW_END, WINDOW_START, ExportStream
from tap_analytics_exports.jobs.entries import entry_of_state
from tap_analytics_exports.jobs.folders import Folders
from tap_analytics_exports.jobs.job import Job, PlannedWindow
from tap_analytics_exports.jobs.lanes import Lane
from tap_analytics_exports.jobs.runner import Runner
from tap_analytics_exports.parse import ROW_NUMBER
from tap_analytics_exports.providers.base import Request
from tap_analytics_exports.settings import Column
from tap_analytics_exports.spark.chosen import Chosen, choose
from tap_analytics_exports.windows import Window

if TYPE_CHECKING:
    import pyarrow as pa

REJECTED = "_sdc_rejected"
"""Why a row does not fit, whose columns are null then; null for those that do."""


def read(
    settings: str, stream: str, given: Mapping[str, Any], columns: Mapping[str, Column], schema: pa.Schema
) -> Generator[pa.RecordBatch]:
    """Yield the rows of a job, those that do not fit included.

    Args:
        settings: As JSON text.
        stream: The export's name.
        given: The job, as the planner names it.
        columns: The columns that its stream has.
        schema: The same as Spark wants them, and `_sdc_rejected`.

    Raises:
        TapError: They can't be had, or are not what they have to be.
    """
    chosen = choose(settings, stream)
    vendor = chosen.vendor()
    # What a download leaves behind is of no use to anybody: another try may be another executor's.
    folders = Folders(msgspec.structs.replace(chosen.settings, ledger=""))
    try:
        export = chosen.stream(vendor.provider, columns=columns)
        window = _adopted(chosen, export, folders, given)
        runner = Runner(vendor.provider, Lane(chosen.settings.spool_limit), chosen.settings, vendor.stop)
        runner.run(window)
        while not window.job.ended and not given["handle"]:
            runner.run(window)  # another download is another job, and takes no more of the provider's cap
        if not window.job.ended:
            raise TapError(
                f"{window.attempts[-2].error}; an executor can't have it exported anew: make the DataFrame "
                "again, or start the stream with another checkpoint"
            )
        if window.job.error is not None:
            raise TapError(window.job.error)
        try:
            yield from _rows(chosen, export, window.job, schema)
        except ExportFailed as error:
            raise TapError(redaction.clean(f"{window.job}: {error}")) from None
    finally:
        folders.close()


def _adopted(
    chosen: Chosen, export: ExportStream, folders: Folders, given: Mapping[str, Any]
) -> PlannedWindow:
    """Go on with a job of the planner's, or begin one whose download is the job."""
    entry = entry_of_state(given)
    if entry is None:
        raise TapError(f"{export}: the offset's job is none of ours: {sorted(given)}")
    window = entry.window and Window(*entry.window)
    request = Request(chosen.export, window, None, entry.request, entry.export_id)
    planned = PlannedWindow(
        export.name, chosen.name, request, folders.ledger(export.key, str(export)), lambda _: None
    )
    if given["handle"]:
        planned.adopt(entry)
    return planned


def _rows(chosen: Chosen, export: ExportStream, job: Job, schema: pa.Schema) -> Generator[pa.RecordBatch]:
    from tap_analytics_exports.columns.arrow import record_batch
    from tap_analytics_exports.reading import WindowReader

    settings = chosen.settings
    window = job.window
    constants: dict[str, str | int | datetime | None] = {
        **export.constants,
        EXPORT_ID: job.export_id,
        WINDOW_START: window.start if window else None,
        WINDOW_END: window.end if window else None,
    }
    policy = "name" if settings.on_new_column == "add" else settings.on_new_column
    with closing(WindowReader(export, job.files, policy).frames()) as frames:
        for frame in frames:
            for row in frame.bad:
                job.count.reject(frame.file, row, settings)
            job.count.rows += frame.rows.height
            if frame.rows.height:
                batch = record_batch(frame.rows, frame.columns | export.own_columns, constants)
                yield _fitted(
                    {name: batch.column(name) for name in batch.schema.names}, batch.num_rows, schema
                )
            if frame.bad:
                numbers = [row.row_number for row in frame.bad]
                why = [
                    redaction.clean(f"{row.column}: {row.reason}" if row.column else row.reason)
                    for row in frame.bad
                ]
                yield _fitted(constants | {ROW_NUMBER: numbers, REJECTED: why}, len(numbers), schema)
    job.count.check()


def _fitted(values: Mapping[str, Any], height: int, schema: pa.Schema) -> pa.RecordBatch:
    """Make a batch of some columns, or of values that are the same in all rows; what is missing is null."""
    import pyarrow as pa

    arrays = []
    for field in schema:
        value = values.get(field.name)
        if value is None:
            arrays.append(pa.nulls(height, field.type))
        elif isinstance(value, list):
            arrays.append(pa.array(value, field.type))
        elif isinstance(value, pa.Array):
            arrays.append(value.cast(field.type))
        else:
            arrays.append(pa.repeat(pa.scalar(value, field.type), height))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
