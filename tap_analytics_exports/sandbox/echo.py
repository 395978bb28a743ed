"""What vendors do that show a client its own request: in an error, in a debugging page, in a log."""

from __future__ import annotations

import base64
import html
import json
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Callable

FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "folded": lambda text: "".join(text.split()),
    "url": lambda text: quote(text, safe=""),
    "url_twice": lambda text: quote(quote(text, safe=""), safe=""),
    "form": quote_plus,
    "json": lambda text: json.dumps({"error": {"message": text}}).replace("/", "\\/"),
    "html": lambda text: html.escape(text).replace("&#x27;", "&#39;"),
    "html_numeric": lambda text: "".join(f"&#{ord(character)};" for character in text),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64_url": lambda text: base64.urlsafe_b64encode(b"." + text.encode()).decode().rstrip("="),
    "repr": ascii,
}
"""How the text is written."""


def echo(form: str, target: str, headers: dict[str, str], body: bytes) -> str:
    """Write a request's target, headers and body; what may hold credentials comes first, as texts are cut.

    Args:
        form: A key of `FORMS`.
        target: Path and query.
        headers: By name.
        body: As it came.

    Returns:
        The text.
    """
    first = {name: text for name, text in headers.items() if "Auth" in name or name == "Cookie"}
    lines = [f"{name}: {text}" for name, text in (first | headers).items()]
    return FORMS[form]("\n".join([target, *lines[: len(first)], body.decode(errors="replace"), *lines]))
