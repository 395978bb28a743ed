"""Acme's provider does what every provider has to do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from service import TOKEN, Service
from tap_analytics_exports_acme import Acme

from tap_analytics_exports.testing import ProviderTests


class TestAcme(ProviderTests):
    """The kit's tests."""

    kind = Acme

    @pytest.fixture(autouse=True)
    def _service(self) -> Iterator[None]:
        with Service() as self.service:
            thread = threading.Thread(target=self.service.serve_forever, args=[0.01])
            thread.start()
            yield
            self.service.shutdown()
            thread.join()

    def block(self) -> dict[str, Any]:
        exports = [{"name": "orders", "report": "orders"}]
        return {"base_url": self.service.url, "api_token": TOKEN, "exports": exports}

    def jobs(self) -> int:
        return len(self.service.jobs)

    def lose_answer(self) -> None:
        self.service.losing = True
