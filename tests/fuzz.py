"""Fuzzes the parsers, guided by coverage; whatever a file holds, only `ExportFailed` leaves.

    python tests/fuzz.py --seconds 60

Each parser is fuzzed in a process of its own, with bounds for time and memory. What was found interesting
stays in .fuzz, where the next run goes on; so does an input that broke something, for
`python tests/fuzz.py --only csv .fuzz/crash-…`.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import logging
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import click
import xlsxwriter

FOLDER = Path(".fuzz")
TARGETS = ("csv", "json", "xlsx", "prove")
SECONDS_AN_INPUT, MEMORY_MB = 20, 1000
LARGEST = 4096


def seeds() -> list[bytes]:
    """Small files of all kinds, behind the byte that says how they are read."""
    table = b'a,"b ""c"""\r\n1,\r\n"x\ny",2\r\n'
    objects = json.dumps([{"a": 1, "b": [True, {"c": None}]}, {"b": "\u00e9\n", "d": -1.5e3}]).encode()
    with xlsxwriter.Workbook(workbook := io.BytesIO(), {"in_memory": True}) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["a", "b"])
        sheet.write_row(1, 0, [1.5, "x"])
    files = [table, b"sep=;\na;b\n1;2\n", objects, objects.decode().encode("utf-16"), workbook.getvalue()]
    for text in (table, objects):
        with zipfile.ZipFile(archive := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as folder:
            folder.writestr("rows", text)
        files += [gzip.compress(text), gzip.compress(text[:9]) + gzip.compress(text[9:]), archive.getvalue()]
    return [bytes([flags]) + file for file in files for flags in (0, 255)]


def parser(target: str, path: Path) -> Callable[[bytes], None]:
    """What tries one input; its first byte says how it is read, the others are the file."""
    from tap_analytics_exports.errors import ExportFailed
    from tap_analytics_exports.parse import ROW_NUMBER, Dialect, csv, frames, prove
    from tap_analytics_exports.parse import json as json_parser

    def read(flags: int) -> None:
        csv.BLOCK = csv.LEAST_BLOCK = json_parser.BLOCK = 64 if flags & 1 else 1 << 20
        csv.FRAME_ROWS = json_parser.FRAME_ROWS = csv.MOST_BAD = 3 if flags & 2 else 20_000
        dialect = Dialect(
            target,  # type: ignore[arg-type] # one of its formats
            encoding=(None, "utf-16-le", "cp1252", "shift_jis")[flags >> 2 & 3],
            delimiter=(None, ";")[flags >> 4 & 1],
            skip_rows=flags >> 5 & 1,
            quote=('"', "")[flags >> 6 & 1],
        )
        numbers: list[int] = []
        for frame in frames(path, dialect):
            numbers += frame.rows[ROW_NUMBER].to_list()
            numbers += [row.row_number for row in frame.bad]
        assert sorted(numbers) == list(range(1, len(numbers) + 1)), "each row is either there or a bad one"

    def try_out(data: bytes) -> None:
        path.write_bytes(data[1:])
        try:
            if target == "prove":
                prove(path)
            else:
                read(data[0] if data else 0)
        except ExportFailed:
            pass

    return try_out


def fuzz(target: str, seconds: int, inputs: list[str]) -> None:
    """Fuzz one parser for so long, or try some inputs alone; the process ends with it."""
    import atheris

    logging.disable()
    corpus = FOLDER / target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    with tempfile.TemporaryDirectory() as folder:
        with atheris.instrument_imports(include=["tap_analytics_exports.parse"]):
            try_out = parser(target, Path(folder, "file"))
        bounds = [f"-max_total_time={seconds}", f"-timeout={SECONDS_AN_INPUT}", f"-rss_limit_mb={MEMORY_MB}"]
        how = [f"-max_len={LARGEST}", f"-artifact_prefix={FOLDER}/", "-verbosity=0", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *bounds, *how, *(inputs or [str(corpus)])], try_out)
        atheris.Fuzz()


def main() -> int:
    """Fuzz all parsers; 1 if one of them broke."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--seconds", type=int, default=300, help="for each parser")
    arguments.add_argument("--only", choices=TARGETS)
    arguments.add_argument("inputs", nargs="*", help="to try alone")
    given = arguments.parse_args()
    if find_spec("atheris") is None:
        click.echo("The fuzzer is skipped: atheris has no wheel for this Python and system.")
        return 0
    if given.only:
        fuzz(given.only, given.seconds, given.inputs)
    broken = []
    for target in TARGETS:
        click.echo(f"{target}, for {given.seconds} seconds")
        command = [sys.executable, __file__, "--only", target, "--seconds", str(given.seconds)]
        if subprocess.run(command, check=False, timeout=given.seconds + 120).returncode:
            broken.append(target)
    click.echo(f"broken: {', '.join(broken)}" if broken else "nothing broke")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
