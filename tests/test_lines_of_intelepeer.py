"""What a user reads when IntelePeer or its server of files refuses: whole lines that say what to do, too."""

from collections.abc import Iterator
from typing import Any

import pytest
from lines import SOON, Row, Vendor, says
from sftp_server import Server

LOGIN, LIST, TRIGGER = "POST /authenticate", "GET /Q", "POST /Q"
STATUS, PATHS = "GET /Q/q1/status", "GET /Q/q1"
BUCKET, FILE = "GET /acme?", "HEAD /acme/base/reports/"
DONE = says(200, {"status": "Completed"})
UNKNOWN = [{"code": 500, "messages": ["Process ID q1 does not exist"]}]


def denied(code: str) -> str:
    """As S3 says what is wrong."""
    return f"<Error><Code>{code}</Code><Message>Says S3.</Message></Error>"


ROWS: dict[str, Row] = {
    "a wrong password": (
        {LOGIN: says(401, {"code": 401, "error": "Unauthorized"})},
        (
            "POST X/authenticate answered 401: Unauthorized; check auth_url, username and password, which "
            "must be those of an API Access user (Customer Portal > User Management); nothing was triggered"
        ),
    ),
    "another host": (
        {LOGIN: says(404, "nothing here")},
        (
            "POST X/authenticate answered 404 nothing here, which is no answer to a login; check auth_url; "
            "nothing was triggered, and the next run tries again"
        ),
    ),
    "a wrong token": (
        {TRIGGER: says(401, {"code": 401, "error": "Unauthorized"})},
        (
            'POST X/Q answered 401 {"code": 401, "error": "Unauthorized"}; check the credentials: '
            "api_token; nothing was triggered"
        ),
        {"block": {"api_token": "t0ken-of-acme"}},
    ),
    "a user who may not": (
        {TRIGGER: says(403, {"code": 403, "error": "Forbidden"})},
        (
            "POST X/Q answered 403: Forbidden; check that the user is an API Access user of the Customer "
            "Portal and may use the Insights API"
        ),
    ),
    "an event that is not there": (
        {LIST: says(200, {"MsgEvent": {"fields": []}, "CallEvents": {"fields": []}})},
        (
            "there is no event 'CallEvent'; the API knows MsgEvent, CallEvents, and upper and lower case "
            "count; did you mean CallEvents?"
        ),
        {"fields": []},
    ),
    "a wrong field": (
        {TRIGGER: says(400, {"code": "422-6", "messages": [{"CallEvent": "Unknown field Nope"}]})},
        "POST X/Q answered 400: Unknown field Nope; check event, fields, filters and scope",
    ),
    "too many queries": (
        {TRIGGER: says(429, {"code": 429, "message": "max concurrent queries per user (2) reached"})},
        (
            'it could not be triggered within export_timeout (last: POST X/Q answered 429 {"code": 429, '
            '"message": "max concurrent queries per user (2) reached"}; lower requests_per_minute or '
            "max_concurrent_exports); raise it, or run later"
        ),
        SOON,
    ),
    "an error": (
        {TRIGGER: says(500, {"error": "oops"})},
        (
            'POST X/Q answered 500 {"error": "oops"}; whether a job was triggered is not known; the next '
            "run triggers another"
        ),
    ),
    "an answer without an id": (
        {TRIGGER: says(201, {})},
        (
            "POST X/Q answered 201 with a malformed answer: Object missing required field `id`; without an "
            "id, a query may have been triggered; the next run triggers another"
        ),
    ),
    "a query that is not known": (
        {STATUS: says(500, UNKNOWN)},
        (
            "GET X/Q/q1/status answered 500: Process ID q1 does not exist; IntelePeer does not know the "
            "query any more; this was the last of 3 tries, and the next run begins anew"
        ),
    ),
    "a query that failed": (
        {STATUS: says(200, {"status": "Failed", "messages": ["Bad filter"]})},
        "the query failed: Bad filter; check fields, filters and scope",
    ),
    "a query that failed without a reason": (
        {STATUS: says(200, {"status": "Failed"})},
        "the query failed: no reason was given; check fields, filters and scope",
    ),
    "a query that was canceled": (
        {STATUS: says(200, {"status": "Canceled"})},
        (
            "the query was canceled, due to a time-out or another error; if that happens again, make the "
            "window shorter; this was the last of 3 tries, and the next run begins anew"
        ),
    ),
    "a query that is never ready": (
        {STATUS: says(200, {"status": "Pending"})},
        "not ready within export_timeout; raise it, or make the window shorter",
        SOON,
    ),
    "a state that nobody knows": (
        {STATUS: says(200, {"status": "Pondering"})},
        (
            "5 polls were answered with what the vendor does not document, 'Pondering'; check base_url, or "
            "ask the vendor what that means"
        ),
    ),
    "a query without files": (
        {STATUS: DONE, PATHS: says(200, {"status": "Process finished."})},
        "query q1 is completed, but names no files: 'Process finished.'; ask IntelePeer's support",
    ),
    "a path that leads elsewhere": (
        {STATUS: DONE, PATHS: says(200, {"status": "Process finished. Download: [u'../x.csv.gz']"})},
        "the path '../x.csv.gz' leads out of the folder of files_url, so it is not fetched",
    ),
    "a bucket that is not there": (
        {BUCKET: says(404, denied("NoSuchBucket"))},
        (
            "s3://acme: there is no such bucket (An error occurred (NoSuchBucket) when calling the "
            "ListObjectsV2 operation (reached max retries: 0): Says S3.); check files_url; nothing was "
            "triggered"
        ),
    ),
    "a wrong key of AWS": (
        {BUCKET: says(403, denied("InvalidAccessKeyId"))},
        (
            "s3://acme: An error occurred (InvalidAccessKeyId) when calling the ListObjectsV2 operation "
            "(reached max retries: 0): Says S3.; check the AWS credentials and what they allow; nothing was "
            "triggered"
        ),
    ),
    "a bucket that can't be asked": (
        {BUCKET: says(500, denied("InternalError"))},
        (
            "s3://acme: An error occurred (InternalError) when calling the ListObjectsV2 operation (reached "
            "max retries: 0): Says S3.; nothing was triggered, and the next run tries again"
        ),
    ),
    "an object that may not be read": (
        {FILE: says(403)},
        (
            "s3://acme: An error occurred (403) when calling the HeadObject operation (reached max retries: "
            "0): Forbidden; check the AWS credentials and what they allow; the job is kept, and the next "
            "run goes on with it"
        ),
    ),
    "an object that is not there": (
        {FILE: says(404)},
        (
            "s3://acme: base/reports/a.csv.gz is not there any more; this was the last of 3 tries, and the "
            "next run begins anew"
        ),
    ),
    "a base that is not there": (
        {BUCKET: says(200, "<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>"), FILE: says(404)},
        (
            "s3://acme: there is nothing below base/; check files_url; the job is kept, and the next run "
            "goes on with it"
        ),
    ),
}


@pytest.fixture(scope="module")
def vendor() -> Iterator[Vendor]:
    block = {"username": "ann", "password": "invented", "files_url": "s3://acme/base"}
    well = {
        LOGIN: says(200, {"token": "t0ken-of-acme"}),
        TRIGGER: says(201, {"id": "q1"}),
        STATUS: DONE,
        PATHS: says(200, {"status": "Process finished. Download: [u'reports/a.csv.gz']"}),
        BUCKET: says(200, "<ListBucketResult><KeyCount>1</KeyCount></ListBucketResult>"),
    }
    export = {"event": "CallEvent", "fields": ["TimeStamp"]}
    intelepeer = Vendor("intelepeer", block, export, well, auth="/authenticate")
    with intelepeer.serving() as vendor, pytest.MonkeyPatch.context() as patch:
        environment = {
            "AWS_ENDPOINT_URL": vendor.peer.origin,
            "AWS_ACCESS_KEY_ID": "AKIAINVENTED",
            "AWS_SECRET_ACCESS_KEY": "invented-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
        }
        for name, text in environment.items():
            patch.setenv(name, text)
        yield vendor


@pytest.mark.parametrize("name", ROWS)
def test_the_line_of(vendor, name):
    answers, line, *how = ROWS[name]
    assert vendor.line(answers, **(how[0] if how else {})) == vendor.begin + line


# Servers of files

OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJqR0Cw5kXx3C0l2hcdzEbRV1y3sYd6X1Qe0kPpUuTtm"

REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "a host key that is not configured": (
        {"sftp_host_key": None},
        (
            "sftp://127.0.0.1:{port}: the host key is not configured, so the server is not trusted. It has "
            "the key ssh-ed25519 {fingerprint}; if that is the right one, set sftp_host_key to: {key}; "
            "nothing was triggered"
        ),
    ),
    "a host key that differs": (
        {"sftp_host_key": OTHER},
        (
            "sftp://127.0.0.1:{port}: the server has the key ssh-ed25519 {fingerprint} and not the "
            "configured one, ssh-ed25519 SHA256:JWLB4Vj+1tZT7bTk6QeIFe/E9apduiZwQ7r/AM/GszE; either it has "
            "a new one, or somebody stands between. Ask whoever runs it before changing sftp_host_key or "
            "sftp_known_hosts; nothing was triggered"
        ),
    ),
    "a wrong password": (
        {"sftp_password": "another"},
        (
            "sftp://127.0.0.1:{port}: acme is not let in (Authentication failed.); check the user in "
            "files_url, and sftp_password or sftp_private_key; nothing was triggered"
        ),
    ),
    "a folder that is not there": (
        {"files_url": "sftp://acme@127.0.0.1:{port}/elsewhere"},
        "sftp://127.0.0.1:{port}: there is no folder /elsewhere/; check files_url; nothing was triggered",
    ),
    "nobody there": (
        {"files_url": "sftp://acme@127.0.0.1:1/base"},
        (
            "sftp://127.0.0.1:1: connection refused; check files_url; nothing was triggered, and the next "
            "run tries again"
        ),
    ),
    "a host that is not known": (
        {"files_url": "sftp://acme@nobody.invalid/base"},
        (
            "sftp://nobody.invalid:22: the host's name is not known; check files_url; nothing was "
            "triggered, and the next run tries again"
        ),
    ),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("root")
    (root / "base").mkdir()
    server = Server(root)
    yield server
    server.close()


def reach(server: Server, **otherwise: Any) -> dict[str, Any]:
    """The settings of a block that reach an SFTP server, or not."""
    url = otherwise.pop("files_url", "sftp://acme@127.0.0.1:{port}/base").format(port=server.port)
    settings = {"files_url": url, "sftp_password": "invented", "sftp_host_key": server.host_key}
    return settings | otherwise


@pytest.mark.parametrize("name", REFUSALS)
def test_a_server_of_files_that_refuses_is_found_before_a_query_is_sent(vendor, server, name):
    otherwise, line = REFUSALS[name]
    before = len(vendor.peer.seen)
    found = vendor.line({}, block=reach(server, **otherwise))
    known = {"port": server.port, "key": server.host_key, "fingerprint": server.fingerprint}
    assert found == vendor.begin + line.format(**known)
    assert [seen.target for seen in vendor.peer.seen[before:] if seen.target == "/Q"] == []


def test_a_file_that_is_not_on_the_server(vendor, server):
    assert vendor.line({}, block=reach(server)) == (
        f"{vendor.begin}sftp://127.0.0.1:{server.port}: reports/a.csv.gz is not there any more; this was the "
        "last of 3 tries, and the next run begins anew"
    )
