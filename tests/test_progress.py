"""What people see of a run: lines while it waits, its summary, the SDK's metrics, and the page about it."""

import json
import logging
import os
import pty
import re
import shutil
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from conftest import TAP, run_tap, start_tap

from tap_analytics_exports import redaction
from tap_analytics_exports.jobs.status import JobStatus, duration, size
from tap_analytics_exports.progress import Progress, streams, summary, waiting
from tap_analytics_exports.report import OPEN_JOBS, Report
from tap_analytics_exports.windows import Window

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
DAY = Window(datetime(2026, 11, 26, tzinfo=UTC), datetime(2026, 11, 27, tzinfo=UTC))


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def job(stream: str = "calls", **how) -> JobStatus:
    """A job that was loaded: triggered after 1 s, ready after 5, here after 6, written from 7 to 8."""
    usual = {
        "provider": "intelepeer",
        "window": DAY,
        "export_id": "5dbd8b5d-63a5-4a2a-8b0c-0a2a3b4c5d6e",
        "attempt": 1,
        "retried": False,
        "resumed": False,
        "stage": "ended",
        "word": "",
        "planned_at": NOW,
        "submitted_at": after(1),
        "ready_at": after(5),
        "downloaded_at": after(6),
        "writing_at": after(7),
        "finished_at": after(8),
        "files": 2,
        "bytes": 12_345,
        "rows": 1_200,
        "rejected": 0,
        "first_rejected": "",
        "result": "loaded",
        "error": None,
    }
    return JobStatus(stream, **{**usual, **how})


def running(word: str = "processing", **how) -> JobStatus:
    later = dict.fromkeys(("ready_at", "downloaded_at", "writing_at", "finished_at", "result"))
    return job(stage="running", word=word, files=0, bytes=0, rows=0, **later, **how)


FAILED = job(
    "posts",
    provider="khoros_care",
    rows=0,
    result="failed",
    error="khoros_care, stream posts, window 2026-11-26T00:00:00+00:00/2026-11-27T00:00:00+00:00: closed "
    "with TERMINATED <b>, the password was open-sesame-42",
)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (185, "3 min 5 s"), (7_440, "2 h 4 min")]
)
def test_spans_of_time_are_written_for_people(seconds, text):
    assert duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (812, "812 B"), (999_499, "999 kB"), (1_234_567, "1.23 MB"), (4.2e12, "4,200 GB")],
)
def test_bytes_are_written_for_people(number, text):
    assert size(number) == text


def test_a_window_that_has_ended_is_told_in_a_line():
    ended = job(rejected=3, first_rejected="row 7 of a.csv, column Age: '007' is no integer")
    assert str(ended) == (
        "loaded, ready after 4 s, 2 files of 12.3 kB, 1,200 rows, 3 rejected, the first because: row 7 of "
        "a.csv, column Age: '007' is no integer"
    )


def test_what_a_run_waits_for_is_its_oldest_job_at_a_vendor():
    jobs = [job(), running(submitted_at=after(60)), running("queued", submitted_at=after(5), stream="dtmf")]
    assert waiting(jobs, after(65)) == (
        "waiting for 2 jobs; the oldest, of stream dtmf, has run for 1 min 0 s at intelepeer, which calls it "
        "'queued'"
    )
    assert waiting([job()], after(65)) is None


def test_a_run_that_only_waits_says_so_again_and_again(caplog):
    caplog.set_level(logging.INFO, "tap_analytics_exports")
    run = SimpleNamespace(jobs=[running()], bookmarks={})
    with Progress(run, timedelta(seconds=0.1)):
        until = time.monotonic() + 30
        while sum("waiting for 1 job" in line for line in caplog.messages) < 2:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_a_stream_has_windows_that_are_done_and_time_that_is_left():
    jobs = [
        job(finished_at=after(10), result="failed", retried=True),
        job(finished_at=after(20)),
        job(finished_at=after(50)),
        running(),
        running(),
    ]
    (calls,) = streams(jobs)
    assert (calls.windows, calls.done, calls.job, calls.rows) == (4, 2, jobs[3], 2_400)
    assert calls.left == timedelta(seconds=60)


def test_a_run_is_summed_up_by_stream():
    jobs = [job(), job(result="empty", rows=0), FAILED, running("queued", stream="dtmf")]
    bookmarks = {"calls": DAY.end, "posts": None, "dtmf": None, "tags": DAY.end}
    assert list(summary(jobs, bookmarks, timedelta(seconds=62))) == [
        "the run took 1 min 2 s: 4 jobs, 1 empty, 1 failed, 1 loaded, 1 not finished; 1,200 rows, 0 rejected",
        "stream calls: 2 jobs, 1 empty, 1 loaded; 1,200 rows, 0 rejected; bookmark 2026-11-27 00:00:00+00:00",
        "stream dtmf: 1 job, 1 not finished; 0 rows, 0 rejected; bookmark none yet",
        "stream posts: 1 job, 1 failed; 0 rows, 0 rejected; bookmark none yet",
        "stream tags: nothing to export; bookmark 2026-11-27 00:00:00+00:00",
    ]


# Through the front door


def test_the_log_has_a_line_a_window_a_summary_and_the_metrics_of_the_sdk(sandbox):
    config = sandbox.config("gooee")
    with start_tap(config) as process:
        _, errors = process.communicate(timeout=60)
    assert re.search(r"gooee, stream gooee_energy, snapshot: loaded, ready after \d+ s, 1 file of", errors)
    assert "2 jobs, 2 loaded; 200 rows, 0 rejected" in errors
    points = [json.loads(line.split("METRIC: ")[1]) for line in errors.splitlines() if "METRIC: " in line]
    counts = {p["tags"]["stream"]: p["value"] for p in points if p["metric"] == "record_count"}
    assert counts == {"gooee_energy": 100, "gooee_occupancy": 100}
    timers = {(p["metric"], p["tags"]["stream"], p["tags"]["status"]) for p in points if p["type"] == "timer"}
    assert timers == {
        (metric, stream, "succeeded")
        for metric in ("job_duration", "sync_duration")
        for stream in ("gooee_energy", "gooee_occupancy")
    }


def test_on_a_terminal_a_line_a_stream_is_drawn_below_the_log(sandbox, tmp_path):
    sandbox.post("settings", {"job_seconds": 2})
    path = tmp_path / "config.json"
    path.write_text(json.dumps(sandbox.config("gooee")))
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200", "XDG_STATE_HOME": str(tmp_path)}
    command = [TAP, "--config", path]
    out = tmp_path / "out"
    with (
        out.open("wb") as file,
        subprocess.Popen(command, stdout=file, stderr=theirs, env=environment) as process,
    ):
        os.close(theirs)
        seen = b""
        while True:
            try:
                seen += os.read(ours, 1 << 16)
            except OSError:  # the other end is closed
                break
        assert process.wait(60) == 0
    os.close(ours)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode()).replace("\r", "\n").splitlines()
    assert any(re.match(r"gooee_energy +0 of 1 +running \(\w+\) +\d s", line) for line in lines)
    assert any(re.match(r"gooee_energy +1 of 1 +done", line) for line in lines)
    assert any(re.search(r"INFO .*gooee_energy, snapshot: loaded", line) for line in lines)
    messages = [json.loads(line) for line in out.read_text().splitlines()]
    assert {message["type"] for message in messages} >= {"SCHEMA", "RECORD", "STATE"}


def test_the_page_about_a_run_says_what_failed(sandbox, tmp_path):
    failing = {"service": "khoros_care", "match": "conversation", "times": None, "outcome": "terminated"}
    sandbox.post("settings", {"fail_jobs": [failing]})
    config = sandbox.config("khoros_care")
    page = tmp_path / "report.html"
    result = run_tap(config, "--report", str(page))
    assert result.exit_code == 3
    text = page.read_text()
    assert "Some exports failed, the others were written in full" in text
    assert "<b>khoros_conversations</b>" in text
    assert "TERMINATED" in text
    assert config["khoros_care"]["password"] not in text


def test_the_page_is_written_too_when_a_run_is_stopped(sandbox, tmp_path):
    sandbox.post("settings", {"job_seconds": 60})
    page = tmp_path / "report.html"
    with start_tap(sandbox.config("gooee"), "--report", str(page)) as process:
        while not sandbox.get("jobs"):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 143
    assert "Stopped by SIGTERM" in page.read_text()
    assert "not finished: running at the vendor" in page.read_text()


def test_a_page_that_cannot_be_written_ends_the_run_before_any_request(sandbox, tmp_path):
    result = run_tap(sandbox.config("gooee"), "--report", str(tmp_path / "no" / "report.html"))
    assert result.exit_code == 1
    assert f"--report: {tmp_path}/no/report.html: No such file or directory; name a file" in result.stderr
    assert not sandbox.get("requests")


# The page


def report(*jobs: JobStatus) -> str:
    return Report(jobs, NOW, after(60), "Some exports failed").page()


def test_texts_of_vendors_are_no_part_of_the_page_and_secrets_are_not_in_it():
    redaction.hide("open-sesame-42")
    page = report(job(), FAILED)
    assert "closed with TERMINATED &lt;b&gt;, the password was" in page
    assert "open-sesame-42" not in page


def test_the_page_tells_of_each_job_how_long_it_was_at_each_stage():
    page = report(job(resumed=True, attempt=2, rejected=2, first_rejected="row 3 of b.csv: too few fields"))
    assert (
        'aria-label="queued 1 s; running at the vendor 4 s; downloading 1 s; here, waiting for its turn 1 s; '
        'writing 1 s"'
    ) in page
    assert '<i class="running" style="left:1.67%;width:6.67%">' in page
    assert "loaded, try 2, resumed" in page
    assert "2 rows rejected, the first because: row 3 of b.csv: too few fields" in page


def test_what_an_earlier_run_had_fetched_only_waits_for_its_turn():
    page = report(job(resumed=True, submitted_at=after(-60), ready_at=None, downloaded_at=None))
    assert 'aria-label="here, waiting for its turn 7 s; writing 1 s"' in page


def test_a_run_of_nothing_has_a_page_too():
    assert "There was nothing to export." in report()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_into_a_window_of_any_width_and_can_be_read(tmp_path, scheme):
    """In a real browser, which may ask for nothing but the page."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        assert "REQUIRE_SERVERS" not in os.environ, "chromium is missing"
        pytest.skip("needs chromium")
    many = [job(f"stream_{'x' * 60}", window=None)] + [job("many") for _ in range(OPEN_JOBS + 1)]
    long = job("long", rejected=1, first_rejected="x" * 300)
    (tmp_path / "report.html").write_text(report(*many, FAILED, long, running(window=None)))
    frames = "".join(
        f'<iframe src="report.html" style="width:{width}px;height:900px"></iframe>' for width in (1280, 390)
    )
    script = """
        const seen = (frame) => {
          const page = frame.contentDocument.documentElement;
          const style = frame.contentWindow.getComputedStyle(frame.contentDocument.body);
          return [page.scrollWidth, page.clientWidth, style.color, style.backgroundColor];
        };
        addEventListener("load", () => {
          document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(seen));
        });"""
    (tmp_path / "frames.html").write_text(f"<title></title><script>{script}</script>{frames}")
    command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--blink-settings=preferredColorScheme={('dark', 'light').index(scheme)}"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{tmp_path}/frames.html"]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    (title,) = re.findall("<title>(.*)</title>", dom)
    wide, narrow = json.loads(title)
    for scroll, client, color, background in (wide, narrow):
        assert scroll <= client
        text, page = (sum(map(int, re.findall(r"\d+", value)[:3])) for value in (color, background))
        assert (text > page) is (scheme == "dark")
        assert abs(text - page) > 400
    assert (wide[1], narrow[1]) > (1200, 300)
