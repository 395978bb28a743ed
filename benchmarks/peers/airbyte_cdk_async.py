# /// script
# requires-python = ">=3.11"
# dependencies = ["airbyte-cdk==7.39.1"]
# ///
"""An Airbyte source of one asynchronous stream, declared for its CDK: create a job, poll, download.

The configuration says the `base_url` of the vendor, the `file` that it is to send and the `schema` of its
columns, to which the CDK normalizes each value. It writes Airbyte's RECORD messages.
"""

import json
import sys
from pathlib import Path
from typing import Any

from airbyte_cdk.entrypoint import launch
from airbyte_cdk.sources.declarative.concurrent_declarative_source import ConcurrentDeclarativeSource


def manifest(config: dict[str, Any]) -> dict[str, Any]:
    """The source, declared."""

    def requester(base: str, path: str, method: str = "GET") -> dict[str, Any]:
        return {"type": "HttpRequester", "url_base": base, "path": path, "http_method": method}

    def field(*path: str) -> dict[str, Any]:
        return {"type": "DpathExtractor", "field_path": list(path)}

    url, decoder = config["base_url"], {"type": "CsvDecoder", "set_values_to_none": [""]}
    stream = {
        "type": "DeclarativeStream",
        "name": "rows",
        "schema_loader": {"type": "InlineSchemaLoader", "schema": config["schema"]},
        "retriever": {
            "type": "AsyncRetriever",
            "creation_requester": requester(url, f"/jobs/{config['file']}", "POST"),
            "polling_requester": requester(url, "/jobs/{{ creation_response['id'] }}"),
            "download_requester": requester("", "{{ download_target }}"),
            "status_extractor": field("status"),
            "status_mapping": {name: [name] for name in ("running", "completed", "failed", "timeout")},
            "download_target_extractor": field("url"),
            "download_decoder": {"type": "GzipDecoder", "decoder": decoder},
            "record_selector": {
                "type": "RecordSelector",
                "extractor": field(),
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


if __name__ == "__main__":
    declared = manifest(json.loads(Path(sys.argv[2]).read_text()))
    stream = {"name": "rows", "json_schema": {}, "supported_sync_modes": ["full_refresh"]}
    entry = {"stream": stream, "sync_mode": "full_refresh", "destination_sync_mode": "append"}
    Path("empty.json").write_text("{}")
    Path("catalog.json").write_text(json.dumps({"streams": [entry]}))
    source = ConcurrentDeclarativeSource(config={}, source_config=declared)
    launch(source, ["read", "--config", "empty.json", "--catalog", "catalog.json"])
