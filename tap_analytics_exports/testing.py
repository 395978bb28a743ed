"""What every provider has to do, as tests for the package that brings one; they need pytest.

class TestAcme(ProviderTests):
    kind = Acme

    def block(self): return {"base_url": …, "api_token": …, "exports": [{"name": "calls", …}]}
    def jobs(self): return …
    def lose_answer(self): …
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from msgspec import structs

from tap_analytics_exports.errors import Ambiguous, JobGone, Refused, SettingsError, TapError, Unreachable
from tap_analytics_exports.parse import frames
from tap_analytics_exports.providers import installed
from tap_analytics_exports.providers.base import (
    Empty,
    Failed,
    Handle,
    Provider,
    ProviderSettings,
    Ready,
    Request,
    Running,
)
from tap_analytics_exports.settings import Export, decode, json_schema, secrets
from tap_analytics_exports.transport.download import download
from tap_analytics_exports.transport.network import Network, Offline
from tap_analytics_exports.windows import Window

__all__ = ["ProviderTests"]

LARGEST_HANDLE = 2000
"""Characters of a handle as JSON, which every state repeats."""

_NOT_OURS: tuple[Any, ...] = (None, [], "x", 5, {"no": "handle"}, {"id": {}}, {"id": None}, {"parts": []})


class ProviderTests:
    """Tests of one provider against a service that stands in for its vendor.

    Whoever inherits from it says below which provider that is, and how to look at the service. A fixture with
    `autouse=True` is the way to start one.

    Attributes:
        kind: The provider.
        columns_need_network: Whether `columns` asks the vendor.
        patience: Seconds that a job of the service may take.
    """

    kind: ClassVar[type[Provider[Any, Any]]]
    columns_need_network: ClassVar[bool] = False
    patience: ClassVar[float] = 30

    def block(self) -> dict[str, Any]:
        """Make the provider's block, as a user writes it, with one export that has rows yesterday."""
        raise NotImplementedError

    def jobs(self) -> int:
        """Count the jobs that the service was asked for so far."""
        raise NotImplementedError

    def lose_answer(self) -> None:
        """Let the service act on the next trigger, and hang up in place of an answer."""
        pytest.skip("nothing says how an answer is lost")

    def window(self, export: Export) -> Window | None:
        """Choose what to export: yesterday in the export's time zone, or a snapshot."""
        if not export.incremental:
            return None
        today = datetime.now(export.zone).replace(hour=0, minute=0, second=0, microsecond=0)
        return Window((today - timedelta(days=1)).astimezone(UTC), today.astimezone(UTC))

    # What they stand on

    def settings(self, **changes: Any) -> ProviderSettings:
        """Decode the block, some of its settings changed."""
        config = {"start_date": "2026-01-01", self.kind.name: self.block() | changes}
        return decode(config, {self.kind.name: self.kind.settings_type}).providers[self.kind.name]

    @contextmanager
    def provider(self, network: Network | None = None, **changes: Any) -> Iterator[Provider[Any, Any]]:
        """Make a provider as another process would, and end its session."""
        made = self.kind(self.settings(**changes), network)
        try:
            yield made
        finally:
            with suppress(TapError):
                made.close()

    def request(self, made: Provider[Any, Any]) -> Request[Any]:
        """Ask for the first export."""
        export = made.settings.all_exports[0]
        window = self.window(export)
        return Request(export, window, made.wanted(export, None), uuid.uuid4().hex, str(uuid.uuid4()))

    def secrets(self) -> list[str]:
        """List the secrets of the block, of which nothing may be seen."""
        return list(secrets(self.settings()))

    def await_job(self, made: Provider[Any, Any], request: Request[Any], handle: Handle) -> Ready | Empty:
        """Poll a job until it is over."""
        until = time.monotonic() + self.patience
        while time.monotonic() < until:
            with suppress(Unreachable):
                match made.poll(request, handle):
                    case (Ready() | Empty()) as state:
                        return state
                    case Failed(why):
                        pytest.fail(f"the job failed: {why}")
            time.sleep(0.05)
        return pytest.fail(f"the job was not over within {self.patience} seconds")

    # What is known before anything is asked

    def test_it_is_installed_under_its_name(self) -> None:
        """An entry point is how the tap finds it."""
        assert installed().get(self.kind.name) is self.kind, "no entry point of its name leads to it"

    def test_its_settings_explain_themselves(self) -> None:
        """They are shown by `--about`, and mistakes in them are told, by their names."""
        kind = self.kind.settings_type
        assert re.match(r"[^:]+: .+\.", kind.__doc__ or ""), (
            "its docstring is not `<name>: <what it exports>.`"
        )
        schema = json_schema({self.kind.name: kind})["properties"][self.kind.name]
        exports = schema["properties"]["exports"]["items"]["properties"]
        for name, setting in (*schema["properties"].items(), *exports.items()):
            assert setting.get("title"), f"{name} has no title"
            assert setting.get("description"), f"{name} has no description"
            plain = re.search("token|secret|passw", name) and not setting.get("secret")
            assert not plain or "enum" in setting, f"{name} is no Secret"
        assert "base_url" in schema["properties"]
        with pytest.raises(SettingsError, match="no_such_setting: is not a setting"):
            self.settings(no_such_setting=1)

    def test_an_export_knows_itself_without_the_vendor(self) -> None:
        """`--discover` and `--plan` ask nobody."""
        with self.provider(Offline()) as made:
            export = made.settings.all_exports[0]
            assert isinstance(export, Export)
            headers = () if self.columns_need_network else made.columns(export)
            assert all(isinstance(header, str) for header in headers)
            made.wanted(export, headers or None)
            assert set(made.constants(export)).isdisjoint(headers), "a constant is a column of the files, too"
            made.dictionary(export)
            made.dialect(export)

    def test_its_identity_is_the_same_each_time_and_has_no_secret(self) -> None:
        """Jobs are told from each other by it, in states and ledgers."""
        with self.provider(Offline()) as made, self.provider(Offline()) as other:
            export = made.settings.all_exports[0]
            text = msgspec.json.encode(made.identity(export), order="sorted").decode()
            again = msgspec.json.encode(
                other.identity(other.settings.all_exports[0]), order="sorted"
            ).decode()
        assert text == again, "the same settings make another identity"
        assert not [secret for secret in self.secrets() if secret in text], "its identity has a secret in it"

    # The verbs

    def test_a_check_triggers_nothing(self) -> None:
        """`--test` tries the credentials."""
        before = self.jobs()
        with self.provider() as made:
            made.check()
            made.check_export(made.settings.all_exports[0])
        assert self.jobs() == before, "a check has triggered a job"

    def test_credentials_that_are_wrong_are_refused(self) -> None:
        """They are told as such, and not shown."""
        kind = self.kind.settings_type
        marked = [
            field.name for field in structs.fields(kind) if self.block().get(field.name) in self.secrets()
        ]
        assert marked, "the block has no secret"
        wrong = "not-the-right-one"
        changes: dict[str, Any] = dict.fromkeys(marked, wrong)
        with self.provider(**changes) as made, pytest.raises(Refused) as refused:
            made.check()
        assert self.kind.name in str(refused.value), "the message does not name the provider"
        assert wrong not in str(refused.value), "the message shows a secret"

    def test_a_job_is_found_by_its_handle_by_another_process_and_brings_rows(self, tmp_path: Path) -> None:
        """The handle is all that is kept of a job, in the state and in the ledger."""
        before = self.jobs()
        with self.provider() as made:
            request = self.request(made)
            handle = made.submit(request)
        text = json.dumps(handle)
        assert isinstance(handle, dict), "a handle is a dict"
        assert json.loads(text) == handle, "the handle is not what JSON makes of it"
        assert len(text) <= LARGEST_HANDLE, "the handle is large"
        assert not [secret for secret in self.secrets() if secret in text], "the handle has a secret in it"
        assert not re.search(r"https?://\S+\?", text), (
            "the handle has a URL with a query, which may be signed"
        )
        with self.provider() as made:
            known = json.loads(text)
            assert isinstance(self.await_job(made, request, known), Ready), "there are no rows yesterday"
            rows = 0
            for number, remote in enumerate(made.files(request, known)):
                assert not [secret for secret in self.secrets() if secret in remote.name]
                local = download(remote, tmp_path / f"{number}")
                rows += sum(frame.rows.height for frame in frames(local.path, made.dialect(request.export)))
            made.done(request, known)
        assert rows, "the files have no rows"
        assert self.jobs() == before + 1, "one job is one trigger"

    def test_a_handle_that_is_none_of_its_own_is_a_job_that_is_gone(self) -> None:
        """States and ledgers may be old, or somebody else's."""
        with self.provider(Offline()) as made:
            request = self.request(made)
            for odd in _NOT_OURS:
                with suppress(JobGone):
                    state = made.poll(request, odd)
                    # Whose answer is the file has no job that could be gone.
                    assert isinstance(state, Ready), f"{odd!r} is taken for a handle: {state}"

    def test_a_trigger_without_an_answer_is_not_sent_again(self) -> None:
        """It may have been acted on; whether it was is looked up, where the vendor can tell."""
        self.lose_answer()
        before = self.jobs()
        with self.provider() as made:
            request = self.request(made)
            with pytest.raises(Ambiguous):
                made.submit(request)
            assert self.jobs() == before + 1, "the trigger was sent again"
            found = made.find(request, None)
            if found is not None:
                export_id, handle = found
                assert export_id == request.export_id, "another job was found"
                assert isinstance(made.poll(request, handle), Ready | Running | Empty)
        assert self.jobs() == before + 1, "looking it up has triggered another"

    def test_a_job_can_be_given_up_and_a_session_ended_twice(self) -> None:
        """A vendor that can't cancel does nothing."""
        with self.provider() as made:
            request = self.request(made)
            handle = made.submit(request)
            made.cancel(request, handle)
            made.close()
            made.close()
