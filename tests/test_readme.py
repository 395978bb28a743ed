"""What the README and the pages in docs/ say holds."""

import json
import re
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from conftest import run_tap

from tap_analytics_exports.extraction import settings_types
from tap_analytics_exports.settings import decode
from tap_analytics_exports.state import State

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
}
PROVIDERS = ("flex_insights", "intelepeer", "khoros_care", "gooee", "giosg")
CONFIGURATIONS = {
    name: json.loads(re.findall(r"```json\n(.*?)```", PAGES[f"docs/providers/{name}.md"], re.DOTALL)[0])
    for name in PROVIDERS
}


def blocks(language: str) -> dict[str, str]:
    """All blocks of code in a language, by page and number."""
    return {
        f"{page}-{number}": block
        for page, text in PAGES.items()
        for number, block in enumerate(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL))
    }


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub("```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_smallest_configuration_of_a_provider_has_one_export_of_it_alone(provider):
    config = CONFIGURATIONS[provider]
    assert config.keys() - {"start_date"} == {provider}
    assert len(decode(config, settings_types()).providers[provider].exports) == 1


@pytest.mark.parametrize("block", blocks("json").values(), ids=blocks("json"))
def test_every_json_block_is_a_configuration_a_part_of_one_or_a_state(block):
    given = json.loads(block if block.startswith("{") else f"{{{block}}}")
    if "bookmarks" in given:
        assert State(given).stream(next(iter(given["bookmarks"]))).bookmark
        return
    whole = CONFIGURATIONS["flex_insights"]
    if "columns" in given:
        exports = [{**whole["flex_insights"]["exports"][0], **given}]
        given = {"flex_insights": {**whole["flex_insights"], "exports": exports}}
    if not given.keys() & settings_types().keys():
        given = {**whole, **given}
    decode({"start_date": "2026-01-01T00:00:00Z", **given}, settings_types())


@pytest.mark.parametrize("block", blocks("python").values(), ids=blocks("python"))
def test_every_python_block_compiles(block):
    compile(block, "block", "exec")


@pytest.fixture
def calls_of_two_days(sandbox, tmp_path, monkeypatch):
    """A configuration in the working folder, whose last window's end is returned."""
    monkeypatch.chdir(tmp_path)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    config = sandbox.config(
        "intelepeer", ledger="", start_date=f"{today - timedelta(days=2)}", end_date=f"{today}"
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    return today.isoformat()


def run_example(page: str) -> None:
    """Run the page's only block of Python."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)
    exec(compile(block, page, "exec"), {})


def test_the_example_of_the_readme_runs(calls_of_two_days, tmp_path, capsys):
    run_example("README.md")
    said = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("calls ") and line.endswith(" loaded") for line in said) == 2
    assert "export_runs 1" in said
    bookmarks = json.loads((tmp_path / "state.json").read_text())["bookmarks"]
    assert bookmarks["calls"]["replication_key_value"] == calls_of_two_days


def test_the_example_of_the_library_runs(calls_of_two_days, tmp_path, capsys):
    run_example("docs/library.md")
    assert capsys.readouterr().out == ""
    runs = [json.loads(line) for line in (tmp_path / "export_runs.jsonl").read_text().splitlines()]
    assert {run["status"] for run in runs} <= {"loaded", "empty"}
    rows = sum(pq.read_metadata(path).num_rows for path in tmp_path.glob("rows/calls-*.parquet"))
    assert rows == sum(run["rows"] for run in runs if run["stream"] == "calls") > 0
    bookmarks = json.loads((tmp_path / "state.json").read_text())["bookmarks"]
    assert bookmarks["calls"]["replication_key_value"] == calls_of_two_days


@pytest.mark.parametrize("page", PAGES)
def test_every_link_within_the_repository_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", PAGES[page]):
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent.joinpath(path) if path else ROOT / page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text()), target


def test_every_page_has_its_place_in_the_navigation():
    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    pages = [f"docs/{page}" for section in nav for part in section.values() for page in part]
    assert sorted(pages) == sorted(page for page in PAGES if page.startswith("docs/"))


def test_every_option_of_the_tap_in_a_block_of_shell_exists():
    known = set(re.findall(r"--[a-z-]+", run_tap({}, "--help").stdout))
    text = "\n".join([*blocks("sh").values(), *blocks("bash").values()])
    lines = re.findall(r"(?<!meltano add )\btap-analytics-exports (--[^|>#\n]*)", text)
    used = {option for line in lines for option in re.findall(r"(?<!\S)--[a-z-]+", line)}
    assert {"--config", "--state", "--test"} <= used <= known


@pytest.fixture
def latest_rows():
    """The exports whose rows the view has, given runs in their order: export, window, status."""
    (view,) = re.findall(r"```sql\n(.*?)```", PAGES["docs/latest-rows.md"], re.DOTALL)
    (model,) = re.findall(r"```jinja\n(.*?)```", PAGES["docs/latest-rows.md"], re.DOTALL)

    def of(*runs, stream="calls"):
        with duckdb.connect() as database:
            database.execute(
                "create table export_runs (export_id text, window_start int, window_end int, status text, "
                "stream text, finished_at int)"
            )
            database.execute("create table calls (_sdc_export_id text, _sdc_row_number int)")
            for time, (export, window, status) in enumerate(runs):
                run = [export, *(window or (None, None)), status, stream, time]
                database.execute("insert into export_runs values (?, ?, ?, ?, ?, ?)", run)
                if status == "loaded":
                    database.execute("insert into calls values (?, 1), (?, 2)", [export, export])
            database.execute(view)
            found = database.execute("select _sdc_export_id from calls_latest order by 1").fetchall()
            statement = re.sub(r"\{\{ source\('exports', '(\w+)'\) }}", r"\1", model)
            assert sorted(row[:1] for row in database.execute(statement).fetchall()) == found
            assert all(found.count(row) == 2 for row in found)
            return "".join(export for (export,) in found[::2])

    return of


@pytest.mark.parametrize(
    ("runs", "kept"),
    [
        pytest.param([("a", (0, 8), "loaded"), ("b", (8, 16), "loaded")], "ab", id="each window once"),
        pytest.param([("a", (0, 8), "loaded"), ("b", (0, 8), "loaded")], "b", id="the last of a window"),
        pytest.param([("a", (0, 5), "loaded"), ("b", (0, 8), "loaded")], "b", id="cut, then whole"),
        pytest.param([("a", (0, 8), "loaded"), ("b", (0, 8), "empty")], "", id="become empty"),
        pytest.param(
            [("a", (0, 8), "loaded"), ("b", (0, 8), "failed")], "a", id="a failure counts for nothing"
        ),
        pytest.param(
            [("a", (0, 4), "loaded"), ("b", (4, 8), "loaded"), ("c", (0, 8), "loaded")],
            "c",
            id="halves, then whole",
        ),
        pytest.param(
            [("a", (0, 8), "loaded"), ("b", (0, 4), "loaded"), ("c", (4, 8), "loaded")],
            "bc",
            id="whole, then halves",
        ),
        pytest.param(
            [("a", (0, 8), "loaded"), ("b", (0, 4), "loaded")], "ab", id="a half does not replace the whole"
        ),
        pytest.param([("a", None, "loaded"), ("b", None, "loaded")], "b", id="snapshots"),
    ],
)
def test_the_view_of_the_latest_rows_keeps_those_that_no_later_export_covers(latest_rows, runs, kept):
    assert latest_rows(*runs) == kept


def test_the_view_of_the_latest_rows_is_of_one_stream(latest_rows):
    assert latest_rows(("a", (0, 8), "loaded"), stream="messages") == ""


def test_every_file_and_folder_of_the_code_that_is_named_is_there():
    names = re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:/|\.py))`", README.partition("## Work on it")[2])
    assert {"settings/", "jobs/", "extraction.py"} <= set(names)
    for name in names:
        places = (
            ROOT / name,
            ROOT / "tap_analytics_exports" / name,
            ROOT / "tap_analytics_exports/jobs" / name,
        )
        assert any(place.exists() for place in places), name


def test_each_make_target_that_is_named_is_there():
    makefile = (ROOT / "Makefile").read_text()
    pages = README + PAGES["CONTRIBUTING.md"]
    for target in set(re.findall(r"(?:`|^)make ([a-z]+)", pages, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
