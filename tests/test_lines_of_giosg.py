"""What a user reads when giosg refuses, or its file is none: whole lines, with what to do."""

from collections.abc import Iterator

import pytest
from lines import Row, Vendor, says
from peers import response

WORKFLOW = "/api/reporting/workflow/v1/orgs/acme/workflows/w1"
FILE, INFO = f"POST {WORKFLOW}/step/1/download/", f"GET {WORKFLOW}/info/"
HTML = "Content-Type: text/html"

ROWS: dict[str, Row] = {
    "a wrong token": (
        {FILE: says(401, {"detail": "Invalid token."})},
        (
            "POST X/api/reporting/workflow/v1/orgs/acme/workflows/w1/step/1/download/ answered 401 "
            '{"detail": "Invalid token."}; check the credentials: api_token and auth_scheme; tokens are '
            "made at https://service.giosg.com/settings/live/company/tokens, and end with their user; "
            "nothing was triggered"
        ),
    ),
    "a wrong format": (
        {FILE: says(400, {"format": ["not a choice"]})},
        (
            "POST X/api/reporting/workflow/v1/orgs/acme/workflows/w1/step/1/download/ answered 400 "
            '{"format": ["not a choice"]}; check filters, step_data and what else the export sets'
        ),
    ),
    "no subscription": (
        {FILE: says(403, {"detail": "No subscription."})},
        (
            "POST X/api/reporting/workflow/v1/orgs/acme/workflows/w1/step/1/download/ answered 403 "
            '{"detail": "No subscription."}; check that the organization has a subscription to reporting, '
            "organization_id, and that the token's user may see reports"
        ),
    ),
    "a workflow that is not there": (
        {FILE: says(404, {"detail": "No data."}), INFO: says(404, {"detail": "Not found."})},
        (
            "POST X/api/reporting/workflow/v1/orgs/acme/workflows/w1/step/1/download/ answered 404 "
            '{"detail": "No data."}, and giosg has no workflow w1 in the organization acme; check '
            "workflow_id and organization_id"
        ),
    ),
    "a filter that giosg lacks": (
        {FILE: says(406, {"detail": "Filter is not implemented."})},
        (
            "POST X/api/reporting/workflow/v1/orgs/acme/workflows/w1/step/1/download/ answered 406 "
            '{"detail": "Filter is not implemented."}; giosg does not implement this filter: change '
            "`filters`"
        ),
    ),
    "too many requests": (
        {FILE: says(429, {"detail": "Throttled."}, "Retry-After: 60")},
        (
            "its file could not be fetched within export_timeout (last: POST "
            'X/api/reporting/workflow/v1/orgs/acme/workflows/w1/step/1/download/ answered 429 {"detail": '
            '"Throttled."}; lower requests_per_minute or max_concurrent_exports); raise it, or run later'
        ),
        {"export_timeout": "PT0.5S"},
    ),
    "an error": (
        {FILE: says(500, {"detail": "Unexpected error with the query."})},
        (
            "POST X/api/reporting/workflow/v1/orgs/acme/workflows/w1/step/1/download/ answered 500 "
            '{"detail": "Unexpected error with the query."}; if that goes on, make the window shorter or '
            "the filters narrower; this was the last of 3 tries, and the next run begins anew"
        ),
        {"limit": 5},
    ),
    "a host that waits no longer": (
        {FILE: says(504)},
        (
            "POST X/api/reporting/workflow/v1/orgs/acme/workflows/w1/step/1/download/ answered 504; if that "
            "goes on, make the window shorter or the filters narrower"
        ),
        {"limit": 5},
    ),
    "a message in place of the file": (
        {FILE: says(200, {"detail": "later"})},
        'in place of the file, the vendor sent {"detail": "later"}; check what the export asks for',
    ),
    "a page in place of the file": (
        {FILE: says(200, "<html>sign in</html>", HTML)},
        (
            "POST X/api/reporting/workflow/v1/orgs/acme/workflows/w1/step/1/download/ answered 200 with a "
            "web page in place of the file; check base_url; its file did not arrive whole; this was the "
            "last of 3 tries, and the next run begins anew"
        ),
    ),
    "a page that is not called one": (
        {FILE: says(200, "<html>sign in</html>")},
        (
            "the file is no CSV file but a web page or XML, perhaps a message in place of the file; it "
            "begins with '<html>sign in</html>'. See what the vendor exports, and whether the export's "
            "settings are for it"
        ),
    ),
    "a line in place of the file": (
        {FILE: says(200, "Please try again later")},
        (
            "the file is a single line that looks like a message: 'Please try again later'; if it is the "
            "header of a file without rows, name one of its columns in the export's `columns`"
        ),
    ),
    "a file of other columns": (
        {FILE: says(200, "b,c\n1,2\n")},
        (
            "nothing is known of the file's header, 'b,c', where columns such as a should be: check the "
            "export's `columns`, `primary_keys` and `skip_rows`"
        ),
        {"columns": {"a": "integer"}},
    ),
    "a file of another kind": (
        {FILE: says(200, "%PDF-1.7 x")},
        (
            "the file is no CSV file but a PDF document; it begins with '%PDF-1.7 x'. See what the vendor "
            "exports, and whether the export's settings are for it"
        ),
    ),
    "a file that is cut off": (
        {FILE: response(200, b"a,b\n1", "Content-Length: 9", length=False)},
        (
            "POST X/api/reporting/workflow/v1/orgs/acme/workflows/w1/step/1/download/: the answer broke off "
            "(ProtocolError); its file did not arrive whole; this was the last of 3 tries, and the next run "
            "begins anew"
        ),
    ),
    "a file that nothing proves": (
        {FILE: response(200, b"a,b\n1,2\n", length=False)},
        (
            "w1_1.csv: nothing proves that the file is whole (no length, chunk end, trailer, or row count "
            "with a line break at its end); set allow_unverified_downloads to accept such files"
        ),
    ),
    "only bad rows": (
        {FILE: says(200, "a,b\nx,2\n")},
        (
            "none of its 1 rows fits; the first, row 1 of w1_1.csv, column a: not an integer of 64 bits; "
            "see the stream rejected_rows, and check the export's columns"
        ),
        {"columns": {"a": "integer"}},
    ),
}


@pytest.fixture(scope="module")
def vendor() -> Iterator[Vendor]:
    block = {"api_token": "t0ken-of-acme", "organization_id": "acme"}
    well = {INFO: says(200, {"id": "w1"})}
    with Vendor("giosg", block, {"workflow_id": "w1", "step_index": 1}, well).serving() as vendor:
        yield vendor


@pytest.mark.parametrize("name", ROWS)
def test_the_line_of(vendor, name):
    answers, line, *how = ROWS[name]
    assert vendor.line(answers, **(how[0] if how else {})) == vendor.begin + line
