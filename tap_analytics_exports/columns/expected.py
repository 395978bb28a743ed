"""The columns that settings and provider name before any file has shown them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tap_analytics_exports.columns.naming import OWN_PREFIX, Field, Names, loose
from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.settings import Column, ColumnKind, Export


@dataclass(slots=True, eq=False)
class Expected:
    """A column whose property is announced and reserved.

    Attributes:
        texts: What it is called by settings and provider: headers or property names.
        declared: Whether the settings name it, or the provider alone.
        column: The type that the settings give it, if they do.
        name: Its property.
        headers: The columns of files that it was found to be, by key.
        seen: Whether a file of this run had it.
    """

    texts: list[str]
    declared: bool = False
    column: Column | None = None
    name: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    seen: bool = False

    @property
    def forms(self) -> set[str]:
        """What headers look like that are as good as its own, where a file has none of those."""
        return {loose(text) for text in (*self.texts, *self.headers.values())}


class Expectations:
    """What is expected of a header.

    Attributes:
        by_text: What is expected, by each text that it is called.
        by_name: The same, by property.

    Args:
        export: Whose `columns` and `primary_keys` count.
        headers: What the provider lists.
        names: Where properties are reserved.
    """

    def __init__(self, export: Export, headers: Sequence[Field], names: Names) -> None:
        self._names = names
        self._contradiction: str | None = None
        self.by_text = {each.text: Expected([each.text]) for each in headers}
        provisional = names.derive(headers)
        by_name = {
            provisional[each.key]: self.by_text[each.text] for each in headers if each.key == each.text
        }
        self._keys = frozenset(export.primary_keys or ())
        for text, column in declared(export).items():
            expected = self._declare(text, column, by_name)
            if expected.column is not None and expected.column.name is not None:
                by_name[expected.column.name] = expected
        self._reserve()
        self.by_name = {each.name: each for each in self.by_text.values()}

    def match(self, fields: Sequence[Field]) -> dict[str, Expected]:
        """The expected columns that a header has, by key.

        Raises:
            ExportFailed: One may be two columns, or the settings contradict themselves.
        """
        if self._contradiction:
            raise ExportFailed(self._contradiction)
        owners: dict[str, list[Field]] = defaultdict(list)
        for one in fields:
            if one.key in self._names.given:
                owners[self._names.given[one.key]].append(one)
        matched: dict[str, Expected] = {}
        for found in (self._exact, self._by_property, self._alike):
            there = set(matched.values())
            missing = [each for each in dict.fromkeys(self.by_text.values()) if each not in there]
            left = [each for each in fields if each.key not in matched]
            matched |= found(missing, left, owners)
        return matched

    def numbered(self, matched: Mapping[str, Expected]) -> set[str]:
        """Property names that are expected and not found, which only a number may make, such as calls_2."""
        there = set(matched.values())
        return {
            text
            for text, each in self.by_text.items()
            if each.name == text and not each.headers and each not in there
        }

    # Before a file is seen

    def _declare(self, text: str, column: Column | None, by_name: Mapping[str, Expected]) -> Expected:
        """Take up a key of the settings, with the type that it gives."""
        expected = self.by_text.get(text) or by_name.get(text) or self._same(text) or Expected([])
        if column is not None and expected.column not in (None, column):
            if column.name != expected.column.name:
                expected = Expected([])
            else:
                self._contradiction = (
                    f"`columns` has {expected.texts[0]!r} and {text!r}, which mean one column, and differ: "
                    "keep one, or give each a `name`"
                )
        expected.declared = True
        expected.column = expected.column or column
        if text not in expected.texts:
            expected.texts.append(text)
        self.by_text[text] = expected
        return expected

    def _same(self, text: str) -> Expected | None:
        """The expected column that a key means, though it is called otherwise."""
        stem = self._names.plain_stem
        near = {each for other, each in self.by_text.items() if loose(other) == loose(text)} or {
            each for other, each in self.by_text.items() if stem(other) == text or stem(text) == other
        }
        return near.pop() if len(near) == 1 else None

    def _reserve(self) -> None:
        """Give all that is expected its property: its `name`, the one it has had, or the one it derives."""
        given, taken = self._names.given, self._names.taken
        forms = Counter(map(loose, given))
        key_of = {name: key for key, name in given.items()}
        key_of |= {loose(key): key for key in given if forms[loose(key)] == 1} | {key: key for key in given}
        unnamed = {}
        for index, each in enumerate(dict.fromkeys(self.by_text.values())):
            had = (key_of.get(form) for text in each.texts for form in (text, loose(text)))
            key = next((key for key in had if key in given), None)
            if each.column is not None and each.column.name is not None:
                each.name = each.column.name
                taken.add(each.name)
                given.pop(key or "", None)  # stays reserved, for when the setting goes
            elif key is not None:
                each.name = given[key]
                each.headers[key] = key
            else:
                unnamed[each.texts[0]] = (Field(index, each.texts[0], each.texts[0]), each)
        for text, name in self._names.derive([each for each, _ in unnamed.values()]).items():
            unnamed[text][1].name = name
            taken.add(name)
        for each in list(self.by_text.values()):
            if not each.declared and each.name not in self.by_text:
                each.texts.append(each.name)

    # When a file is seen

    def _exact(
        self, expected: Sequence[Expected], fields: Sequence[Field], owners: Mapping[str, list[Field]]
    ) -> dict[str, Expected]:
        """Those whose header is there."""
        by_text: dict[str, list[Field]] = defaultdict(list)
        for one in fields:
            by_text[one.text].append(one)
        matched = {}
        for each in expected:
            found = [
                one
                for text in each.texts
                for one in by_text.get(text, ())
                if self._names.given.get(one.key, each.name) == each.name
            ]
            if not found:
                continue
            first, *more = found
            # Of a header that repeats, the first is meant; the others have its type, unless it is a key.
            same = all(one.text == first.text for one in more)
            if not each.declared or (same and self._keys.isdisjoint(each.texts)):
                more = []
            more += [one for one in owners.get(each.name, ()) if one is not first]
            if more:
                raise two_such(each.texts[0], first, more[0])
            matched[first.key] = each
        return matched

    def _by_property(
        self, expected: Sequence[Expected], fields: Sequence[Field], owners: Mapping[str, list[Field]]
    ) -> dict[str, Expected]:
        """Those whose property is that of a header, by what it has been or what it will derive."""
        derived = self._names.plainest(each for each in fields if each.key not in self._names.given)
        matched: dict[str, Expected] = {}
        for each in expected:
            found = owners.get(each.name, [])
            if not found and not each.headers:
                found = [derived[text] for text in each.texts if text in derived]
            if len(found) > 1:
                raise two_such(each.texts[0], *found[:2])
            if found and found[0].key not in matched:
                matched[found[0].key] = each
        return matched

    def _alike(
        self, expected: Sequence[Expected], fields: Sequence[Field], owners: Mapping[str, list[Field]]
    ) -> dict[str, Expected]:
        """Those whose header is there but for case and white space."""
        by_form: dict[str, list[Field]] = defaultdict(list)
        for one in fields:
            if one.key not in self._names.given:
                by_form[loose(one.text)].append(one)
        matched: dict[str, Expected] = {}
        for each in expected:
            near = [one for form in each.forms for one in by_form.get(form, ()) if one.key not in matched]
            if len(near) > 1:
                raise two_such(each.texts[0], *near[:2])
            if near:
                matched[near[0].key] = each
        return matched


def declared(export: Export) -> dict[str, Column | None]:
    """The keys of an export's `columns` and `primary_keys`, with the types that they give."""
    types: dict[str, Column | None] = {key: column(given) for key, given in export.columns.items()}
    for key in export.primary_keys or ():
        if not key.startswith(OWN_PREFIX):
            types.setdefault(key)
    return types


def column(given: ColumnKind | Column) -> Column:
    """A column's settings, where its type alone may be given."""
    return given if isinstance(given, Column) else Column(given)


def two_such(text: str, first: Field, second: Field) -> ExportFailed:
    """What to say where a key of the settings may mean either of two columns."""
    return ExportFailed(
        f"the settings' column {text!r} may be the file's {first.text!r} (column {first.position + 1}) or "
        f"{second.text!r} (column {second.position + 1}): name it by its header, exactly, or its property"
    )
