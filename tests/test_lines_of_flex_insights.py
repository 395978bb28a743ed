"""What a user reads when Flex Insights refuses: whole lines that say what happened, where, and what to do."""

from collections.abc import Iterator
from typing import Any

import pytest
from lines import SOON, Row, Vendor, says

LOGIN, TOKEN = "POST /gdc/account/login", "GET /gdc/account/token"
IDENTIFIERS = "POST /gdc/md/acme/identifiers"
EXECUTE, RESULT = "POST /gdc/app/projects/acme/execute/raw", "GET /gdc/projects/acme/execute/raw/1"
HTML = "Content-Type: text/html"
MAINTENANCE = "Scheduled maintenance in progress. Please try again later."
EXPIRED = 'WWW-Authenticate: GoodData realm="GoodData API" cookie=GDCAuthTT'


def error(message: str, *parameters: str) -> dict[str, Any]:
    """As GoodData says what is wrong."""
    return {"error": {"message": message, "parameters": parameters}}


ROWS: dict[str, Row] = {
    "a wrong password": (
        {LOGIN: says(401, error("Bad credentials"))},
        (
            "POST X/gdc/account/login answered 401: Bad credentials; check username and password; Flex "
            "Insights Support sets the password for direct logins; nothing was triggered"
        ),
    ),
    "too many wrong passwords": (
        {LOGIN: says(429, "", "Retry-After: 60")},
        (
            "POST X/gdc/account/login answered 429; there were too many bad logins: check username and "
            "password, and wait 60 seconds; nothing was triggered"
        ),
    ),
    "a question of security": (
        {LOGIN: says(401, error("Login needs security code verification due to failed login attempts."))},
        (
            "POST X/gdc/account/login answered 401: Login needs security code verification due to failed "
            "login attempts.; log in to Flex Insights once in a browser and answer the security question "
            "there; nothing was triggered"
        ),
    ),
    "another host": (
        {LOGIN: says(404, "nothing here")},
        (
            "POST X/gdc/account/login answered 404: nothing here, which is no answer to a login; check "
            "base_url; nothing was triggered, and the next run tries again"
        ),
    ),
    "a page in place of a login": (
        {LOGIN: says(200, "<html>sign in</html>", HTML)},
        (
            "POST X/gdc/account/login answered 200 with a malformed answer: no JSON (text/html); this is no "
            "refusal, but without a token nothing can be asked for; check base_url; nothing was triggered, "
            "and the next run tries again"
        ),
    ),
    "maintenance": (
        {LOGIN: says(503, MAINTENANCE)},
        (
            "POST X/gdc/account/login answered 503 Scheduled maintenance in progress. Please try again "
            "later.; nothing was triggered, and the next run tries again"
        ),
    ),
    "no token after the login": (
        {TOKEN: says(403, error("Forbidden"))},
        (
            "GET X/gdc/account/token answered 403: Forbidden; the login was accepted, but no token came "
            "after it; ask Flex Insights Support what the user lacks; nothing was triggered"
        ),
    ),
    "a date that is not there": (
        {IDENTIFIERS: says(200, {"identifiers": []})},
        (
            "the workspace acme has no attribute 'date.date.mmddyyyy'; check date_identifier, which is not "
            "the attribute's title"
        ),
    ),
    "a workspace of others": (
        {IDENTIFIERS: says(403, error("The user is not in the project"))},
        (
            "POST X/gdc/md/acme/identifiers answered 403: The user is not in the project; check "
            "workspace_id, and that the user belongs to it"
        ),
    ),
    "a workspace that is not there": (
        {EXECUTE: says(404, error("Project %s not found", "acme"))},
        (
            "POST X/gdc/app/projects/acme/execute/raw answered 404: Project acme not found; check "
            "report_id, the number at the end of the report's URL in Flex Insights, and workspace_id"
        ),
    ),
    "a report of others": (
        {EXECUTE: says(403, error("Access denied"))},
        (
            "POST X/gdc/app/projects/acme/execute/raw answered 403: Access denied; check that the user may "
            "see this report and this workspace"
        ),
    ),
    "a report that is no table": (
        {EXECUTE: says(400, error("The report '%s' is not a table", "7"), "X-GDC-Request: r-1")},
        (
            "POST X/gdc/app/projects/acme/execute/raw answered 400: The report '7' is not a table "
            "(X-GDC-Request r-1); check report_id, which must be of a report that is saved as a table, and "
            "date_identifier"
        ),
    ),
    "maintenance at the trigger": (
        {EXECUTE: says(503, MAINTENANCE)},
        (
            "it could not be triggered within export_timeout (last: POST "
            "X/gdc/app/projects/acme/execute/raw answered 503 Scheduled maintenance in progress. Please try "
            "again later.); raise it, or run later"
        ),
        SOON,
    ),
    "an error at the trigger": (
        {EXECUTE: says(500, error("Unexpected"))},
        (
            'POST X/gdc/app/projects/acme/execute/raw answered 500 {"error": {"message": "Unexpected", '
            '"parameters": []}}; whether a job was triggered is not known; the next run triggers another'
        ),
    ),
    "a report that is too large": (
        {RESULT: says(400, error("Report not computable due to the size of the result set"))},
        (
            "GET X/gdc/projects/acme/execute/raw/1 answered 400: Report not computable due to the size of "
            "the result set; make the window shorter, or the report smaller"
        ),
    ),
    "a report that can't be computed": (
        {RESULT: says(400, error("Bad report"))},
        (
            "GET X/gdc/projects/acme/execute/raw/1 answered 400: Bad report; open the report in Flex "
            "Insights to see what it lacks"
        ),
    ),
    "tokens that have ended": (
        {RESULT: says(401, "", EXPIRED)},
        (
            "GET X/gdc/projects/acme/execute/raw/1 answered 401; check the credentials: username and "
            "password; the job is kept, and the next run goes on with it"
        ),
    ),
    "a task that failed": (
        {RESULT: says(410, error("task failed"))},
        (
            "GET X/gdc/projects/acme/execute/raw/1 answered 410: task failed; Flex Insights has no such "
            "result any more; if that goes on, see whether the report opens in Flex Insights; this was the "
            "last of 3 tries, and the next run begins anew"
        ),
    ),
    "a page in place of the report": (
        {RESULT: says(200, "<html>sign in</html>", HTML)},
        (
            "5 polls were answered with what the vendor does not document, 'GET "
            "X/gdc/projects/acme/execute/raw/1 answered 200 with text/html in place of the report'; check "
            "base_url, or ask the vendor what that means"
        ),
    ),
    "a report that is never ready": (
        {RESULT: says(202)},
        "not ready within export_timeout; raise it, or make the window shorter",
        SOON,
    ),
}


@pytest.fixture(scope="module")
def vendor() -> Iterator[Vendor]:
    block = {"username": "ann@example.com", "password": "invented", "workspace_id": "acme"}
    export = {"report_id": 7, "date_identifier": "date.date.mmddyyyy"}
    well = {
        LOGIN: says(200, {"userLogin": {"profile": "/gdc/account/profile/1", "token": "sst-of-acme"}}),
        TOKEN: says(200, {"userToken": {"token": "tt-of-acme"}}),
        "DELETE /gdc/account/login/1": says(204),
        IDENTIFIERS: says(200, {"identifiers": [{"uri": "/gdc/md/acme/obj/9"}]}),
        EXECUTE: says(201, {"uri": "/gdc/projects/acme/execute/raw/1?q=x"}),
        RESULT: says(200, "a,b\r\n1,2\r\n", "Content-Type: text/csv"),
    }
    with Vendor("flex_insights", block, export, well).serving() as vendor:
        yield vendor


@pytest.mark.parametrize("name", ROWS)
def test_the_line_of(vendor, name):
    answers, line, *how = ROWS[name]
    assert vendor.line(answers, **(how[0] if how else {})) == vendor.begin + line
