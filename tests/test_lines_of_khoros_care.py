"""What a user reads when Khoros Care refuses: whole lines that say what happened, where, and what to do."""

from collections.abc import Iterator
from typing import Any

import pytest
from lines import SOON, Row, Vendor, says

START, STATUS, FILE = "POST /report/author", "GET /report/w1/r1/status", "GET /report/w1/r1/download"
BUCKETS = "Too many buckets (745) requested. Select a larger interval?"


def closed(detail: str, reason: object = None) -> dict[str, Any]:
    """The status of a workflow."""
    state = {"runnerState": "CLOSED", "detail": detail, "reason": reason}
    return {"status": "PASS", "result": [{"jobInfo": {"workflowId": "w1", "runId": "r1"}, "result": state}]}


ROWS: dict[str, Row] = {
    "a wrong password": (
        {START: says(401)},
        (
            "POST X/report/author answered 401; check the credentials: username and password, which must be "
            "of a user of type Analytics; nothing was triggered"
        ),
    ),
    "a user who may not": (
        {START: says(403, {})},
        (
            "POST X/report/author answered 403 {}; check that the user is of type Analytics and may use the "
            "Reports API (Khoros Support gives both)"
        ),
    ),
    "no such export": (
        {"": says(404, {})},
        (
            "POST X/report/report/author answered 404 {}; check export_id and section (report or "
            "marketing), and that base_url is the Analytics API URL of Account Admin > General Settings > "
            "Analytics API Settings"
        ),
    ),
    "no such export for marketing": (
        {"": says(404, {})},
        (
            "GET X/report/marketing/author answered 404 {}; check export_id and section (report or "
            "marketing), and that base_url is the Analytics API URL of Account Admin > General Settings > "
            "Analytics API Settings"
        ),
        {"section": "marketing"},
    ),
    "no method that the export takes": (
        {"": says(405, {})},
        (
            "GET X/report/report/author answered 405 {}; check export_id and section (report or marketing): "
            "the export takes neither GET nor POST"
        ),
    ),
    "a wrong parameter": (
        {START: says(400, {})},
        (
            "POST X/report/author answered 400 {}; check parameters and metrics, which must be what this "
            "export takes, and company_key, which is in Account Admin > General Settings > Analytics API "
            "Settings"
        ),
    ),
    "another status": (
        {START: says(418, {})},
        "POST X/report/author answered 418 {}; check export_id, section and parameters",
    ),
    "too many requests": (
        {START: says(429, {})},
        (
            "it could not be triggered within export_timeout (last: POST X/report/author answered 429 {}; "
            "lower requests_per_minute or max_concurrent_exports); raise it, or run later"
        ),
        SOON,
    ),
    "an error": (
        {START: says(500, {})},
        (
            "POST X/report/author answered 500 {}; whether a job was triggered is not known; the next run "
            "triggers another"
        ),
    ),
    "a text in place of the result": (
        {START: says(200, {"status": "FAIL", "result": "Unable to hydrate filter for export info"})},
        (
            "author was not started: Unable to hydrate filter for export info; check export_id, metrics and "
            "parameters"
        ),
    ),
    "too many buckets": (
        {START: says(200, {"status": "PASS", "result": BUCKETS})},
        (
            "author was not started: Too many buckets (745) requested. Select a larger interval?; set a "
            "larger parameters.timeInterval, or a shorter window"
        ),
        {"window": "PT24H"},
    ),
    "no ids": (
        {START: says(200, {"status": "PASS", "result": {}})},
        (
            "POST X/report/author answered 200 with a malformed answer: it has no ids; author may be "
            "started; the next run triggers another"
        ),
    ),
    "a workflow that is not known": (
        {STATUS: says(404, {})},
        (
            "GET X/report/w1/r1/status answered 404 {}; Khoros does not know the workflow any more; this "
            "was the last of 3 tries, and the next run begins anew"
        ),
    ),
    "a wrong key for the status": (
        {STATUS: says(400, {})},
        (
            "GET X/report/w1/r1/status answered 400 {}; check base_url and company_key, which must be those "
            "of Account Admin > General Settings > Analytics API Settings"
        ),
    ),
    "a workflow that failed": (
        {STATUS: says(200, closed("FAILED", "out of memory"))},
        (
            "the workflow was closed with FAILED: out of memory; if that goes on, make the window shorter "
            "or ask Khoros Support"
        ),
    ),
    "a workflow that took too long": (
        {STATUS: says(200, closed("TIMED_OUT"))},
        (
            "the workflow was closed with TIMED_OUT; if that goes on, make the window shorter or ask Khoros "
            "Support; this was the last of 3 tries, and the next run begins anew"
        ),
    ),
    "a state that nobody knows": (
        {STATUS: says(200, {"status": "PASS", "result": {"result": {"runnerState": "ASLEEP"}}})},
        (
            "5 polls were answered with what the vendor does not document, 'ASLEEP'; check base_url, or ask "
            "the vendor what that means"
        ),
    ),
    "a wrong key for the file": (
        {FILE: says(400, {})},
        (
            "GET X/report/w1/r1/download answered 400 {}; check base_url and company_key, which must be "
            "those of Account Admin > General Settings > Analytics API Settings"
        ),
    ),
    "a file that may not be seen": (
        {FILE: says(403, {})},
        (
            "GET X/report/w1/r1/download answered 403 {}; check that the user still has the Analytics "
            "Reports API"
        ),
    ),
    "a file that is gone": (
        {FILE: says(404, {})},
        (
            "GET X/report/w1/r1/download answered 404 {}; Khoros does not keep the file any more; this was "
            "the last of 3 tries, and the next run begins anew"
        ),
    ),
    "a message in place of the file": (
        {FILE: says(200, {"status": "FAIL", "message": "not finished"})},
        (
            'in place of the file, the vendor sent {"status": "FAIL", "message": "not finished"}; check '
            "what the export asks for"
        ),
    ),
}


@pytest.fixture(scope="module")
def vendor() -> Iterator[Vendor]:
    block = {"username": "ann", "password": "invented", "company_key": "k3y-of-acme"}
    well = {
        START: says(200, {"status": "PASS", "result": {"workflowId": "w1", "runId": "r1"}}),
        STATUS: says(200, closed("COMPLETED")),
        FILE: says(200, "a,b\n1,2\n", "Content-Type: text/csv"),
    }
    with Vendor("khoros_care", block, {"export_id": "author"}, well).serving() as vendor:
        yield vendor


@pytest.mark.parametrize("name", ROWS)
def test_the_line_of(vendor, name):
    answers, line, *how = ROWS[name]
    assert vendor.line(answers, **(how[0] if how else {})) == vendor.begin + line
