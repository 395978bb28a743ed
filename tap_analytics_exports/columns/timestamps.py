"""Text becomes dates and timestamps, exactly or not at all.

What a pattern finds is put together as ISO 8601 and read columnar.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl

from tap_analytics_exports.formats import EPOCHS, MONTHS, OFFSET, pattern_of

_DAY = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)-[0-9]{2}-[0-9]{2}"  # there is no year 0
_ISO = (
    "^(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    "(?:[Tt ](?P<H>[01][0-9]|2[0-3]):(?P<M>[0-5][0-9])(?::(?P<S>[0-5][0-9])(?:[.](?P<f>[0-9]+))?)?"
    f"(?: ?(?i:(?P<z>{OFFSET}|UTC)))?)?$"
)
# What nearly every file holds: one shape throughout, in UTC or without a zone, and no more than microseconds.
_USUAL = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ])[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?(Z| UTC|)", re.ASCII
)

_TIME_ZONE_TABLES_END = datetime(2100, 1, 1)  # noqa: DTZ001 - polars knows no clock change after it
_EPOCH = "^(?P<sign>-?)(?P<whole>0|[1-9][0-9]{0,14})(?:[.](?P<rest>[0-9]+))?$"
_FIRST, _END = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC))
_FIRST_MICROS, _END_MICROS = (
    (each - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) for each in (_FIRST, _END)
)


def dates(text: pl.Series, form: str) -> pl.Series:
    """Dates, null where the text is none, that are written as in a `strptime` pattern."""
    iso = _iso_date(text.str.extract_groups(pattern_of(form)).struct.unnest())
    return pl.select(iso_dates(pl.lit(iso))).to_series()


def iso_dates(text: pl.Expr) -> pl.Expr:
    """Dates, null where the text is no `YYYY-MM-DD`."""
    found = text.str.to_date("%Y-%m-%d", strict=False, cache=False)
    return pl.when(text.str.contains(f"^{_DAY}$")).then(found)


def timestamps(text: pl.Series, form: str | None, zone: str, *, truncate: bool = False) -> pl.Series:
    """Moments in UTC, to the microsecond, null where the text is none.

    Without a zone in the text it is read in `zone`: a local time that the clocks skipped is none, and of one
    that happened twice the earlier is meant. ISO 8601 is read with or without time, seconds, fraction and
    offset; digits beyond microseconds must be zeros.

    Args:
        text: The text.
        form: A `strptime` pattern, `epoch_seconds` or `epoch_milliseconds`; none: ISO 8601.
        zone: An IANA name.
        truncate: Cut digits beyond microseconds, whatever they are.
    """
    if form in EPOCHS:
        return _epochs(text, EPOCHS[form], truncate=truncate)
    if form is None and (shape := usual_shape(text)):
        found = text.to_frame("").select(usual_timestamps(pl.col(""), (shape[0], True, shape[2]), zone))
        if found.to_series().null_count() == text.null_count():
            return found.to_series()
    fields = text.str.extract_groups(_ISO if form is None else pattern_of(form)).struct.unnest()
    local = _clock(fields, truncate=truncate)
    if "z" not in fields.columns and "Z" not in fields.columns:
        return _within(_local(local, zone))
    if "Z" in fields.columns:
        return _within(local.dt.replace_time_zone("UTC"))
    offset = fields["z"]
    absolute = (local - _offset(offset)).dt.replace_time_zone("UTC")
    return _within(absolute.zip_with(offset.is_not_null(), _local(local, zone)))


Shape = tuple[str, bool, str]
"""How timestamps are written: what is before the time, whether there are fractions, and what ends them."""


def usual_shape(text: pl.Series) -> Shape | None:
    """How the first timestamp is written, if that is a usual way."""
    if len(text) and text[0] is None:
        text = text.drop_nulls()
    shape = _USUAL.fullmatch(text[0]) if len(text) else None
    return (shape[1], bool(shape[2]), shape[3]) if shape else None


def usual_timestamps(text: pl.Expr, shape: Shape, zone: str) -> pl.Expr:
    """The timestamps that are written in one way; null where they aren't, and after 2099 if `zone` counts.

    They are what `timestamps` says; but that one knows all ways, and takes many times as long.
    """
    between, fraction, end = shape
    # Fractions take four times as long to read, so it is worth knowing that there are none.
    fractions, directive = ("(?:[.][0-9]{1,6})?", "%.f") if fraction else ("", "")
    form = f"%Y-%m-%d{between}%H:%M:%S{directive}{end}"
    local = text.str.to_datetime(form, strict=False, time_unit="us", cache=False)
    seconds = f"^{_DAY}{between}(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]{fractions}{end}$"
    if end or zone == "UTC":
        return pl.when(text.str.contains(seconds)).then(local.dt.replace_time_zone("UTC"))
    # Where the zone can't lead out of the first year, nor out of what polars knows of zones.
    sure = (text >= "0001-01-03") & (text < str(_TIME_ZONE_TABLES_END.year))
    return pl.when(text.str.contains(seconds) & sure).then(_in_utc(local, zone))


def _iso_date(fields: pl.DataFrame) -> pl.Series:
    """`YYYY-MM-DD` from what a pattern found; the day may be none of its month."""
    if "date" in fields.columns:
        return fields["date"]
    year, month, day = pl.col("^[Yy]$"), pl.col("^[mbB]$"), pl.col("d").str.strip_chars(" ")
    if "y" in fields.columns:  # as POSIX has it
        year = pl.when(year < "69").then("20" + year).otherwise("19" + year)
    if "m" not in fields.columns:
        numbers = {name[:3].lower(): f"{number:02}" for number, name in enumerate(MONTHS, 1)}
        month = month.str.head(3).str.to_lowercase().replace_strict(numbers, default=None)
    return fields.select(date=pl.concat_str(year, month.str.zfill(2), day.str.zfill(2), separator="-"))[
        "date"
    ]


def _clock(fields: pl.DataFrame, *, truncate: bool) -> pl.Series:
    """What calendar and clock show, from what a pattern found; parts that are not there are zero."""
    found = fields.columns
    parts = [pl.col(part).fill_null("0") if part in found else pl.lit("0") for part in "HMS"]
    if "I" in found:
        afternoon = pl.col("p").str.to_uppercase() == "PM"
        parts[0] = (pl.col("I").cast(pl.Int8) % 12 + 12 * afternoon.cast(pl.Int8)).cast(pl.String)
    time = pl.concat_str(*(part.str.zfill(2) for part in parts), separator=":")
    fraction = (pl.col("f").fill_null("0") if "f" in found else pl.lit("0")).str.pad_end(6, "0")
    timestamp = pl.concat_str(_iso_date(fields), time, separator="T").str.to_datetime(
        "%Y-%m-%dT%H:%M:%S", strict=False, time_unit="us"
    ) + pl.duration(microseconds=fraction.str.head(6).cast(pl.Int64))
    if truncate:
        return fields.select(timestamp=timestamp)["timestamp"]
    whole = fraction.str.contains("^[0-9]{6}0*$")
    return fields.select(timestamp=pl.when(whole).then(timestamp))["timestamp"]


def _epochs(text: pl.Series, digits: int, *, truncate: bool) -> pl.Series:
    """Timestamps from numbers, of which so many digits after the point are microseconds and more."""
    fields = text.str.extract_groups(_EPOCH).struct.unnest()
    rest = pl.col("rest").fill_null("").str.pad_end(digits, "0")
    micros = (pl.col("whole") + rest.str.head(digits)).cast(pl.Int64, strict=False)
    micros = pl.when(pl.col("sign") == "-").then(-micros).otherwise(micros)
    exact = pl.lit(value=True) if truncate else rest.str.contains(f"^[0-9]{{{digits}}}0*$")
    found = pl.when(exact & micros.is_between(_FIRST_MICROS, _END_MICROS)).then(micros)
    return fields.select(timestamp=found.cast(pl.Datetime("us", "UTC")))["timestamp"]


def _offset(text: pl.Series) -> pl.Series:
    """How far ahead of UTC `Z`, `UTC`, `±HH`, `±HHMM` and `±HH:MM` are."""
    digits = pl.lit(text).str.replace(":", "", literal=True)
    hours, minutes = (digits.str.slice(at, 2).cast(pl.Int64, strict=False).fill_null(0) for at in (1, 3))
    sign = pl.when(digits.str.starts_with("-")).then(-1).otherwise(1)
    return pl.select(pl.duration(minutes=sign * (60 * hours + minutes), time_unit="us")).to_series()


def _local(local: pl.Series, zone: str) -> pl.Series:
    """In UTC, what calendar and clock show in a zone."""
    timestamps = pl.select(_in_utc(pl.lit(local), zone)).to_series()
    far = local.filter(local >= _TIME_ZONE_TABLES_END).unique()
    if zone == "UTC" or not len(far):
        return timestamps
    exact = pl.Series([_far(each, ZoneInfo(zone)) for each in far], dtype=pl.Datetime("us", "UTC"))
    return timestamps.zip_with(
        (local < _TIME_ZONE_TABLES_END).fill_null(value=True),
        local.replace_strict(far, exact, default=None, return_dtype=pl.Datetime("us", "UTC")),
    )


def _in_utc(local: pl.Expr, zone: str) -> pl.Expr:
    """The same, as far as polars knows the zone."""
    timestamps = local.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return timestamps.dt.convert_time_zone("UTC")


def _far(local: datetime, zone: ZoneInfo) -> datetime | None:
    try:
        timestamp = local.replace(tzinfo=zone).astimezone(UTC)
        return timestamp if timestamp.astimezone(zone).replace(tzinfo=None) == local else None
    except OverflowError:
        return None


def _within(timestamps: pl.Series) -> pl.Series:
    """Without those outside of the years 1 to 9999, which Singer's consumers can't hold."""
    return _where(timestamps.is_between(_FIRST, _END), timestamps)


def _where(condition: pl.Series, values: pl.Series) -> pl.Series:
    """Values where a condition holds, else null."""
    return pl.select(pl.when(condition).then(values)).to_series()
