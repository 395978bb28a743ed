"""What an option names: settings and one of their exports; and the vendors that a process asks."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from tap_analytics_exports import redaction
from tap_analytics_exports.errors import SettingsError
from tap_analytics_exports.exports import ExportStream, Wanted
from tap_analytics_exports.extraction import settings_types
from tap_analytics_exports.providers import installed
from tap_analytics_exports.providers.base import Provider
from tap_analytics_exports.settings import Column, Export, ProviderSettings, Settings, decode, secrets
from tap_analytics_exports.state import StreamState
from tap_analytics_exports.transport.network import Network

logger = redaction.clean_logger(__name__)

_vendors: dict[bytes, Vendor] = {}
_lock = threading.Lock()


@dataclass(eq=False, slots=True)
class Vendor:
    """An account at a provider: one object in a process, so that its rate holds over all that is asked.

    Attributes:
        turn: Held by whoever has jobs run there, so that no two plans share its cap.
    """

    provider: Provider[Any, Any]
    stop: threading.Event
    turn: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class Chosen:
    """One export of some settings.

    Attributes:
        settings: All of them.
        name: Of its provider.
        block: The provider's settings.
        export: Its own.
    """

    settings: Settings
    name: str
    block: ProviderSettings
    export: Export

    def vendor(self) -> Vendor:
        """Find its account, made if need be."""
        account = {**msgspec.to_builtins(self.block), "exports": None}
        key = msgspec.json.encode([self.name, account, self.settings.ca_bundle], order="sorted")
        with _lock:
            if key not in _vendors:
                stop = threading.Event()
                provider = installed()[self.name](self.block, Network(self.settings.ca_bundle, stop))
                _vendors[key] = Vendor(provider, stop)
            return _vendors[key]

    def stream(
        self,
        provider: Provider[Any, Any],
        since: datetime | None = None,
        columns: Mapping[str, Column] | None = None,
    ) -> ExportStream:
        """Make its stream.

        Args:
            provider: The vendor that makes it.
            since: Where the rows end that were read already, in UTC; None: none was.
            columns: What is known of its columns; None: nothing is.
        """
        bookmark = {} if since is None else {"replication_key_value": since.isoformat()}
        state = StreamState(self.export.name, bookmark)
        return ExportStream(self.export, provider, self.settings, state, Wanted(columns or {}))


def forget(vendor: Vendor) -> None:
    """Have another object made of an account, whose threads did not end in time."""
    with _lock:
        for key in [key for key, each in _vendors.items() if each is vendor]:
            del _vendors[key]


@lru_cache(maxsize=64)
def choose(settings: str, stream: str) -> Chosen:
    """Decode settings, and find one of their exports.

    Args:
        settings: As JSON text.
        stream: The export's name.

    Raises:
        SettingsError: The settings can't be used, or have no such export.
    """
    try:
        plain = msgspec.json.decode(settings)
    except msgspec.DecodeError as error:
        raise SettingsError([f"option settings: is no JSON ({error}), nor the path of a file"]) from None
    if not isinstance(plain, dict):
        raise SettingsError(['option settings: is no JSON object, such as {"start_date": …}'])
    decoded = decode(plain, settings_types())
    redaction.hide(*secrets(decoded))
    if decoded.archive_url:
        logger.warning("archive_url: Spark keeps no files there; the tap does")
    exports = {
        export.name: Chosen(decoded, name, block, export)
        for name, block in decoded.providers.items()
        for export in block.all_exports
    }
    if stream not in exports:
        raise SettingsError(
            [f"option stream: {stream!r} is none of the exports {', '.join(exports) or '(there are none)'}"]
        )
    return exports[stream]
