"""No secret leaves this process: not in a record, not in a log line, not in a traceback.

A text is cleaned by looking for the secrets in all its readings: as it stands, with its escapes decoded (of
URLs, JSON, HTML, PHP and Python, also several times over), without white space, and with its Base64 decoded.
Each character of a reading knows which part of the text it comes from, and that part is replaced.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from tap_analytics_exports.readings import Reading, Span, as_is, from_base64, readings, without_folds

MASK = "***"

ALONE = 5
"""A secret of fewer characters is replaced only where it stands alone, or it would mangle messages."""

PART = 8
"""The characters of the shortest part of a secret that is replaced too, and"""

PARTS = 12
"""those of the shortest secret of which parts are."""

_PROBE = 5  # wherever a part begins, one of its probes begins at a multiple of
_STEP = PART - _PROBE + 1
_LONGEST_WORD = 15
_LONGEST_SHOWN = 1 << 16  # characters that are looked at where a few hundred of them are shown
_DEPTH = 2  # Base64 within Base64, as where a vendor answers so with the header of Basic

_ARMOUR = re.compile(r"-{4,}[A-Z0-9 ]+-{4,}")  # around keys in PEM; that is no secret
_TELLING = re.compile(r"[^A-Za-z\s._-]|[a-z][A-Z]|[A-Z]{2}[a-z]")  # what no plain words have
_TOKEN = re.compile(r"[^\s'\"<>]+")
_USER = re.compile(r"://([^/?#]*@)")
_QUERY = re.compile("[?#]")

_TALKATIVE = ("urllib3", "paramiko", "botocore", "boto3", "s3transfer")  # signatures are in their debug lines
_CHAIN = 50  # exceptions of which each led to the next
_STANDARD = frozenset(vars(logging.makeLogRecord({})))


class _Index:
    """Finds secrets, and parts of secrets, in a time that does not grow with their number."""

    def __init__(self) -> None:
        self._probes: set[str] = set()
        self._wholes: dict[str, tuple[str, ...]] = {}  # by their first characters
        self._parts: set[str] = set()

    def add(self, secret: str, *, parts_too: bool) -> None:
        """Look for a secret from now on, and for its parts; safe while other threads are looking."""
        if len(secret) < PART:
            return
        start = secret[:PART]
        pieces = _ARMOUR.split(secret) if parts_too else []
        parts = {piece[i : i + PART] for piece in pieces for i in range(len(piece) - PART + 1)}
        parts = {part for part in parts if len(set(part)) >= PART // 2}
        self._wholes[start] = tuple({*self._wholes.get(start, ()), secret})
        self._parts |= parts
        self._probes |= {part[i : i + _PROBE] for part in {start, *parts} for i in range(_STEP)}

    def find(self, reading: Reading, original: str) -> Iterator[Span]:
        """Where in the original the secrets of a reading are."""
        text, probes = reading.text, self._probes
        begun: list[int] = []
        for probe in range(0, len(text) - _PROBE + 1, _STEP):
            if text[probe : probe + _PROBE] not in probes:
                continue
            for i in range(max(probe - _STEP + 1, 0), probe + 1):
                start = text[i : i + PART]
                if start in self._parts:
                    begun.append(i)
                for secret in self._wholes.get(start, ()):
                    if text.startswith(secret, i):
                        yield reading.origin(i, i + len(secret))
        for first, last in _runs(begun):
            span = reading.origin(first, last + PART)
            if not _are_words(original, *span):
                yield span


class _Known:
    """All secrets of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: set[str] = set()
        self._plain = _Index()
        self._folded = _Index()
        self._short: re.Pattern[str] | None = None

    def add(self, secret: str) -> None:
        """Know a secret from now on; nobody who looks for secrets waits meanwhile."""
        with self._lock:
            if secret in self._all:
                return
            self._all.add(secret)
            if len(secret) < PART:
                self._short = _pattern([each for each in self._all if len(each) < PART])
                return
            parts_too = len(secret) >= PARTS
            for spelling in _spellings(secret):
                for reading in readings(as_is(spelling)):
                    self._plain.add(reading.text, parts_too=parts_too)
                    folded = without_folds(reading)
                    if parts_too or folded is not reading:
                        self._folded.add(folded.text, parts_too=parts_too)

    def find(self, reading: Reading, original: str, depth: int = _DEPTH) -> Iterator[Span]:
        """Where in the original secrets are, in a reading of it and in all readings of that."""
        if not self._all:
            return
        found = list(readings(reading))
        for each in found:
            yield from self._plain.find(each, original)
            yield from self._folded.find(without_folds(each), original)
            if self._short is not None:
                yield from (each.origin(*secret.span()) for secret in self._short.finditer(each.text))
        if depth:
            for decoded in from_base64(found[-1]):
                yield from self.find(decoded, original, depth - 1)


_known = _Known()


def hide(*secrets: str | None) -> None:
    """Remember secrets; `clean` removes them from then on. Safe and cheap from any thread."""
    for secret in filter(None, secrets):
        for form in filter(None, {secret, secret.strip()}):
            _known.add(form)


def clean(text: str) -> str:
    """A text without secrets, and without the users, passwords, queries and fragments of URLs."""
    return _stable(text, lambda text: _TOKEN.sub(lambda token: _bare(token[0]), _masked(text)))


def clean_data(text: str) -> str:
    """A text without secrets that else stays as it is, as a row of a file has to."""
    return _stable(text, _masked)


def shown(text: str, limit: int) -> str:
    """The beginning of a clean text; cleaned first, as half a secret is no longer known as one."""
    return clean(text[:_LONGEST_SHOWN])[:limit]


def safe_url(url: str) -> str:
    """A URL without user, password, query and fragment, which is where secrets and signatures are."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def clean_logger(name: str) -> logging.Logger:
    """The logger of one of our modules; its records are clean, whoever handles them."""
    found = logging.getLogger(name)
    found.addFilter(_filter)
    return found


def install() -> None:
    """Clean whatever leaves this process, also of other packages; for a process that is the tap's own.

    To be called once the log handlers are set up. Uncaught exceptions are written to standard error.
    """
    known = [logging.getLogger(), *map(logging.getLogger, list(logging.Logger.manager.loggerDict))]
    for handler in [logging.lastResort, *(handler for each in known for handler in each.handlers)]:
        if handler is not None:
            handler.addFilter(_filter)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    hide(os.environ.get("AWS_SECRET_ACCESS_KEY"), os.environ.get("AWS_SESSION_TOKEN"))
    sys.excepthook = lambda _, error, __: _print(error)
    threading.excepthook = lambda uncaught: _print(uncaught.exc_value)
    sys.unraisablehook = lambda uncaught: _print(uncaught.exc_value)


class CleanFilter(logging.Filter):
    """Cleans whatever passes, and lets it pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the record's texts, its exception and its extra fields by clean ones."""
        message = None
        with suppress(Exception):  # what is wrong about it, logging would print with all arguments
            message = record.getMessage()
        said = message or f"{record.msg} {record.args}"
        if message is None or not all(text == clean(text) for text in (said, repr(record.args))):
            record.msg, record.args = clean(said), ()
        if record.exc_info and record.exc_info[1] is not None:
            error = _clean_error(record.exc_info[1])
            record.exc_info = type(error), error, error.__traceback__
        record.exc_text = record.exc_text and clean(record.exc_text)
        record.stack_info = record.stack_info and clean(record.stack_info)
        for name, value in vars(record).items():
            if name not in _STANDARD and value is not None:
                text = value if isinstance(value, str) else repr(value)
                if (cleaned := clean(text)) != text:
                    setattr(record, name, cleaned)
        return True


_filter = CleanFilter()


def _print(error: BaseException | None) -> None:
    if error is not None and not isinstance(error, SystemExit) and sys.stderr is not None:
        sys.stderr.write(clean("".join(traceback.format_exception(error))))


def _clean_error(error: BaseException, seen: frozenset[int] = frozenset()) -> BaseException:
    """An exception of the same name that says the same without secrets, and so do those that led to it."""
    kind = type(error)
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    if isinstance(error, BaseExceptionGroup):
        inner = [_clean_error(each, seen) for each in error.exceptions]
        made: BaseException = BaseExceptionGroup(clean(error.message), inner)
    else:
        made = type(kind.__name__, (Exception,), names)(clean(str(error)))
    made.__traceback__ = error.__traceback__
    for note in getattr(error, "__notes__", ()):
        made.add_note(clean(str(note)))
    seen |= {id(error)}
    for name in ("__cause__", "__context__"):
        earlier = getattr(error, name)
        if earlier is not None and id(earlier) not in seen and len(seen) < _CHAIN:
            setattr(made, name, _clean_error(earlier, seen))
    made.__suppress_context__ = error.__suppress_context__
    return made


def _stable(text: str, step: Callable[[str], str]) -> str:
    """A text on which the step changes nothing any more."""
    while (changed := step(text)) != text:
        text = changed
    return text


def _masked(text: str) -> str:
    """A text in which the mask stands in place of secrets."""
    return _replaced(text, _known.find(as_is(text), text), MASK)


def _bare(token: str) -> str:
    """What stands between spaces and quotes, a URL perhaps or several, without what may be secret in it."""
    if token.isalnum():
        return token
    cuts = []
    for text, origin in readings(as_is(token)):
        begin = text.find("://")
        if begin > 0:
            cuts += [origin(*user.span(1)) for user in _USER.finditer(text)]
            if query := _QUERY.search(text, begin):
                cuts.append((origin(*query.span())[0], len(token)))
    return _replaced(token, cuts, "") if cuts else token


def _replaced(text: str, spans: Iterable[Span], by: str) -> str:
    pieces, end = [], 0
    merged: list[list[int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    for first, last in merged:
        pieces += [text[end:first], by]
        end = last
    return "".join([*pieces, text[end:]])


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """First and last of each unbroken row of ascending numbers."""
    first = last = None
    for number in numbers:
        if first is None or last is None:
            first = number
        elif number != last + 1:
            yield first, last
            first = number
        last = number
    if first is not None and last is not None:
        yield first, last


def _are_words(text: str, start: int, end: int) -> bool:
    """Whether a part of a text is nothing but whole words, such as a message has, too."""
    part = text[start:end]
    if len(part) > _LONGEST_WORD or _TELLING.search(part):
        return False
    # What is not a letter here may end a word; what else is cut off is no whole word.
    before, after = text[max(start - 1, 0) : start], text[end : end + 1]
    return not (part[0].isalpha() and before.isalpha()) and not (part[-1].isalpha() and after.isalpha())


def _spellings(secret: str) -> set[str]:
    """A secret, and what becomes of it where one encoding is taken for the other."""
    utf8, latin1 = secret.encode(errors="replace"), secret.encode("latin-1", "replace")
    return {secret, utf8.decode("latin-1"), latin1.decode(errors="replace")}


def _pattern(secrets: Sequence[str]) -> re.Pattern[str]:
    """What finds short secrets, the longest first, and the shortest only where they stand alone."""
    encoded = [base64.b64encode(secret.encode(errors="replace")).decode().rstrip("=") for secret in secrets]
    longest = sorted([*secrets, *encoded], key=len, reverse=True)
    alone = "|".join(re.escape(secret) for secret in longest if len(secret) < ALONE)
    others = [re.escape(secret) for secret in longest if len(secret) >= ALONE]
    return re.compile("|".join([*others, *([rf"(?<![\w*])(?:{alone})(?![\w*])"] if alone else [])]))
