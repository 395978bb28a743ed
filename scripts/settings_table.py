"""Write the tables of settings in README.md from the tap's own schema; with `--check`, only compare.

python scripts/settings_table.py [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tap_analytics_exports.providers import installed
from tap_analytics_exports.settings import Export, json_schema

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->\n"


def tables() -> str:
    """All tables, as Markdown."""
    blocks = {name: provider.settings_type for name, provider in installed().items()}
    top = json_schema(blocks)["properties"]
    shared = set(Export.__struct_fields__)
    parts = ["Of the top level:\n", *_table({k: v for k, v in top.items() if k not in blocks}, ())]
    exports = {name: top[name]["properties"].pop("exports") for name in blocks}
    some = next(iter(exports.values()))["items"]
    parts += ["\nOf every export:\n", *_table(_only(some["properties"], shared), some["required"])]
    for name in blocks:
        parts += [f"\nOf `{name}`:\n", *_table(top[name]["properties"], top[name].get("required", ()))]
        entry = exports[name]["items"]
        own = {key: value for key, value in entry["properties"].items() if key not in shared}
        parts += [f"\nOf each entry of `{name}.exports`, besides:\n", *_table(own, entry["required"])]
    return "\n".join(parts) + "\n"


def _only(properties: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {key: value for key, value in properties.items() if key in names}


def _table(properties: dict[str, Any], required: Any) -> Iterator[str]:  # noqa: ANN401 - any container
    yield "| setting | type | default | meaning |\n| --- | --- | --- | --- |"
    for name, schema in properties.items():
        default = "**required**" if name in required else _code(schema.get("default"))
        secret = ", secret" if schema.get("secret") else ""
        yield f"| `{name}` | {_kind(schema)}{secret} | {default} | {schema.get('description', '')} |"


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " / ".join(f"`{word}`" for word in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"])
    return str(schema.get("format", schema.get("type", "any")))


def _code(value: Any) -> str:  # noqa: ANN401 - any default
    return "" if value in (None, [], {}) else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def main() -> None:
    """Write, or compare."""
    text = README.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    new = before + BEGIN + tables() + END + after
    if "--check" in sys.argv:
        sys.exit(new != text and "README.md does not show the settings as they are: run this without --check")
    README.write_text(new)


if __name__ == "__main__":
    main()
