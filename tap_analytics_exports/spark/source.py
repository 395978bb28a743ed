"""The data source as Spark knows it: Spark's verbs, each a question to the planner or a job to read.

Spark copies these objects from process to process, so they hold nothing but values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pyspark.sql.datasource import DataSource, DataSourceReader, DataSourceStreamReader, InputPartition
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
from pyspark.sql.streaming.datasource import ReadLimit, ReadMaxFiles, SupportsTriggerAvailableNow
from pyspark.sql.types import StructType

from tap_analytics_exports.errors import SettingsError
from tap_analytics_exports.exports import TEXT
from tap_analytics_exports.jobs.job import now
from tap_analytics_exports.settings import Column
from tap_analytics_exports.spark import planner
from tap_analytics_exports.spark.asking import Door, ask
from tap_analytics_exports.spark.chosen import choose
from tap_analytics_exports.spark.reading import REJECTED, read

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "analytics_exports"

MICRO_BATCH = 100
"""Windows of a micro-batch, at most: so an offset stays small, and rows arrive before all are ready."""

Offset = dict[str, str]


@dataclass
class Jobs(InputPartition):
    """What a task reads: jobs, one after the other."""

    given: Sequence[planner.Given]


class Way(NamedTuple):
    """The way to the planner, and what each question to it begins with."""

    address: str
    key: bytes
    settings: str
    stream: str

    def ask(self, verb: Any, *arguments: Any) -> Any:
        """Ask the planner.

        Raises:
            TapError: It can't do what is asked for.
        """
        return ask(self.address, self.key, verb, self.settings, self.stream, *arguments)

    def partitions(self, given: Sequence[planner.Given]) -> list[InputPartition]:
        """Give each job a task; those whose download is the job share as many as may run at once."""
        apart = [Jobs([job]) for job in given if job["handle"]]
        together = [job for job in given if not job["handle"]]
        provider = choose(self.settings, self.stream).vendor().provider
        most = min(provider.concurrent_exports, len(together))
        return [*apart, *(Jobs(together[i::most]) for i in range(most))]

    def read(
        self, partition: InputPartition, columns: Mapping[str, Column], schema: StructType
    ) -> Iterator[pa.RecordBatch]:
        """Read the jobs of a partition."""
        given = partition.given if isinstance(partition, Jobs) else ()
        arrow = to_arrow_schema(schema, timezone="UTC")
        return chain.from_iterable(read(self.settings, self.stream, job, columns, arrow) for job in given)


class AnalyticsExports(DataSource):
    """One export, as its options name it."""

    address: str
    key: bytes

    def __init__(self, options: Mapping[str, str]) -> None:
        super().__init__(options)
        missing = [f"option {name}: is required" for name in ("settings", "stream") if not options.get(name)]
        if missing:
            raise SettingsError(missing)
        # Read here, on the driver's machine, for executors need not have the file.
        self.way = Way(self.address, self.key, _text(options["settings"]), options["stream"])
        self.columns: dict[str, Column] = {}
        choose(self.way.settings, self.way.stream)

    @classmethod
    def name(cls) -> str:
        """As `format` takes it."""
        return NAME

    def schema(self) -> StructType:
        """The columns that are declared or known, ours, and why a row was rejected."""
        from tap_analytics_exports.columns.arrow import arrow_schema

        chosen = choose(self.way.settings, self.way.stream)
        self.columns = chosen.stream(chosen.vendor().provider).known_columns
        schema: StructType = from_arrow_schema(arrow_schema({**self.columns, REJECTED: TEXT}))
        return schema

    def reader(self, schema: StructType) -> DataSourceReader:
        """For `spark.read`."""
        self._check_schema()
        return BatchReader(self.way, self.columns, schema)

    def streamReader(self, schema: StructType) -> DataSourceStreamReader:  # noqa: N802 - Spark's name
        """For `spark.readStream`."""
        self._check_schema()
        chosen = choose(self.way.settings, self.way.stream)
        if chosen.export.incremental and chosen.export.lookback:
            raise SettingsError(
                [f"stream {chosen.export.name}: lookback: a query takes each window once; leave it out"]
            )
        return StreamReader(self.way, self.columns, schema)

    def _check_schema(self) -> None:
        if not self.columns:
            raise SettingsError(
                ["schema: is the settings' own; name columns in the export's `columns`, not in .schema()"]
            )


class BatchReader(DataSourceReader):
    """A DataFrame: Spark asks for its partitions once, and each action reads them."""

    def __init__(self, way: Way, columns: Mapping[str, Column], schema: StructType) -> None:
        self._way, self._columns, self._schema = way, columns, schema

    def partitions(self) -> list[InputPartition]:
        """Wait until all its jobs are ready."""
        return self._way.partitions(self._way.ask(planner.batch))

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Read a partition, in an executor."""
        return self._way.read(partition, self._columns, self._schema)


class StreamReader(DataSourceStreamReader, SupportsTriggerAvailableNow):
    """A query: an offset is where the windows end that it has, and the jobs of the last of them."""

    def __init__(self, way: Way, columns: Mapping[str, Column], schema: StructType) -> None:
        self._way, self._columns, self._schema = way, columns, schema
        self._until: str | None = None

    def initialOffset(self) -> Offset:  # noqa: N802 - Spark's name
        """Before the first window."""
        start = choose(self._way.settings, self._way.stream).export.start_date
        return {"end": (start or planner.EPOCH).isoformat(), "jobs": "[]"}

    def prepareForTriggerAvailableNow(self) -> None:  # noqa: N802 - Spark's name
        """Take in where this query is to end."""
        self._until = now().isoformat()

    def getDefaultReadLimit(self) -> ReadLimit:  # noqa: N802 - Spark's name
        """Bound a micro-batch, where Spark is not told to take all at once."""
        return ReadMaxFiles(MICRO_BATCH)

    def latestOffset(self, start: Offset, limit: ReadLimit) -> Offset:  # noqa: N802 - Spark's name
        """Wait until the next windows are ready; their jobs are in the offset, so in Spark's checkpoint."""
        most = limit.max_files if isinstance(limit, ReadMaxFiles) else None
        found = self._way.ask(planner.micro_batch, start["end"], self._until, most)
        return start if found is None else {"end": found[0], "jobs": json.dumps(found[1])}

    def partitions(self, start: Offset, end: Offset) -> list[InputPartition]:
        """Read the jobs out of the offset, the same ones when a batch is repeated."""
        return [] if start == end else self._way.partitions(json.loads(end["jobs"]))

    def commit(self, end: Offset) -> None:
        """Say that the sink has the rows of these jobs."""
        if end["jobs"] != "[]":
            self._way.ask(planner.committed, json.loads(end["jobs"]))

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Read a partition, in an executor."""
        return self._way.read(partition, self._columns, self._schema)


@lru_cache(maxsize=1)
def data_source() -> type[DataSource]:
    """Make the class that Spark copies to its processes, with the way to this process's planner in it."""
    door = Door()

    # In a function, so that it is copied with its values, and not imported by its name.
    class Here(AnalyticsExports):
        address, key = door.address, door.key

    return Here


def _text(option: str) -> str:
    """Read the option `settings`, JSON or the path of a file of it.

    Raises:
        SettingsError: There is no such file.
    """
    if option.lstrip().startswith("{"):
        return option
    try:
        return Path(option).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError([f"option settings: {option}: {error.strerror}"]) from None
