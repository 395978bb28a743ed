"""What can go wrong, in words that a user can act on.

No message here or anywhere else holds a secret or a signed URL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class TapError(Exception):
    """Anything that the tap can explain; its text is shown to the user as it is."""


class SettingsError(TapError):
    """Settings that can't be used; `problems` are lines of `path: what is wrong`."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed.

    Attributes:
        stream: Whose job it was.
        reason: What happened, in a line.
        refused: Whether a provider did not accept what the settings give it.
    """

    stream: str
    reason: str
    refused: bool = False


class ExportsFailed(TapError):
    """Some exports failed, the others were written in full; `reasons` has a line for each."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        self.failures = tuple(failures)
        self.reasons = [failure.reason for failure in failures]
        super().__init__("\n".join(self.reasons))


class CredentialsRefused(ExportsFailed):
    """No provider accepted its credentials, and nothing was triggered."""


class Refused(TapError):
    """A provider, or its server of files, does not accept what the settings give it, or is not trusted."""


class FilesRefused(Refused):
    """A server of files does so; the provider's own credentials may be right."""


class Interrupted(BaseException):
    """The run was asked to stop; no `except Exception` on its way is to take it for a failure."""


class Unreachable(TapError):
    """No usable answer; nothing was triggered by asking, so asking later is safe.

    Args:
        why: What happened, and what to do.
        after: The wait in seconds that is asked for; with it, the refusal is one in passing.
        sent: Whether any byte of the request may have left.
    """

    def __init__(self, why: str, after: float | None = None, *, sent: bool = True) -> None:
        super().__init__(why)
        self.after = after
        self.sent = sent


class Busy(TapError):
    """The provider has no room for another job now; `after` is the wait in seconds that it asks for."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


class JobGone(TapError):
    """The provider no longer knows a job, or its file."""


class NoData(TapError):
    """The provider says that the window has no rows, in place of a file."""


class ExportFailed(TapError):
    """A job that ended without its rows.

    Args:
        why: What happened, and what to do.
        retry: A new job for the same window may succeed at once.
        split: The window was too large for the provider; its halves may succeed.
    """

    def __init__(self, why: str, *, retry: bool = False, split: bool = False) -> None:
        super().__init__(why)
        self.retry = retry
        self.split = split


class Ambiguous(ExportFailed):
    """A trigger was sent, and nothing tells whether the provider acted on it: it is not sent again."""
