# /// script
# requires-python = ">=3.11"
# dependencies = ["airbyte-cdk==7.39.1"]
# ///
"""An Airbyte source of one asynchronous stream, declared for its CDK: create a job, poll, download.

    python benchmarks/peers/airbyte_cdk_async.py --config config.json

The configuration says the `base_url` of the vendor, the `file` it is to send and the `types` of its columns;
the schema has them, and the CDK normalizes each value to it. It writes Airbyte's RECORD messages.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from airbyte_cdk.entrypoint import launch
from airbyte_cdk.sources.declarative.concurrent_declarative_source import ConcurrentDeclarativeSource

KINDS: dict[str, dict[str, Any]] = {
    "integer": {"type": ["integer", "null"]},
    "number": {"type": ["number", "null"]},
    "decimal": {"type": ["string", "null"]},
    "boolean": {"type": ["boolean", "null"]},
    "date": {"type": ["string", "null"], "format": "date"},
    "timestamp": {"type": ["string", "null"], "format": "date-time"},
    "string": {"type": ["string", "null"]},
}


def manifest(config: dict[str, Any]) -> dict[str, Any]:
    """The source, declared."""
    schema = {"type": "object", "properties": {n: KINDS[kind] for n, kind in config["types"].items()}}

    def requester(path: str, method: str = "GET") -> dict[str, Any]:
        return {"type": "HttpRequester", "url_base": config["base_url"], "path": path, "http_method": method}

    stream = {
        "type": "DeclarativeStream",
        "name": "rows",
        "schema_loader": {"type": "InlineSchemaLoader", "schema": schema},
        "retriever": {
            "type": "AsyncRetriever",
            "creation_requester": requester(f"/jobs/{config['file']}", "POST"),
            "polling_requester": requester("/jobs/{{ creation_response['id'] }}"),
            "download_requester": requester("{{ download_target }}") | {"url_base": ""},
            "status_extractor": {"type": "DpathExtractor", "field_path": ["status"]},
            "status_mapping": {
                "running": ["running"],
                "completed": ["ready"],
                "failed": ["failed"],
                "timeout": ["timeout"],
            },
            "download_target_extractor": {"type": "DpathExtractor", "field_path": ["url"]},
            "download_decoder": {
                "type": "GzipDecoder",
                "decoder": {"type": "CsvDecoder", "set_values_to_none": [""]},
            },
            "record_selector": {
                "type": "RecordSelector",
                "extractor": {"type": "DpathExtractor", "field_path": []},
                "schema_normalization": "Default",
            },
        },
    }
    return {
        "version": "7.0.0",
        "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": ["rows"]},
        "streams": [stream],
        "spec": {"type": "Spec", "connection_specification": {"type": "object", "properties": {}}},
    }


def main() -> None:
    """Read the stream."""
    config = json.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    source = ConcurrentDeclarativeSource(config={}, source_config=manifest(config))
    stream = {"name": "rows", "json_schema": {}, "supported_sync_modes": ["full_refresh"]}
    entry = {"stream": stream, "sync_mode": "full_refresh", "destination_sync_mode": "append"}
    with tempfile.TemporaryDirectory() as folder:
        empty, catalog = Path(folder, "config.json"), Path(folder, "catalog.json")
        empty.write_text("{}")
        catalog.write_text(json.dumps({"streams": [entry]}))
        launch(source, ["read", "--config", str(empty), "--catalog", str(catalog)])


if __name__ == "__main__":
    main()
