"""Whether providers accept their credentials and have what the exports name, asked without any export."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from tap_analytics_exports.errors import Interrupted, TapError
from tap_analytics_exports.providers.base import Provider
from tap_analytics_exports.redaction import clean, clean_logger
from tap_analytics_exports.settings import Export

logger = clean_logger(__name__)

CHECK_SECONDS = 60
"""The longest that all providers together may take to be checked, which they are at once."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found of a provider, or of one of its exports.

    Attributes:
        name: `khoros_care`, or `khoros_care.conversations` for its export of that name.
        problem: What is wrong, and where it is mended; None: nothing, as far as can be seen.
    """

    name: str
    problem: str | None


def check(providers: Sequence[Provider[Any, Any]], chosen: Container[str]) -> Iterator[Checked]:
    """Check the credentials of each provider, and then each of its exports, all providers at once.

    Exports are not asked for where the credentials were not accepted.

    Args:
        providers: The providers, in the order in which they are told of.
        chosen: The names of the exports that count.
    """
    found: list[tuple[Provider[Any, Any], SimpleQueue[Checked | None]]] = []
    for provider in providers:
        queue: SimpleQueue[Checked | None] = SimpleQueue()
        exports = [export for export in provider.settings.all_exports if export.name in chosen]
        threading.Thread(target=_check, args=[provider, exports, queue], daemon=True).start()
        found.append((provider, queue))
    until = time.monotonic() + CHECK_SECONDS
    for provider, queue in found:
        try:
            while (checked := queue.get(timeout=max(0.0, until - time.monotonic()))) is not None:
                yield checked
        except Empty:
            yield Checked(provider.name, f"no answer within {CHECK_SECONDS} seconds; try again later")


def _check(
    provider: Provider[Any, Any], exports: Sequence[Export], found: SimpleQueue[Checked | None]
) -> None:
    """Check one provider, and say of each thing how it is as soon as that is known; None: that was all."""
    trouble = _problem(provider.check)
    found.put(Checked(provider.name, trouble))
    for export in exports:
        problem: str | None = f"not checked; see what is said of {provider.name}"
        if trouble is None:
            problem = _problem(partial(provider.check_export, export))
        found.put(Checked(f"{provider.name}.{export.name}", problem))
    found.put(None)


def _problem(ask: Callable[[], None]) -> str | None:
    try:
        ask()
    except Interrupted:
        return "stopped before an answer came"
    except TapError as error:
        return clean(str(error))
    except Exception as error:  # one provider's mishap is not to be the others'
        logger.exception("unexpected")
        return clean(f"{type(error).__name__}: {error}")
    return None
