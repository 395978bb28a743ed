"""What a user reads when Gooee refuses: whole lines that say what happened, where, and what to do."""

from collections.abc import Iterator
from typing import Any

import pytest
from lines import SOON, Row, Vendor, says

CREATE, SEE, FILE = "POST /analytics/exports/", "GET /analytics/exports/e1/", "GET /file.csv"
LOGIN = {"block": {"api_token": None, "username": "ann", "password": "invented"}}


def complete(**more: object) -> dict[str, Any]:
    """An export that is ready."""
    return {"status": "complete", "number_of_rows": 1, "url": "/file.csv?Signature=n0t-a-real-one", **more}


ROWS: dict[str, Row] = {
    "a wrong token": (
        {CREATE: says(401, {"detail": "Invalid token."})},
        (
            'POST X/analytics/exports/ answered 401 {"detail": "Invalid token."}; check the credentials: '
            "api_token and auth_scheme; nothing was triggered"
        ),
    ),
    "a wrong password": (
        {"POST /auth/login": says(400, {"non_field_errors": ["Unable to log in."]})},
        (
            'POST X/auth/login answered 400 {"non_field_errors": ["Unable to log in."]}; check username and '
            "password; nothing was triggered"
        ),
        LOGIN,
    ),
    "another host": (
        {"POST /auth/login": says(404, "nothing here")},
        (
            "POST X/auth/login answered 404 nothing here, which is no answer to a login; check base_url; "
            "nothing was triggered, and the next run tries again"
        ),
        LOGIN,
    ),
    "a token that may not": (
        {CREATE: says(403, {"detail": "You do not have permission."})},
        (
            'POST X/analytics/exports/ answered 403 {"detail": "You do not have permission."}; check that '
            "the credentials may create exports and see this query"
        ),
    ),
    "a query that is not there": (
        {CREATE: says(400, {"query": ["Invalid pk - object does not exist."]})},
        (
            'POST X/analytics/exports/ answered 400 {"query": ["Invalid pk - object does not exist."]}; '
            "check query_id, the id of a stored Analytics Query"
        ),
    ),
    "no such path": (
        {CREATE: says(404), "POST /analytics/export": says(404, {"detail": "Not found."})},
        'POST X/analytics/export answered 404 {"detail": "Not found."}; check base_url',
    ),
    "an error": (
        {CREATE: says(500, "<h1>Server Error (500)</h1>")},
        (
            "POST X/analytics/exports/ answered 500 <h1>Server Error (500)</h1>; whether a job was "
            "triggered is not known; the next run triggers another"
        ),
    ),
    "too many requests": (
        {CREATE: says(429, {"detail": "Throttled."})},
        (
            "it could not be triggered within export_timeout (last: POST X/analytics/exports/ answered 429 "
            '{"detail": "Throttled."}; lower requests_per_minute or max_concurrent_exports); raise it, or '
            "run later"
        ),
        SOON,
    ),
    "an answer without an id": (
        {CREATE: says(201, {"name": "x"})},
        (
            "POST X/analytics/exports/ answered 201 with a malformed answer: Object missing required field "
            "`id`; an export may have been created; the next run triggers another"
        ),
    ),
    "an export that failed": (
        {SEE: says(200, {"status": "failed", "errors": '{"query": "timed out"}'})},
        "the export failed: timed out; see whether the query q1 (query_id) runs in Gooee",
    ),
    "an export that failed without a reason": (
        {SEE: says(200, {"status": "failed"})},
        "the export failed: Gooee does not say why; see whether the query q1 (query_id) runs in Gooee",
    ),
    "an export that is gone": (
        {SEE: says(404, {"detail": "Not found."})},
        (
            'GET X/analytics/exports/e1/ answered 404 {"detail": "Not found."}; Gooee does not know the '
            "export any more; this was the last of 3 tries, and the next run begins anew"
        ),
    ),
    "an export that may not be seen": (
        {SEE: says(403, {"detail": "No."})},
        (
            'GET X/analytics/exports/e1/ answered 403 {"detail": "No."}; check base_url, and that the '
            "credentials may see exports"
        ),
    ),
    "a status that nobody knows": (
        {SEE: says(200, {"status": "pondering"})},
        (
            "5 polls were answered with what the vendor does not document, 'pondering'; check base_url, or "
            "ask the vendor what that means"
        ),
    ),
    "other rows than announced": (
        {SEE: says(200, complete(number_of_rows=5))},
        (
            "file.csv: 1 rows where the vendor says 5; this was the last of 3 tries, and the next run "
            "begins anew"
        ),
    ),
    "a number of rows that is none": (
        {SEE: says(200, complete(number_of_rows="many"))},
        (
            "the answer's number_of_rows is 'many', which is no count, so the file can't be checked by it; "
            "ask the vendor what it means"
        ),
    ),
    "other bytes than announced": (
        {SEE: says(200, complete(total_bytes=99))},
        (
            "file.csv: 8 bytes arrived where 99 were announced; its file did not arrive whole in 3 "
            "transfers; the next run begins anew"
        ),
    ),
    "a link that has ended": (
        {FILE: says(403, "<Error/>")},
        (
            "GET X/file.csv answered 403 <Error/>; its file did not arrive whole in 3 transfers; the next "
            "run begins anew"
        ),
    ),
    "a file that is gone": (
        {FILE: says(404, "<Error/>")},
        (
            "GET X/file.csv answered 404 <Error/>; Gooee does not keep the file any more; this was the last "
            "of 3 tries, and the next run begins anew"
        ),
    ),
}


@pytest.fixture(scope="module")
def vendor() -> Iterator[Vendor]:
    well = {
        CREATE: says(201, {"id": "e1"}),
        "GET /analytics/exports/?limit": says(200, []),
        SEE: says(200, complete()),
        FILE: says(200, "a,b\n1,2\n", "Content-Type: text/csv"),
    }
    gooee = Vendor("gooee", {"api_token": "t0ken-of-acme"}, {"query_id": "q1"}, well, window="snapshot")
    with gooee.serving() as vendor:
        yield vendor


@pytest.mark.parametrize("name", ROWS)
def test_the_line_of(vendor, name):
    answers, line, *how = ROWS[name]
    assert vendor.line(answers, **(how[0] if how else {})) == vendor.begin + line
