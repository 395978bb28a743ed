"""How a provider's requests show who sends them."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

import requests

from tap_analytics_exports.errors import Refused
from tap_analytics_exports.redaction import hide


class Auth(Protocol):
    """How a provider's requests show who sends them. Called from several threads."""

    def headers(self) -> Mapping[str, str]:
        """The headers that carry the credentials, fetched from the provider if need be."""

    def renew(self, refused: requests.Response) -> bool:
        """Get new credentials after a 401; False where there is nothing to renew."""


class FixedAuth:
    """Credentials that stay as they are, in the header `Authorization`."""

    def __init__(self, header: str) -> None:
        self._headers = {"Authorization": header}

    @classmethod
    def basic(cls, username: str, password: str) -> FixedAuth:
        """HTTP Basic, in UTF-8."""
        pair = base64.b64encode(f"{username}:{password}".encode()).decode()
        hide(pair)
        return cls(f"Basic {pair}")

    def headers(self) -> Mapping[str, str]:
        """The one header."""
        return self._headers

    def renew(self, refused: requests.Response) -> bool:
        """There is nothing to renew."""
        return False


class LoginAuth:
    """A token that a login gives, in the header `Authorization`; all threads share it until a 401 ends it.

    Args:
        scheme: What stands before the token.
        login: Gets a token from the provider. When it is refused, it is not called again.
    """

    def __init__(self, scheme: str, login: Callable[[], str]) -> None:
        self._scheme = scheme
        self._login = login
        self._lock = threading.Lock()
        self._header: str | None = None
        self._refused: Refused | None = None

    def headers(self) -> Mapping[str, str]:
        """The header, after a login if there is no token."""
        with self._lock:
            if self._refused is not None:
                raise self._refused
            if self._header is None:
                try:
                    token = self._login()
                except Refused as error:
                    self._refused = error
                    raise
                hide(token)
                self._header = f"{self._scheme} {token}"
            return {"Authorization": self._header}

    def renew(self, refused: requests.Response) -> bool:
        """Forget the token that was refused, unless another thread has got a new one already."""
        with self._lock:
            if refused.request.headers.get("Authorization") == self._header:
                self._header = None
        return True
