"""No secret leaves this process: not in a message, not in a log line, not in a traceback."""

from __future__ import annotations

import json
import logging
import re
from urllib.parse import quote, quote_plus, urlsplit

_hidden: set[str] = set()
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)


def hide(*secrets: str) -> None:
    """Remember secrets, as they are and as they look in URLs and JSON; `clean` removes them from then on."""
    for secret in filter(None, secrets):
        _hidden.update((secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]))


def safe_url(url: str) -> str:
    """A URL without user, password, query and fragment, which is where secrets and signatures are."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "***"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def clean(text: str) -> str:
    """A text without secrets and without the queries of URLs."""
    for secret in sorted(_hidden, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _URL.sub(lambda match: safe_url(match[0]), text)


class CleanFilter(logging.Filter):
    """Cleans whatever passes a log handler, the texts of exceptions too."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the record's texts by clean ones, and let it pass."""
        record.msg, record.args = clean(record.getMessage()), None
        if record.exc_info:
            record.exc_text = clean(logging.Formatter().formatException(record.exc_info))
            record.exc_info = None
        return True
