"""What one export shows of a stream's columns: their types, an example of each, and what may be a key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.exports import ExportStream
from tap_analytics_exports.jobs.folders import Folders
from tap_analytics_exports.jobs.job import Job, Outcome
from tap_analytics_exports.jobs.schedule import Jobs
from tap_analytics_exports.redaction import clean_data
from tap_analytics_exports.settings import Column, ColumnKind

if TYPE_CHECKING:
    import polars as pl

    from tap_analytics_exports.columns.naming import Bound

SAMPLE_ROWS = 10_000
SAMPLE_BYTES = 64 << 20
"""No more is read of an export than this, as text in memory."""


@dataclass(frozen=True, slots=True)
class SampledColumn:
    """What was seen of a column.

    Attributes:
        key: By which `columns` can name it: its header, or where that names no single column its property.
        column: Its type: that of the settings, the catalog or the vendor's dictionary, else a guess.
        example: A value; None: there was none.
        note: What the values leave open; empty: nothing.
        unique: Whether it was never null, and no value came twice.
    """

    key: str
    column: Column
    example: str | None
    note: str
    unique: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen of a stream.

    Attributes:
        stream: Its name.
        provider: The provider's.
        window: The span that was exported, in UTC; None: a snapshot.
        rows: How many rows were read.
        columns: The columns, in the order of the file.
        problem: Why there is nothing to see; None: there is.
    """

    stream: str
    provider: str
    window: tuple[datetime, datetime] | None
    rows: int = 0
    columns: Sequence[SampledColumn] = field(default_factory=list)
    problem: str | None = None


def sample(exports: Iterable[ExportStream], jobs: Jobs, folders: Folders, end: datetime) -> Iterator[Sample]:
    """Export a window of each stream, and look at its columns.

    Args:
        exports: The exports.
        jobs: Carries their jobs out.
        folders: Where their ledgers are.
        end: The exclusive end of a run, in UTC.
    """
    windows = []
    for export in exports:
        window = export.sample(end, folders.ledger(export.key, str(export)), jobs.tell)
        jobs.plan([window])
        windows.append((export, window))
    jobs.start()
    for export, window in windows:
        while not window.job.ended:
            jobs.drain(wait=True)
        jobs.leave(window)
        yield _sample(export, window.job)
        window.ledger.remember_headers(export.columns.headers)
        for job in window.attempts:
            if job.outcome is Outcome.FAILED:  # which is nothing that a run has to tell of
                window.ledger.forget(job.export_id)


def _sample(export: ExportStream, job: Job) -> Sample:
    window = (job.window.start, job.window.end) if job.window else None
    name, provider = export.name, export.provider.name
    if job.error is not None:
        return Sample(name, provider, window, problem=job.error)
    try:
        rows, columns = _columns(export, job)
    except ExportFailed as error:
        return Sample(name, provider, window, problem=f"{job}: {error}")
    return Sample(name, provider, window, rows, columns)


def _columns(export: ExportStream, job: Job) -> tuple[int, list[SampledColumn]]:
    """Read some rows, and say what their columns are.

    Raises:
        ExportFailed: The files can't be read.
    """
    import polars as pl

    from tap_analytics_exports.parse import frames

    header: tuple[str, ...] = ()
    read: list[pl.DataFrame] = []
    rows, size = 0, 0.0
    dated = False
    for file in job.files:
        for frame in frames(file.path, export.provider.dialect(export.export)):
            if header[: len(frame.header)] != frame.header[: len(header)]:
                break  # another header: of another version of the report
            header = max(header, frame.header, key=len)
            dated = dated or frame.dated
            read.append(frame.rows.head(SAMPLE_ROWS - rows))
            rows += read[-1].height
            size += read[-1].estimated_size()
            if rows >= SAMPLE_ROWS or size >= SAMPLE_BYTES:
                break
        else:
            continue
        break
    bound = export.columns.bind(header) if header else []
    together = pl.concat(read, how="diagonal") if read else pl.DataFrame()
    return rows, [
        _look(export, header, bound, each, _texts(together, each, export.export.null_values), dated=dated)
        for each in bound
    ]


def _texts(rows: pl.DataFrame, bound: Bound, null_values: Sequence[str]) -> pl.Series:
    """Read the text of a column, null where it means null."""
    import polars as pl

    name = str(bound.position)
    texts = rows[name] if name in rows.columns else pl.Series(name, [], dtype=pl.String)
    return texts.set(texts.is_in(null_values), None) if null_values else texts


def _look(
    export: ExportStream,
    header: Sequence[str],
    bound: Sequence[Bound],
    each: Bound,
    texts: pl.Series,
    *,
    dated: bool,
) -> SampledColumn:
    from tap_analytics_exports.columns.guessing import TEXT, Guess, Seen

    word = header[each.position]
    seen = Seen(word, texts, export.export.timezone or "UTC", dated=dated)
    given: Mapping[str, ColumnKind | Column] = export.export.columns
    if each.column != TEXT or word in given or each.name in given:
        note = "" if seen.fits(each.column) else "not all values that were seen are of this type"
        guess = Guess(each.column, note)
    else:
        guess = seen.guess()
    words = [header[other.position] for other in bound]
    names = [other.name for other in bound]
    single = words.count(word) == 1 and (word == each.name or word not in names)
    unique = len(texts) > 1 and not texts.null_count() and texts.n_unique() == len(texts)
    example = clean_data(seen.texts[0]) if len(seen.texts) else None
    return SampledColumn(word if single else each.name, guess.column, example, guess.note, unique)
