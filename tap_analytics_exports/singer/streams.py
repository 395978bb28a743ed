"""The streams as the SDK knows them: schema, selection, stream maps. Their rows come from elsewhere."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from typing import Any

from singer_sdk import Stream, Tap
from singer_sdk.helpers.conform import TypeConformanceLevel
from singer_sdk.mapper import RemoveRecordTransform, SameRecordTransform
from singer_sdk.singerlib import ActivateVersionMessage, Catalog, Message

from tap_analytics_exports import events
from tap_analytics_exports.columns.schema import column_of, property_schema
from tap_analytics_exports.exports import COUNT, TEXT, WINDOW_END, Wanted
from tap_analytics_exports.settings import Batch, Column

TABLE_VERSION = "_sdc_table_version"
"""Where SDK targets keep the version of a record; in a batch, the record itself has to bring it along."""


class TapStream(Stream):
    """One stream.

    Args:
        tap: The tap.
        stream: What the core says of it.
        batch: How its rows go as files; None: as RECORD messages.
    """

    TYPE_CONFORMANCE_LEVEL = TypeConformanceLevel.NONE  # it would make "false" true

    def __init__(self, tap: Tap, stream: events.Stream, batch: Batch | None) -> None:
        self.batch = batch
        self._own = stream.own
        self._incremental = stream.window_key is not None
        self._columns = dict(stream.columns)
        super().__init__(tap, {"type": "object", "properties": self._properties()}, stream.name)
        self.primary_keys = list(stream.primary_key)
        self.replication_key = WINDOW_END if self._incremental else events.GROWS_BY.get(stream.name)
        self.version = stream.version
        self.announced = False

    def apply_catalog(self, catalog: Catalog) -> None:
        """Take selection and keys from the catalog; its types go through the core, which reads by them."""
        super().apply_catalog(catalog)
        self._given = (self._input_schema or {}).get("properties", {})
        self._input_schema = None

    @property
    def wanted(self) -> Wanted:
        """What the core has to know of the catalog."""
        given = getattr(self, "_given", {})
        columns = {name: column for name in given if (column := column_of(given[name])) is not None}
        return Wanted(columns, frozenset(name for name in self._columns if not self.mask["properties", name]))

    def know(self, columns: Mapping[str, Column]) -> bool:
        """Learn of columns, and tell whether the target has to be told of the schema."""
        new = [name for name in columns if name not in self._columns]
        self._columns |= {name: columns[name] for name in new}
        return bool(new) or not self.announced

    def update(self, stream: events.Stream) -> None:
        """Take the columns and the version that the core has now that it knows the catalog."""
        self._columns, self.version = dict(stream.columns), stream.version

    def selects(self, name: str) -> bool:
        """Tell whether a property is selected, as keys always are."""
        return name in self.primary_keys or self.mask["properties", name]

    def schema_messages(self) -> Iterable[Message]:
        """Make the SCHEMA of what is sent from now on: the selected properties, as rows have them."""
        properties = {name: each for name, each in self._properties().items() if self.selects(name)}
        batch = self.batch
        if batch and batch.encoding.format == "parquet":  # no type of Parquet's comes back as any JSON value
            text = property_schema(TEXT)
            properties |= {n: text for n in properties if self._columns[n].type == "json"}
        if batch and self.version is not None:
            properties[TABLE_VERSION] = property_schema(COUNT)
        schema = {"type": "object", "properties": properties}
        self._tap.mapper.register_raw_stream_schema(self.name, schema, self.primary_keys)
        self._stream_maps = None
        self.announced = True
        return self._generate_schema_messages()

    def activate_version(self) -> Message:
        """Make the message that lets a target remove the rows of former snapshots."""
        assert self.version is not None  # only snapshots are asked
        return ActivateVersionMessage(self.name, self.version)

    @property
    def batchable(self) -> bool:
        """Whether batches can hold the records that the SDK would make, or there are none."""
        return self.passes_unchanged or all(
            isinstance(each, RemoveRecordTransform) for each in self.stream_maps
        )

    @property
    def passes_unchanged(self) -> bool:
        """Whether the records that the SDK would make of a frame are the frame's own.

        Flattening changes no record of a stream whose schema it does not change.
        """
        (first, *more) = self.stream_maps
        return (
            not more and type(first) is SameRecordTransform and first.transformed_schema == first.raw_schema
        )

    def _properties(self) -> dict[str, Any]:
        """Make the JSON Schema of each column; ours are never null, but for a snapshot's window."""
        given = getattr(self, "_given", {})
        properties = {}
        for name, column in self._columns.items():
            schema = property_schema(column)
            if name in self._own and (self._incremental or column.type != "timestamp"):
                schema["type"] = schema["type"][0]
            elif name in given and column_of(given[name]) == column:
                schema = given[name]
            properties[name] = schema
        return properties

    # What the SDK would do by itself

    def get_records(self, context: Mapping[str, Any] | None) -> Iterable[dict[str, Any]]:
        """Make no record: rows come from elsewhere."""
        return ()

    def _sync_records(
        self, context: Mapping[str, Any] | None = None, *, write_messages: bool = True
    ) -> Generator[dict[str, Any]]:
        yield from ()
