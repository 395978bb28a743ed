"""A page about a run, for a browser without a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from importlib import resources
from itertools import groupby
from pathlib import Path
from string import Template

from tap_analytics_exports.errors import SettingsError
from tap_analytics_exports.jobs.status import JobStatus, amount, duration, size
from tap_analytics_exports.redaction import clean

OPEN_JOBS = 60
"""A stream with more jobs than this is folded at first."""

_STAGES = {
    "queued": "queued",
    "running": "running at the vendor",
    "downloading": "downloading",
    "fetched": "here, waiting for its turn",
    "writing": "writing",
}


@dataclass(frozen=True, slots=True)
class Report:
    """A run that has ended, or was stopped.

    Attributes:
        jobs: Its jobs, in the order of their rows.
        began: When it began, in UTC.
        ended: When it ended, in UTC.
        outcome: How, in a few words.
    """

    jobs: Sequence[JobStatus]
    began: datetime
    ended: datetime
    outcome: str

    def page(self) -> str:
        """Make the page, in HTML; there is no secret in it."""
        template = resources.files("tap_analytics_exports").joinpath("report.html").read_text("utf-8")
        return Template(template).substitute(
            title=f"Run of {self.began:%Y-%m-%d %H:%M} UTC",
            subtitle=_text(f"{self.outcome}, after {duration(self.ended - self.began)}"),
            tiles="".join(self._tiles()),
            problems="".join(self._problems()),
            timeline="".join(self._timeline()),
            footer="Made by tap-analytics-exports. Times are in UTC; bytes are those of the vendors' files.",
        )

    def _tiles(self) -> Iterator[str]:
        results = [job.result for job in self.jobs]
        numbers = {
            "jobs": f"{len(results):,}",
            "loaded": f"{results.count('loaded'):,}",
            "empty": f"{results.count('empty'):,}",
            "failed": f"{results.count('failed'):,}",
            "not finished": f"{results.count(None):,}",
            "resumed": f"{sum(job.resumed for job in self.jobs):,}",
            "rows": f"{sum(job.rows for job in self.jobs):,}",
            "rejected rows": f"{sum(job.rejected for job in self.jobs):,}",
            "bytes": size(sum(job.bytes for job in self.jobs)),
        }
        for name, number in numbers.items():
            yield f"<div><dt>{name}</dt><dd>{number}</dd></div>"

    def _problems(self) -> Iterator[str]:
        """List what failed, was tried again or rejected, and why."""
        lines = []
        for job in self.jobs:
            where = f"<b>{_text(job.stream)}</b>, {_window(job)}"
            if job.error is not None and not job.retried:
                lines.append(f'<li class="failed">{where}: failed. {_reason(job)}</li>')
            elif job.error is not None:
                lines.append(f"<li>{where}: try {job.attempt} failed, and another one was made. "
                             f"{_reason(job)}</li>")  # fmt: skip
            if job.rejected:
                lines.append(
                    f"<li>{where}: {amount(job.rejected, 'row')} rejected, the first because: "
                    f"{_text(job.first_rejected)}. All of them are in the stream rejected_rows.</li>"
                )
        if lines:
            yield f'<h2>What went wrong</h2><ul class="problems">{"".join(lines)}</ul>'

    def _timeline(self) -> Iterator[str]:
        if not self.jobs:
            yield "<p>There was nothing to export.</p>"
            return
        legend = "".join(f'<li><span class="{name}"></span>{text}</li>' for name, text in _STAGES.items())
        yield f'<ul class="legend">{legend}</ul>'
        for name, group in groupby(self.jobs, key=lambda job: job.stream):
            jobs = list(group)
            rows, arrived = sum(job.rows for job in jobs), sum(job.bytes for job in jobs)
            counts = f"{amount(len(jobs), 'job')}, {amount(rows, 'row')}, {size(arrived)}"
            yield (
                f"<details{' open' if len(jobs) <= OPEN_JOBS else ''}><summary><b>{_text(name)}</b>"
                f'<span class="soft">{_text(jobs[0].provider)}: {counts}</span></summary><table><thead><tr>'
                f'<th class="window" scope="col">window</th><th scope="col"><span class="axis">'
                f"<span>{self.began:%H:%M:%S}</span><span>{self.ended:%H:%M:%S}</span></span></th>"
                '<th class="count number" scope="col">rows</th>'
                '<th class="count number" scope="col">bytes</th>'
                '<th class="how" scope="col">result</th></tr></thead><tbody>'
            )
            yield from map(self._row, jobs)
            yield "</tbody></table></details>"

    def _row(self, job: JobStatus) -> str:
        result = job.result or "unfinished"
        marks = [result if job.result else f"not finished: {_STAGES.get(job.stage, job.stage)}"]
        marks += [f"try {job.attempt}"] * (job.attempt > 1) + ["resumed"] * job.resumed
        spans = [(stage, *span) for stage, span in self._spans(job)]
        told = "; ".join(f"{_STAGES[stage]} {duration(end - start)}" for stage, start, end in spans)
        bars = "".join(
            f'<i class="{stage}" style="left:{self._share(start):.2f}%;'
            f'width:{self._share(end) - self._share(start):.2f}%"></i>'
            for stage, start, end in spans
        )
        return (
            f'<tr><th scope="row">{_window(job)}</th><td class="time"><div class="bar" role="img" '
            f'aria-label="{told}" title="{told}">{bars}</div></td>'
            f'<td class="number rows">{job.rows:,}<span class="soft">{_also(job.rejected)}</span></td>'
            f'<td class="number">{size(job.bytes)}</td>'
            f'<td class="{result}">{", ".join(marks)}</td></tr>'
        )

    def _spans(self, job: JobStatus) -> Iterator[tuple[str, tuple[datetime, datetime]]]:
        """Say from when to when a job was at each stage, as far as it was within this run."""
        ends = (job.submitted_at, job.ready_at, job.downloaded_at, job.writing_at, job.finished_at)
        start = job.planned_at
        for i, (stage, end) in enumerate(zip(_STAGES, ends, strict=True)):
            if end is None and any(ends[i + 1 :]) and job.writing_at:
                continue  # which an earlier run did
            until = end or job.finished_at or self.ended
            if until > start:
                yield stage, (start, until)
                start = until
            if end is None:
                return

    def _share(self, at: datetime) -> float:
        """Tell where a timestamp lies between the begin and the end of the run, in percent."""
        whole = max(self.ended - self.began, timedelta(milliseconds=1))
        return min(max((at - self.began) / whole, 0.0), 1.0) * 100


def check_writable(path: Path) -> None:
    """See whether a report can be written.

    Raises:
        SettingsError: It can't.
    """
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise SettingsError(
            [f"--report: {path}: {error.strerror}; name a file in a folder that is there"]
        ) from None


def _reason(job: JobStatus) -> str:
    """Take from an error what says where, which stands beside it already."""
    window = f"window {job.window}" if job.window else "snapshot"
    where = f"{job.provider}, stream {job.stream}, {window}: "
    return _text((job.error or "").removeprefix(where))


def _window(job: JobStatus) -> str:
    if job.window is None:
        return "snapshot"
    start, end = (f"{at:%Y-%m-%d}" if at == _midnight(at) else f"{at:%Y-%m-%d %H:%M}" for at in (
        job.window.start, job.window.end
    ))  # fmt: skip
    return f"<span>{start}</span> <span>to {end}</span>"


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def _also(rejected: int) -> str:
    return f" and {rejected:,} rejected" if rejected else ""


def _text(text: str) -> str:
    return escape(clean(text))
