"""XML of workbooks taken apart into its tags, all of a block at once, by where its bytes `<` and `>` are."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal
from xml.sax.saxutils import escape

import polars as pl
import pyarrow as pa

from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse.base import as_numbers, in_one_go, places_of

if TYPE_CHECKING:
    from collections.abc import Iterator

Element = Literal["row", "si"]

# Those of one letter are neighbours.
_NAMES = {name: code for code, name in enumerate(("c", "v", "f", "t", "is", "si", "row", "rPh"), 1)}
_NAME = 15  # the bits that say the name
_EMPTY, _END = 16, 32  # added for an element that ends where it starts, and for an end tag
_CODES = 64

# What nearly every sheet and every table of texts is made of (ECMA-376, part 1, 18.3.1 and 18.4.8).
_CHILDREN: dict[str, tuple[str, ...]] = {
    "row": ("c",),
    "c": ("f", "v", "is"),
    "is": ("t",),
    "si": ("t",),
    **dict.fromkeys(("f", "v", "t"), ()),
}
_WITH_TEXT = ("v", "f", "t")
_WITHOUT_TEXT = tuple(_CHILDREN.keys() - set(_WITH_TEXT))

PADDING = b" " * 32  # behind the start of a tag, more is never looked at
_LONGEST = len("/row>")

_COMMENT = re.compile("<!--.*?-->", re.DOTALL)
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_ELEMENT = re.compile("""<((?:[^<>"']|"[^"<]*"|'[^'<]*')*)>([^<]*)""")


@dataclass(frozen=True, slots=True)
class Tags:
    """Tags of some XML in their order.

    Attributes:
        data: The XML in UTF-8, and `PADDING` behind it.
        start: Of each tag, the place of its `<`.
        end: The place of its `>`.
        behind: The place of the next tag's `<`.
        code: Its name, as far as that is known.
    """

    data: bytes
    start: pl.Series
    end: pl.Series
    behind: pl.Series
    code: pl.Series

    def named(self, name: str) -> pl.Series:
        """Which of them have a name."""
        return self.code == _NAMES[name]

    def tags(self) -> pl.Series:
        """What stands in each tag."""
        return self.strings(self.start + 1, self.end)

    def texts(self) -> pl.Series:
        """What stands between each tag and the next."""
        return self.strings(self.end + 1, self.behind)

    def signs(self, count: int) -> pl.LazyFrame:
        """So many bytes behind the `<` of each tag, as columns `1`, `2`, …."""
        here = pl.repeat(value=False, n=len(self.data), eager=True).scatter(self.start, values=True)
        return _signs(as_numbers(self.data), here, count)

    def strings(self, starts: pl.Series, ends: pl.Series) -> pl.Series:
        """What stands from a place to another, pair by pair; each place is behind those before it."""
        if not len(starts):
            return pl.Series([], dtype=pl.String)
        # In Arrow's memory a text ends where the next one starts, so what is between two is one, too.
        places = pl.select(pl.concat_arr(pl.lit(starts), pl.lit(ends))).to_series().reshape((-1,))
        buffers = [None, places.to_arrow().buffers()[1], pa.py_buffer(self.data)]
        texts = pa.Array.from_buffers(pa.string(), len(places) - 1, buffers)
        return pl.Series(texts.cast(pa.string_view())).gather_every(2)

    def filter(self, which: pl.Series) -> Tags:
        """Some of them."""
        start, end, behind, code = (
            each.filter(which) for each in (self.start, self.end, self.behind, self.code)
        )
        return Tags(self.data, start, end, behind, code)


def tags(xml: bytes, element: Element) -> Tags:
    """The start tags of some whole elements, and of all within them.

    Args:
        xml: UTF-8, and `PADDING` behind it; names have no prefix.
        element: The name of the outermost elements.

    Raises:
        ExportFailed: It is not well-formed, or there is text where only elements can be.
    """
    found = _cut(xml)
    found = found and _told_by_signs(found, element)
    if found is None:
        text = _CDATA.sub(lambda text: escape(text[1]), _COMMENT.sub("", xml.decode()))
        found = _cut(_ELEMENT.sub(_with_one_end, text).encode())
        found = found and _told_by_name(found)
    if found is None:
        raise unreadable("it is not well-formed")
    found = found.filter(found.code < _END)
    return replace(found, code=found.code & _NAME)


def _cut(xml: bytes) -> Tags | None:
    """All tags, their codes without names; None if they are not parted by texts."""
    signs = as_numbers(xml)
    ends = signs == ord(">")
    start, end = places_of(signs == ord("<")), places_of(ends)
    if len(start) != len(end) or xml[: start[0] if len(start) else None].strip():
        return None
    behind = start.shift(-1, fill_value=len(xml) - len(PADDING))
    if not ((start < end).all() and (end < behind).all()):
        return None
    last = signs.head(-1).filter(ends.slice(1))
    code = (last == ord("/")).cast(pl.UInt8) * _EMPTY
    return Tags(xml, start, end, behind, code.alias("code"))


def _told_by_signs(found: Tags, element: Element) -> Tags | None:
    """All tags, told apart by their first bytes.

    None unless all elements are known ones, in each other where they belong, with nothing between them.
    """
    if not len(found.code):
        return found
    data = as_numbers(found.data)
    told = (
        _signs(data, data == ord("<"), _LONGEST)
        .with_columns_seq(
            pl.lit(found.code) + pl.lit(_codes()).gather(pl.col("1").cast(pl.UInt32) * 256 + pl.col("2")),
            (pl.lit(found.behind) - pl.lit(found.end) == 1).alias("bare"),
        )
        .select_seq(
            "code",
            _is_usual(element).alias("usual"),
            pl.col("bare") | pl.col("code").is_in([_NAMES[name] for name in _WITH_TEXT]),
        )
    )
    code, usual, bare = in_one_go(told).get_columns()
    root = _NAMES[element]
    if code[0] not in (root, root + _EMPTY) or code[-1] not in (root + _END, root + _EMPTY) or not usual[0]:
        return None
    if not bare.all() and not _is_blank(found.filter(~bare).texts()):
        return None
    return replace(found, code=code)


@functools.cache
def _is_usual(element: Element) -> pl.Expr:
    """Whether all tags are known ones to their ends, and each may come after the one before it."""
    code = pl.col("code")
    steps = code.cast(pl.UInt16) * _CODES + code.shift(-1)
    usual = steps.is_in(_can_follow(element).implode()).all()
    short = [_NAMES[name] + _END for name in _CHILDREN if len(name) == 1]
    usual &= ((pl.col("3") == ord(">")) | ~code.is_between(min(short), max(short))).all()
    for name in filter(lambda name: len(name) > 1, _within(element)):
        own = _NAMES[name]
        start, end = (code == own) | (code == own + _EMPTY), code == own + _END
        for which, letters in (start, name), (end, f"/{name}>"):
            for i, letter in enumerate(letters.encode()[2:], 3):
                usual &= (pl.col(str(i)).filter(which) == letter).all()
        usual &= pl.col(str(len(name) + 1)).filter(start).is_in(list(b" />")).all()
    return usual


def _told_by_name(found: Tags) -> Tags | None:
    """All tags, told apart by their whole names; None if elements don't end where they have to."""
    tags = found.tags().str.extract_groups(r"^(?<end>/?)(?<name>[^\s/]+)").struct.unnest()
    tags = tags.with_columns((found.code & _EMPTY > 0).alias("empty"), pl.col("end") == "/")
    if tags["name"].null_count():
        return None
    with_none = tags["end"] | tags["empty"] | tags["name"].is_in(_WITHOUT_TEXT)
    if not _is_blank(found.filter(with_none).texts()):
        return None
    nested = tags.filter(~pl.col("empty"))
    depth = pl.when("end").then(-1).otherwise(1).cum_sum() + pl.col("end").cast(pl.Int32)
    nested = nested.sort(depth, maintain_order=True)
    start, end = nested.gather_every(2), nested.gather_every(2, offset=1)
    if not start["name"].equals(end["name"]) or start["end"].any() or not end["end"].all():
        return None
    code = tags["name"].replace_strict(_NAMES, default=0, return_dtype=pl.UInt8)
    code += tags["end"].cast(pl.UInt8) * _END + tags["empty"].cast(pl.UInt8) * _EMPTY
    return replace(found, code=code)


def _is_blank(texts: pl.Series) -> bool:
    return not texts.str.contains(r"\S").any()


def _with_one_end(element: re.Match[str]) -> str:
    """A tag and the text behind it, with no other `>` than the tag's."""
    tag, text = (part.replace(">", "&gt;") for part in element.groups())
    return f"<{tag}>{text}"


def _signs(data: pl.Series, here: pl.Series, count: int) -> pl.LazyFrame:
    """So many bytes behind each place that is meant; a filter takes a tenth of the time of `gather`."""
    size = len(data) - count
    return (
        pl.DataFrame([data.alias("data"), here.alias("here")])
        .lazy()
        .select_seq(
            pl.col("data").slice(i, size).filter(pl.col("here").head(size)).alias(str(i))
            for i in range(1, count + 1)
        )
    )


@functools.cache
def _codes() -> pl.Series:
    """Codes of tags by their first two bytes, as far as those tell."""
    codes = bytearray(2**16)
    for name in _CHILDREN:
        first, *more = name.encode()
        for second in more[:1] or b" />":
            codes[first << 8 | second] = _NAMES[name]
        codes[ord("/") << 8 | first] = _NAMES[name] + _END
    return as_numbers(bytes(codes))


def _within(element: str) -> Iterator[str]:
    """The names of the elements that are known in one, and its own."""
    yield element
    for child in _CHILDREN[element]:
        yield from _within(child)


def _can_follow(element: Element) -> pl.Series:
    """Which tag may come after which one where there are elements of a name: the codes of both.

    As each known element can be in one other only, this is enough to know that they are nested.
    """
    root = _NAMES[element]
    starts, ends = (root, root + _EMPTY), (root + _END, root + _EMPTY)
    steps = [(one, next_) for one in ends for next_ in starts]
    for name in _within(element):
        own = _NAMES[name]
        children = [_NAMES[child] for child in _CHILDREN[name]]
        before = [own, *(child + kind for child in children for kind in (_END, _EMPTY))]
        behind = [own + _END, *(child + kind for child in children for kind in (0, _EMPTY))]
        steps += [(one, next_) for one in before for next_ in behind]
    return pl.Series([one * _CODES + next_ for one, next_ in steps], dtype=pl.UInt16)


def unreadable(why: str) -> ExportFailed:
    """What to say of a workbook that can't be used."""
    return ExportFailed(f"the workbook can't be read: {why}")
