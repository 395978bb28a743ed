"""The platform of GoodData, on which Flex Insights is: its two tokens, and how it says what is wrong."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping

import msgspec
import requests
from msgspec import Struct

from tap_analytics_exports.errors import Refused, TapError, Unreachable
from tap_analytics_exports.providers import answers
from tap_analytics_exports.redaction import clean, hide
from tap_analytics_exports.transport.failures import retry_after
from tap_analytics_exports.transport.http import PASSING, Http
from tap_analytics_exports.transport.network import Network
from tap_analytics_exports.transport.rate_limiter import RateLimiter

_UNGIVEN = "this is no refusal, but without a token nothing can be asked for; check base_url"


class _User(Struct):
    """Of a login."""

    token: answers.Token
    profile: str = ""


class _LoggedIn(Struct, rename="camel"):
    """The answer to a login (Twilio, "Authentication")."""

    user_login: _User


class _UserToken(Struct):
    """Of the answer to the request for a TT."""

    token: answers.Token


class _TokenGiven(Struct, rename="camel"):
    """The answer to the request for a TT."""

    user_token: _UserToken


class _Error(Struct):
    """What an error says, printf style; it is the answer, or the `error` of it (keboola, CPAN)."""

    message: str = ""
    parameters: list[object] = []
    error: _Error | None = None


class Session:
    """The two tokens: a login gives the SST, which gets the TT, which opens all else.

    A TT lives for 10 minutes and an SST for two weeks (Twilio, "General usage"). Which of them a 401 is
    about stands in its WWW-Authenticate (recorded by gooddata-ruby), for its body may be empty.
    """

    def __init__(
        self,
        provider: str,
        base_url: str,
        username: str,
        password: str,
        *,
        rate_limiter: RateLimiter,
        network: Network,
    ) -> None:
        self._login = {
            "login": username,
            "password": password,
            "remember": 0,
            "verify_level": 2,  # tokens in the answer, not in cookies
        }
        # 429 says that there were too many bad logins, and trying again is no cure.
        self._http = Http(
            provider, base_url, rate_limiter=rate_limiter, network=network, passing=PASSING - {429}
        )
        self._lock = threading.Lock()
        self._sst = ""
        self._tt = ""
        self._profile = ""
        self._refused: Refused | None = None

    def headers(self) -> Mapping[str, str]:
        """The TT, as the cookie that the vendor documents, whose path, /gdc, all lies under that we ask for.

        And as the header that Twilio's own wrapper and gooddata-ruby send in its place.
        """
        with self._lock:
            if not self._tt:
                self._get_tt()
            return {"Cookie": self._cookie, "X-GDC-AuthTT": self._tt}

    def renew(self, refused: requests.Response) -> bool:
        """Forget the TT that was refused, and its SST if that has ended; `headers` gets new ones."""
        with self._lock:
            if self._tt and refused.request.headers.get("Cookie") == self._cookie:
                if "GDCAuthSST" in refused.headers.get("WWW-Authenticate", ""):
                    self._sst = ""
                self._tt = ""
        return True

    def log_out(self) -> None:
        """End the session, if there is one.

        The path is that of the login. The profile's, one word away, would delete the user.
        """
        with self._lock:
            if self._sst and self._profile and self._end_session().status_code == 401:
                self._tt = self._tt_of(self._ask_for_tt())
                self._end_session()
            self._sst = ""

    @property
    def _cookie(self) -> str:
        return f"GDCAuthTT={self._tt}"

    def _get_tt(self) -> None:
        response = self._ask_for_tt() if self._sst else None
        if response is None or response.status_code == 401:
            self._log_in()
            response = self._ask_for_tt()
        self._tt = self._tt_of(response)

    def _tt_of(self, response: requests.Response) -> str:
        """The TT, which stands in the body and in a header."""
        if response.status_code in (401, 403):
            raise Refused(
                f"{message(self._http, response)}; the login was accepted, but no token came after it; ask "
                "Flex Insights Support what the user lacks"
            )
        if response.status_code != 200:
            raise Unreachable(
                f"{message(self._http, response)}, without a token; check base_url", retry_after(response)
            )
        token = response.headers.get("X-GDC-AuthTT") or (
            answers.read(self._http, response, _TokenGiven, Unreachable, _UNGIVEN).user_token.token
        )
        hide(token)
        return token

    def _ask_for_tt(self) -> requests.Response:
        headers = {"X-GDC-AuthSST": self._sst, "Accept": "application/json"}
        return self._http.ask("GET", "/gdc/account/token", headers=headers)

    def _end_session(self) -> requests.Response:
        headers = {"X-GDC-AuthSST": self._sst, "Cookie": self._cookie, "Accept": "application/json"}
        return self._http.ask(
            "DELETE", f"/gdc/account/login/{answers.segment(self._profile)}", headers=headers
        )

    def _log_in(self) -> None:
        """Get an SST. A login that was refused is not tried again: too many of them lock the user out."""
        if self._refused is not None:
            raise self._refused
        response = self._http.ask(
            "POST",
            "/gdc/account/login",
            json={"postUserLogin": self._login},
            headers={"Accept": "application/json"},
        )
        if response.status_code in (400, 401, 403, 429):
            self._refused = Refused(f"{message(self._http, response)}; {_advice(self._http, response)}")
            raise self._refused
        if response.status_code != 200:
            raise Unreachable(
                f"{message(self._http, response)}, which is no answer to a login; check base_url"
            )
        user = answers.read(self._http, response, _LoggedIn, Unreachable, _UNGIVEN).user_login
        hide(user.token)
        self._sst = user.token
        self._profile = user.profile.rpartition("/")[2]


def _advice(http: Http, response: requests.Response) -> str:
    """Say what to do about a refused login."""
    if response.status_code == 429:
        wait = retry_after(response)
        seconds = "" if wait is None else f" {wait:.0f} seconds"
        return f"there were too many bad logins: check username and password, and wait{seconds}"
    if "security code" in _said(http, response):  # a captcha (keboola/gooddata-php-client, Exception)
        return "log in to Flex Insights once in a browser and answer the security question there"
    return "check username and password; Flex Insights Support sets the password for direct logins"


def _said(http: Http, response: requests.Response) -> str:
    """Say what an answer's body says: JSON with a printf style message and its parameters, or some text.

    Some errors are HTML whatever one accepts (CPAN, WWW-GoodData), and those of other hosts are left out.
    """
    if not http.own(response.url):
        return ""
    try:
        content = answers.body(http, response)
        error = msgspec.json.decode(content, type=_Error)
    except TapError:
        return ""
    except (ValueError, RecursionError):
        return answers.said(content[:2000].decode(errors="replace")) if response.status_code >= 400 else ""
    error = error.error or error
    parameters = iter(error.parameters)
    return answers.said(re.sub("%[sd]", lambda at: answers.said(next(parameters, at[0])), error.message))


def message(http: Http, response: requests.Response) -> str:
    """Say an answer, with the id by which the vendor's support finds the request."""
    number = response.headers.get("X-GDC-Request")
    reference = f" (X-GDC-Request {number[:80]})" if number else ""
    said = f": {text}" if (text := _said(http, response)) else ""
    return clean(f"{answers.call(http, response)}{said}{reference}")
