"""Which column is this, and what type has it: the one answer for schema, keys, casting and every way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tap_analytics_exports.columns.expected import Expectations, Expected, column, declared, two_such
from tap_analytics_exports.columns.naming import (
    OWN_PREFIX,
    Bound,
    Field,
    Names,
    Style,
    fields_of,
    loose,
    stem_of,
)
from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse.base import line
from tap_analytics_exports.settings import Column, ColumnKind, Export

if TYPE_CHECKING:
    import polars as pl

    from tap_analytics_exports.parse import BadRow, TextFrame

_DELIMITERS = {",": "','", ";": "';'", "\t": r"'\t', a tab", "|": "'|'"}
_SHOWN = 200  # characters of a header


class Columns:
    """Knows the names and types of an export's columns, for the life of its stream.

    A key of the settings means the column whose header or property name it is, exactly; where there is none,
    the one whose header is the same but for case, surrounding and repeated white space. What it means is
    announced under one property from the start, and that property is kept for it.

    Attributes:
        known: Property to type, in the order of the catalog, the provider's headers, `columns`, and
            `primary_keys`; `bind` adds those that are new.
        primary_keys: The properties that the export's `primary_keys` mean; empty if there are none.
        names: What a state has to remember: key of a column (`Field.key`; mostly its header) to property, of
            all but those that would be named alike without memory.
        listed: The provider's headers to their properties, without those that are excluded.

    Args:
        export: Whose `columns`, `primary_keys`, `exclude_columns`, `null_values` and `timezone` count.
        style: How headers become property names.
        dictionary: The provider's documented types, by header or property name.
        catalog: Property to type, of what an input catalog has.
        headers: What the provider lists before a run.
        names: `names`, as an earlier run's state remembers it.
    """

    def __init__(
        self,
        export: Export,
        *,
        style: Style,
        dictionary: Mapping[str, ColumnKind | Column],
        catalog: Mapping[str, Column] | None = None,
        headers: Sequence[str] = (),
        names: Mapping[str, str] | None = None,
    ) -> None:
        self._export = export
        self._style: Style = style
        self._dictionary = {name: column(given) for name, given in dictionary.items()}
        self._catalog = {
            name: kind for name, kind in (catalog or {}).items() if not name.startswith(OWN_PREFIX)
        }
        self._names = Names(style, names or {})
        self.names = dict(self._names.given)
        expected = self._expected = Expectations(export, fields_of(headers), self._names)
        self._unmatched_exclusions = list(export.exclude_columns)
        self._excluded: set[str] = set()  # keys of columns that once were, and so always are
        self._last: tuple[tuple[str, ...], list[Bound], frozenset[int], bool] | None = None
        self._words = {
            loose(text) for text in (*expected.by_text, *self._dictionary, *export.exclude_columns)
        }
        self._words |= {*self._catalog, *self._dictionary, *expected.by_name}
        self._words |= {loose(key) for key in self._names.given}

        self.listed = {
            header: expected.by_text[header].name
            for header in headers
            if not self._is_excluded(header, expected.by_text[header].name)
        }
        self.known: dict[str, Column] = {}
        for name in (*self._catalog, *expected.by_name):
            texts = expected.by_name[name].texts if name in expected.by_name else [name]
            if not any(self._is_excluded(text, name) for text in texts):
                self.known[name] = self._type(name, texts[0])
        self.primary_keys = list(
            dict.fromkeys(
                key if key.startswith(OWN_PREFIX) else expected.by_text[key].name
                for key in export.primary_keys or ()
            )
        )

    def bind(self, header: Sequence[str], *, growing: bool = False) -> list[Bound]:
        """Give each column of a header its property and its type; those that are excluded are left out.

        Args:
            header: The words of a file for its columns.
            growing: Whether there may be more of them, as in a JSON file before its end.

        Raises:
            ExportFailed: A key of the settings may mean two columns, two keys mean one and contradict each
                other, or nothing of the header is known where something should be.
        """
        if self._last is None or self._last[0] != tuple(header):  # a header is that of many frames
            self._last = (tuple(header), *self._bind(fields_of(header)))
        if not growing and not self._last[3]:
            raise self._nothing_known(header)
        return self._last[1]

    def cast(self, frame: TextFrame, bound: Sequence[Bound]) -> tuple[pl.DataFrame, list[BadRow]]:
        """Read the text of the bound columns as their types say.

        Types are String (string, decimal, and json, whose text is JSON on one line), Int64, Float64, Boolean,
        Date and Datetime("us", "UTC").

        Returns:
            The rows that fit, columns by property name and `ROW_NUMBER`; and all others, the frame's
            malformed ones included, in their order and without what excluded columns hold.
        """
        from tap_analytics_exports.columns.casting import cast

        self.bind(frame.header, growing=True)
        hidden = self._last[2] if self._last else frozenset()
        return cast(
            frame,
            bound,
            primary_keys=[key for key in self.primary_keys if not key.startswith(OWN_PREFIX)],
            timezone=self._export.timezone or "UTC",
            null_values=self._export.null_values,
            excluded=hidden if self._export.exclude_columns else None,
        )

    def check_empty(self, header: Sequence[str]) -> None:
        """Refuse a file that has but a header, and a header that looks like a message.

        Raises:
            ExportFailed: It is a single field, or a sentence, and nothing of it is known.
        """
        if not header or any(map(self._is_known, header)):
            return
        sentence = any(text[:1].isspace() for text in header[1:]) or header[-1].rstrip()[-1:] in tuple(".!?")
        if len(header) == 1 or sentence:
            raise ExportFailed(
                f"the file is a single line that looks like a message: {self._shown(header)}; if it is the "
                "header of a file without rows, name one of its columns in the export's `columns`"
            )

    @property
    def headers(self) -> list[str]:
        """The header that was bound last, without the columns that are excluded."""
        return [self._last[0][each.position] for each in self._last[1]] if self._last else []

    def unmatched(self) -> list[str]:
        """The keys of the settings that no header of a bound file has matched."""
        keys = [text for text in declared(self._export) if not self._expected.by_text[text].seen]
        return list(dict.fromkeys([*keys, *self._unmatched_exclusions]))

    def _is_excluded(self, text: str, name: str) -> bool:
        """Whether a column that is expected is one that never leaves, as far as can be told."""
        return any(
            each in (text, name) or loose(each) == loose(text) or self._names.plain_stem(each) == name
            for each in self._export.exclude_columns
        )

    def _type(self, name: str, text: str) -> Column:
        """The type of a column by property name and header: the settings', the catalog's, the provider's."""
        expected = self._expected.by_name.get(name)
        if expected is not None and expected.column is not None:
            return expected.column
        twin = self._expected.by_text.get(text)  # a header that repeats is declared for all of its columns
        if twin is not None and twin.column is not None and twin.column.name is None:
            return twin.column
        if name in self._catalog:
            return self._catalog[name]
        for key in (name, text, *(expected.texts if expected else ())):
            if key in self._dictionary:
                return self._dictionary[key]
        return Column("string")

    # When a file is seen

    def _bind(self, fields: Sequence[Field]) -> tuple[list[Bound], frozenset[int], bool]:
        """The columns that leave, the positions of those that don't, and whether anything is known."""
        matched = self._expected.match(fields)
        given = self._names.given
        properties = {each.key: given[each.key] for each in fields if each.key in given}
        properties |= {key: expected.name for key, expected in matched.items()}
        rest = [each for each in fields if each.key not in properties]
        free = self._expected.numbered(matched)
        properties |= self._names.derive(rest, free)
        matched |= {
            each.key: self._expected.by_name[properties[each.key]]
            for each in rest
            if properties[each.key] in free
        }
        hidden = self._exclude(fields, properties)
        known = bool(matched or hidden) or not (self._catalog or self._expected.by_text)
        if not known:
            words = [word for each in fields for word in (each.text, properties[each.key])]
            known = not words or any(map(self._is_known, words))
        for each in fields:
            self._settle(each, properties[each.key], matched.get(each.key), hide=each.position in hidden)
        bound = [
            Bound(each.position, name, self.known[name], name in self.primary_keys)
            for each in fields
            if each.position not in hidden and (name := properties[each.key])
        ]
        return bound, hidden, known

    def _settle(self, field: Field, name: str, expected: Expected | None, *, hide: bool) -> None:
        """Let a column have its property for good."""
        self._names.give(field.key, name)
        if expected is not None:
            expected.headers[field.key] = field.text
            expected.seen = True
        if hide:
            self._excluded.add(field.key)
            return
        if name not in self.known:
            self.known[name] = self._type(name, field.text)
        if not self.known[name].name and self._names.to_remember(field, name):
            self.names[field.key] = name

    def _exclude(self, fields: Sequence[Field], properties: Mapping[str, str]) -> frozenset[int]:
        """The positions of the columns that are excluded."""
        hidden = {each.position for each in fields if each.key in self._excluded}
        names = {*properties.values()}
        for text in self._export.exclude_columns:
            found = [
                each
                for each in fields
                if text in (each.text, properties[each.key])
                or (text not in names and text == stem_of(each, self._style))
            ]
            if not found:
                found = [each for each in fields if loose(each.text) == loose(text)]
                if len(found) > 1:
                    raise two_such(text, found[0], found[1])
            hidden |= {each.position for each in found}
            if found and text in self._unmatched_exclusions:
                self._unmatched_exclusions.remove(text)
        return frozenset(hidden)

    def _is_known(self, word: str) -> bool:
        return loose(word) in self._words or stem_of(Field(0, word, word), self._style) in self._words

    def _nothing_known(self, header: Sequence[str]) -> ExportFailed:
        """What to say of a header of which nothing is known."""
        hint = "check the export's `columns`, `primary_keys` and `skip_rows`"
        for delimiter, shown in _DELIMITERS.items():
            parts = [
                part.strip(' "') for text in header if delimiter in text for part in text.split(delimiter)
            ]
            if any(map(self._is_known, parts)):
                hint = f"set the export's `delimiter` to {shown}, which parts it"
                break
        return ExportFailed(
            f"nothing is known of the file's header, {self._shown(header)}, where columns such as "
            f"{', '.join([*self._catalog, *self._expected.by_name][:5])} should be: {hint}"
        )

    def _shown(self, header: Sequence[str]) -> str:
        """A header to show, unless it may hold what is never to leave."""
        if self._export.exclude_columns:
            return f"{len(header)} fields (not shown, as `exclude_columns` is set)"
        text = line(header)
        return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
