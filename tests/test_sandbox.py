"""The sandbox over real sockets: what the vendors document is what it answers."""

from __future__ import annotations

import ast
import base64
import csv
import gzip
import hashlib
import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from urllib.parse import parse_qsl, quote, unquote, urljoin, urlsplit

import paramiko
import pytest
import requests
from python_calamine import CalamineWorkbook

from tap_analytics_exports.sandbox import data

DAY = datetime(2026, 3, 4, tzinfo=UTC)
NEXT = DAY + timedelta(days=1)
WORLD = data.World(seed=7, per_day=60)
JOB_SECONDS = 0.2
FLEX_DAY = {"type": "interval", "from": "2026-03-04", "to": "2026-03-04"}


class Sandbox:
    """A running process, the configuration that it printed, and its control API."""

    def __init__(self, folder, *options):
        command = [sys.executable, "-m", "tap_analytics_exports.sandbox", "--port", "0", "--dir", str(folder)]
        command += ["--seed", "7", "--rows", "60", "--job-seconds", str(JOB_SECONDS), *options]
        self.folder = folder
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
        )
        document = ""
        while not document.endswith("\n}\n"):
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            document += line
        self.config = json.loads(document)
        self.control = json.loads((folder / "control.json").read_text())

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=10)
        return self.process.returncode, out

    def get(self, what, **query):
        return requests.get(f"{self.control['control']}/{what}", params=query, timeout=10).json()

    def post(self, what, document):
        answer = requests.post(f"{self.control['control']}/{what}", json=document, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    sandbox = Sandbox(tmp_path_factory.mktemp("sandbox"))
    yield sandbox
    assert sandbox.stop()[0] == 0


@pytest.fixture
def sandbox(process):
    process.post("reset", {})
    return process


def rows(text):
    """Reads CSV as text, by title; a title that repeats gets _2."""
    lines = csv.reader(io.StringIO(text, newline=""))
    header = next(lines)
    titles = [f"{title}_2" if title in header[:at] else title for at, title in enumerate(header)]
    return [dict(zip(titles, line, strict=True)) for line in lines]


def until(look, done, seconds=5.0):
    """Looks again and again until it is done."""
    end = time.monotonic() + seconds
    while not done(seen := look()):
        assert time.monotonic() < end, seen
        time.sleep(0.05)
    return seen


# The process


def test_it_prints_one_document_and_leaves_files_for_a_shell_and_ssh(tmp_path):
    first = Sandbox(tmp_path / "kept")
    assert json.loads((first.folder / "config.json").read_text()) == first.config
    environment = dict(line.split("=", 1) for line in (first.folder / "env").read_text().splitlines())
    assert environment["SANDBOX_SFTP_HOST_KEY"].strip("'") == first.config["intelepeer"]["sftp_host_key"]
    port = first.control["ports"]["sftp"]
    assert (first.folder / "known_hosts").read_text().startswith(f"[127.0.0.1]:{port} ssh-ed25519 ")
    began = time.monotonic()
    assert first.stop() == (0, "")
    assert time.monotonic() - began < 3
    second = Sandbox(tmp_path / "kept")
    assert second.config["intelepeer"]["sftp_host_key"] == first.config["intelepeer"]["sftp_host_key"]
    assert second.stop()[0] == 0


def test_a_taken_port_is_said_in_a_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "tap_analytics_exports.sandbox", "--port"]
        port = str(taken.getsockname()[1])
        ended = subprocess.run([*command, port], capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1


def test_it_ends_while_a_client_hangs(tmp_path):
    sandbox = Sandbox(tmp_path)
    sandbox.post("faults", [{"service": "giosg", "action": {"hang": "before_headers"}}])
    with pytest.raises(requests.Timeout):
        requests.get(sandbox.config["giosg"]["base_url"], timeout=0.2)
    sandbox.post("faults", [{"service": "giosg", "action": {"hang": "mid_body", "body": "x" * 9}}])
    url = urlsplit(sandbox.config["giosg"]["base_url"])
    with socket.create_connection((url.hostname, url.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 401")
        began = time.monotonic()
        assert sandbox.stop()[0] == 0
    assert time.monotonic() - began < 3


# The data


def test_rows_are_the_same_however_the_span_is_cut():
    whole = data.expected(WORLD, "giosg", f"{data.GIOSG_CALLS}/1", DAY, NEXT)
    assert len(whole) == WORLD.per_day
    edges = [DAY + timedelta(hours=hour) for hour in range(0, 25, 3)]
    parts = [data.expected(WORLD, "giosg", f"{data.GIOSG_CALLS}/1", *span) for span in pairwise(edges)]
    assert [row for part in parts for row in part] == whole
    assert all(parts)
    # One row on each edge, and one in the day's last second, after its beginning.
    assert all(
        part[0]["timestamp"] == edge.isoformat(timespec="milliseconds")
        for part, edge in zip(parts, edges[:-1], strict=True)
    )
    assert whole[-1]["timestamp"] == "2026-03-04T23:59:59.700+00:00"


def test_no_row_comes_from_the_future_and_late_rows_come_late():
    noon = DAY + timedelta(hours=12)
    seen = data.expected(WORLD, "intelepeer", "CallEvent", DAY, NEXT, as_of=noon)
    assert 0 < len(seen) < WORLD.per_day
    assert data.expected(WORLD, "intelepeer", "CallEvent", DAY, NEXT, as_of=NEXT)[: len(seen)] == seen
    late = data.World(WORLD.seed, WORLD.per_day, late_seconds=7200)
    fewer = data.expected(late, "intelepeer", "CallEvent", DAY, NEXT, as_of=NEXT)
    assert len(fewer) < WORLD.per_day
    assert data.expected(late, "intelepeer", "CallEvent", DAY, NEXT, as_of=NEXT + timedelta(days=1)) == (
        data.expected(WORLD, "intelepeer", "CallEvent", DAY, NEXT)
    )


def test_expected_over_the_control_api_is_the_function(sandbox):
    span = {"start": DAY.isoformat(), "end": NEXT.isoformat()}
    shown = sandbox.get("expected", provider="khoros_care", export="response", **span)
    assert shown == data.expected(WORLD, "khoros_care", "response", DAY, NEXT)


# Twilio Flex Insights


class Flex:
    def __init__(self, sandbox):
        block = sandbox.config["flex_insights"]
        self.base, self.workspace = block["base_url"], block["workspace_id"]
        self.login_body = {"login": block["username"], "password": block["password"], "remember": 0}
        self.sandbox = sandbox
        self.cookies = {}

    def login(self, **changes):
        body = {"postUserLogin": {**self.login_body, "verify_level": 2, **changes}}
        return requests.post(f"{self.base}/gdc/account/login", json=body, timeout=10)

    def enter(self):
        user = self.login().json()["userLogin"]
        self.sst, self.profile = {"X-GDC-AuthSST": user["token"]}, user["profile"].rpartition("/")[2]
        answer = requests.get(f"{self.base}/gdc/account/token", headers=self.sst, timeout=10)
        self.cookies = {"GDCAuthTT": answer.json()["userToken"]["token"]}
        return self

    def call(self, method, path, **more):
        return requests.request(method, urljoin(self.base, path), cookies=self.cookies, timeout=10, **more)

    def trigger(self, report, constraint, identifier="date.date.mmddyyyy"):
        path = f"/gdc/md/{self.workspace}"
        named = self.call("POST", f"{path}/identifiers", json={"identifierToUri": [identifier]}).json()
        limit = {"uri": named["identifiers"][0]["uri"], "constraint": constraint}
        asked = {"report": f"{path}/obj/{report}", "context": {"filters": [limit]}}
        return self.call(
            "POST", f"/gdc/app/projects/{self.workspace}/execute/raw", json={"report_req": asked}
        )

    def wait(self, uri):
        return until(lambda: self.call("GET", uri), lambda answer: answer.status_code != 202)


def test_flex_raw_report(sandbox):
    flex = Flex(sandbox).enter()
    started = flex.trigger("643041", FLEX_DAY)
    uri = started.json()["uri"]
    assert (started.status_code, started.headers["Location"]) == (201, uri)
    assert all(sign in uri for sign in ("?q=", "&c=", "%0A", "%2B", "%2F", "%3D"))
    first = flex.call("GET", uri)
    assert first.status_code == 202
    assert first.json()["uri"] != uri
    done = flex.wait(first.json()["uri"])
    assert (done.status_code, done.headers["Content-Type"]) == (200, "text/csv")
    assert done.headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in done.headers
    lines = done.content.decode().split("\r\n")
    assert lines[0].count('"Date"') == 2
    assert lines[-1] == ""
    assert all(line.startswith('"') and line.endswith('"') for line in lines[:-1])
    # Days are those of the workspace's time zone, both ends inclusive.
    start = DAY - timedelta(hours=2)
    wanted = data.expected(WORLD, "flex_insights", "643041", start, start + timedelta(days=1))
    assert rows(done.content.decode()) == wanted
    assert any("," in row["Activity Time"] for row in wanted)
    served = sandbox.get("served")
    assert [one["sha256"] for one in served] == [hashlib.sha256(done.content).hexdigest()]
    assert served[0]["rows"] == len(wanted)
    # The same uri answers again, and the query is a part of it.
    assert flex.call("GET", uri).content == done.content
    assert flex.call("GET", uri.partition("?")[0]).status_code == 404
    assert flex.call("GET", unquote(uri).replace("\n", "%0A")).status_code == 404
    assert sandbox.get("statistics")["counts"]["mangled_uris"] == 2


def test_flex_without_data_is_204(sandbox):
    flex = Flex(sandbox).enter()
    empty = [day for day in range(1, 4) if (DAY + timedelta(days=day)).toordinal() % 3 == 0]
    day = (DAY + timedelta(days=empty[0])).date().isoformat()
    answers = [
        flex.wait(flex.trigger("643042", {"type": "interval", "from": day, "to": day}).json()["uri"]),
        flex.wait(flex.trigger("643040", {"type": "floating", "from": 2, "to": 3}).json()["uri"]),
    ]
    # The first day is empty but for the two hours that the zone is ahead.
    assert [answer.status_code for answer in answers] == [200, 204]


def test_flex_says_which_token_is_gone(sandbox):
    flex = Flex(sandbox)
    path = f"/gdc/md/{flex.workspace}/query/reports"
    missing = flex.call("GET", path)
    assert missing.status_code == 401
    assert missing.headers["WWW-Authenticate"].endswith("cookie=GDCAuthTT")
    assert "GDCAuthTT=; Max-Age=0" in missing.headers["Set-Cookie"]
    flex.enter()
    assert flex.call("GET", path).status_code == 200
    sandbox.post("revoke", {"service": "flex_insights", "what": "tt"})
    assert flex.call("GET", path).status_code == 401
    sandbox.post("revoke", {"service": "flex_insights", "what": "sst"})
    dead = requests.get(f"{flex.base}/gdc/account/token", headers=flex.sst, timeout=10)
    assert (dead.status_code, dead.content) == (401, b"")
    assert "cookie=GDCAuthSST location=/gdc/account/login" in dead.headers["WWW-Authenticate"]
    assert 'GDCAuthSST=""' in dead.headers["Set-Cookie"]
    sandbox.post("settings", {"tt_seconds": 0})
    assert flex.enter().call("GET", path).status_code == 401
    seen = sandbox.get("requests", service="flex_insights")
    assert seen[0]["authorization"] is None
    assert seen[-1]["cookies"] == ["GDCAuthTT"]
    assert not any("postUserLogin" in (one["body"] or "") for one in seen)


def test_flex_logout_wants_both_tokens_and_its_neighbour_deletes_the_user(sandbox):
    flex = Flex(sandbox).enter()
    assert flex.call("DELETE", f"/gdc/account/login/{flex.profile}").status_code == 401
    assert flex.call("DELETE", f"/gdc/account/login/{flex.profile}", headers=flex.sst).status_code == 204
    assert flex.call("GET", f"/gdc/md/{flex.workspace}/query/reports").status_code == 401
    assert sandbox.get("statistics")["counts"] == {"logouts": 1}
    flex.enter()
    assert flex.call("DELETE", f"/gdc/account/profile/{flex.profile}").status_code == 204
    assert sandbox.get("statistics")["counts"]["disasters"] == 1
    assert flex.login().status_code == 401


def test_flex_stops_answering_bad_logins(sandbox):
    flex = Flex(sandbox)
    cookies = requests.post(
        f"{flex.base}/gdc/account/login", json={"postUserLogin": {**flex.login_body}}, timeout=10
    )
    assert "GDCAuthTT=" in cookies.headers["Set-Cookie"]
    assert [flex.login(password="wrong").status_code for _ in range(6)] == [401] * 5 + [429]
    locked = flex.login()
    assert (locked.status_code, locked.headers["Retry-After"]) == (429, "2")


def test_flex_errors(sandbox):
    flex = Flex(sandbox).enter()
    path = f"/gdc/md/{flex.workspace}/identifiers"
    unknown = flex.call("POST", path, json={"identifierToUri": ["no.such"]})
    assert (unknown.status_code, unknown.json()) == (200, {"identifiers": []})
    error = flex.trigger("1", FLEX_DAY)
    assert error.status_code == 404
    assert "%s" in error.json()["error"]["message"]
    assert (
        flex.trigger("643040", {"type": "interval", "from": "2026-03-05", "to": "2026-03-04"}).status_code
        == 400
    )
    failing = {"service": "flex_insights", "match": "643040", "times": 1}
    sandbox.post("settings", {"fail_jobs": [failing, {**failing, "outcome": "gone"}]})
    codes = [flex.wait(flex.trigger("643040", FLEX_DAY).json()["uri"]).status_code for _ in range(3)]
    assert codes == [400, 410, 200]
    sandbox.post("settings", {"maintenance": True})
    down = flex.call("GET", "/gdc/ping")
    assert (down.status_code, down.text) == (
        503,
        "Scheduled maintenance in progress. Please try again later.",
    )


# IntelePeer


class Insights:
    def __init__(self, sandbox):
        self.block = block = sandbox.config["intelepeer"]
        self.sandbox = sandbox
        form = {"username": block["username"], "password": block["password"]}
        token = requests.post(block["auth_url"], json=form, timeout=10).json()["token"]
        self.headers = {"Authorization": f"Bearer {token}"}

    def call(self, method, path="", **more):
        return requests.request(
            method, f"{self.block['base_url']}/Q{path}", headers=self.headers, timeout=10, **more
        )

    def submit(self, fields=("TimeStamp", "SessionId"), event="CallEvent", bounds=None, **more):
        bounds = bounds or {"$gte": "2026-03-04T00:00:00Z", "$lt": "2026-03-05T00:00:00Z"}
        query = {"timestamp": bounds, "data": {event: {"fields": list(fields)}}, **more}
        return self.call("POST", json=query)

    def wait(self, guid):
        ended = {"Completed", "Failed", "Canceled"}
        return until(
            lambda: self.call("GET", f"/{guid}/status").json(), lambda answer: answer["status"] in ended
        )

    def paths(self, guid):
        status = self.call("GET", f"/{guid}").json()["status"]
        assert "[u'reports/" in status
        return ast.literal_eval(re.search(r"Download: (\[.*\])$", status)[1])

    def sftp(self, **how):
        files = urlsplit(self.block["files_url"])
        transport = paramiko.Transport((files.hostname, files.port))
        try:
            transport.connect(username=files.username, **how)
        except BaseException:
            transport.close()
            raise
        return transport

    def download(self, paths):
        base = urlsplit(self.block["files_url"]).path
        transport = self.sftp(password=self.block["sftp_password"])
        try:
            with paramiko.SFTPClient.from_transport(transport) as client:
                found = []
                for path in paths:
                    with client.open(f"{base}/{path}") as file:
                        found.append(file.read())
                return found
        finally:
            transport.close()


def test_intelepeer_query(sandbox):
    api = Insights(sandbox)
    fields = api.call("GET").json()
    assert fields["ApplicationExitEvent"] == {"fields": ["StartTime", "EndTime", "Path", "ExitReason"]}
    names = ["SessionId", "IsTriggerAction", *fields["CallEvent"]["fields"], "TimeStamp"]
    started = api.submit(names)
    assert started.status_code == 201
    guid = started.json()["id"]
    assert api.call("GET", f"/{guid}/status").json() == {"status": "Pending", "guid": guid}
    unfinished = api.call("GET", f"/{guid}")
    assert unfinished.status_code == 200
    assert unfinished.json()["status"].startswith("Process has not finish yet")
    assert api.wait(guid) == {"status": "Completed", "guid": guid}
    assert api.call("HEAD", f"/{guid}").status_code == 200
    paths = api.paths(guid)
    assert [re.search(r"_QueryExport_\d{13}__(\d{12})\.csv\.gz$", path)[1] for path in paths] == [
        "000000000000",
        "000000000001",
        "000000000002",
    ]
    stored = api.download(paths)
    parts = [rows(gzip.decompress(shard).decode()) for shard in stored]
    # Each shard has its header, and the last has nothing else.
    assert [len(part) for part in parts] == [30, 30, 0]
    found = sorted((row for part in parts for row in part), key=lambda row: row["TimeStamp"])
    wanted = data.expected(WORLD, "intelepeer", "CallEvent", DAY, NEXT)
    wanted = [{name: row[name] for name in names} for row in wanted]
    assert sorted(map(str, found)) == sorted(map(str, wanted))
    assert found[0]["TimeStamp"] == "2026-03-04 00:00:00 UTC"
    assert found[-1]["TimeStamp"] == "2026-03-04 23:59:59.7 UTC"
    assert {row["IsTriggerAction"] for row in found} == {"true", "false"}
    hashes = {one["file"]: one["sha256"] for one in sandbox.get("served")}
    assert hashes == {
        path: hashlib.sha256(shard).hexdigest() for path, shard in zip(paths, stored, strict=True)
    }


def test_intelepeer_bounds_are_inclusive_and_filters_apply(sandbox):
    api = Insights(sandbox)
    hour = {"$gte": "2026-03-04T00:00:00Z", "$lte": "2026-03-04T01:00:00Z"}
    trigger = {"CallEvent": {"IsTriggerAction": {"$eq": True}, "Duration": {"$gt": 0, "$ne": 7}}}
    session = data.expected(WORLD, "intelepeer", "CallEvent", DAY, NEXT)[5]["SessionId"]
    scope = {"scope": {"CallEvent": {}}, "filters": {"CallEvent": {"SessionId": {"$eq": session}}}}
    guids = [
        api.submit(bounds=hour).json()["id"],
        api.submit(["Duration", "IsTriggerAction"], filters=trigger).json()["id"],
    ]
    found = []
    for guid in guids:
        assert api.wait(guid)["status"] == "Completed"
        found.append(
            [row for shard in api.download(api.paths(guid)) for row in rows(gzip.decompress(shard).decode())]
        )
    assert max(row["TimeStamp"] for row in found[0]) == "2026-03-04 01:00:00 UTC"
    assert found[1]
    assert all(row["IsTriggerAction"] == "true" and int(row["Duration"]) > 0 for row in found[1])
    guid = api.submit(scope=scope).json()["id"]
    assert api.wait(guid)["status"] == "Completed"
    scoped = [row for shard in api.download(api.paths(guid)) for row in rows(gzip.decompress(shard).decode())]
    assert {row["SessionId"] for row in scoped} == {session}


def test_intelepeer_two_queries_at_a_time(sandbox):
    api = Insights(sandbox)
    answers = [api.submit() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 429]
    assert answers[2].json() == {"code": 429, "message": "max concurrent queries per user (2) reached"}
    api.wait(answers[0].json()["id"])
    assert sandbox.get("statistics")["max_running"]["intelepeer"] == 2


def test_intelepeer_failed_is_two_things(sandbox):
    api = Insights(sandbox)
    empty = "All data fields have empty values, advise adding core fields"
    future = {"$gte": "2999-01-01T00:00:00Z"}
    # Fields that the dictionary says are always empty find nothing either.
    for answer in (api.submit(bounds=future), api.submit(["EventSku", "HostId"])):
        ended = api.wait(answer.json()["id"])
        assert (ended["status"], ended["messages"]) == ("Failed", [empty])
    sandbox.post("settings", {"wide_after_seconds": 3600})
    ended = api.wait(api.submit().json()["id"])
    assert (ended["status"], ended["messages"]) == ("Failed", ["Query range to wide", empty])
    sandbox.post(
        "settings", {"wide_after_seconds": 0, "fail_jobs": [{"service": "intelepeer", "outcome": "Canceled"}]}
    )
    assert api.wait(api.submit().json()["id"])["status"] == "Canceled"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"bounds": {"gte": "2026-03-04T00:00:00Z"}}, "Invalid operators [gte], try to use any of these"),
        ({"bounds": {"$gte": "2019-10-19 01:45:36.123Z"}}, "Invalid date filters [2019-10-19 01:45:36.123Z]"),
        ({"event": "Application ExitEvent"}, "Application ExitEvent is not a valid schema name."),
        ({"fields": ["Flow Id"]}, "Flow Id is not a valid field."),
        ({"scope": {"filters": {}}}, "scope requires both filters and scope."),
        (
            {"scope": {"filters": {"CallEvent": {"FlowId": {"$eq": "x"}}}, "scope": {}}},
            "FlowId is not a valid field.",
        ),
        ({"filters": {"CallEvent": {"Cost": {"$in": []}}}}, "Invalid operators [$in]"),
    ],
)
def test_intelepeer_refuses(sandbox, query, message):
    answer = Insights(sandbox).submit(**query)
    assert answer.status_code == 400
    assert answer.json()["code"] == 400
    assert message in answer.text


def test_intelepeer_unknown_query_is_a_500_and_an_array(sandbox):
    api = Insights(sandbox)
    for path in ("/nope", "/nope/status"):
        answer = api.call("GET", path)
        assert answer.status_code == 500
        assert answer.json()[0]["message"].endswith("QueryRequest matching query does not exist.")
    sandbox.post("revoke", {"service": "intelepeer", "what": "token"})
    assert api.call("GET").status_code == 401
    api.headers = {"Authorization": "0sjey2n81hamxis=/"}
    assert api.call("GET").status_code == 401
    api.headers = {"Authorization": "Bearer 0sjey2n81hamxis=/"}
    assert api.call("GET").status_code == 200


def test_intelepeer_files_over_sftp(sandbox):
    api = Insights(sandbox)
    key = paramiko.Ed25519Key.from_private_key_file(sandbox.control["sftp_private_key_file"])
    transport = api.sftp(pkey=key)
    assert transport.get_remote_server_key().get_base64() == api.block["sftp_host_key"].split()[1]
    with paramiko.SFTPClient.from_transport(transport) as client:
        assert client.listdir("/") == ["outbox"]
        with pytest.raises(PermissionError):
            client.open("/outbox/mine", "w")
    transport.close()
    with pytest.raises(paramiko.AuthenticationException):
        api.sftp(password="wrong")
    seen = [(one["method"], one["status"]) for one in sandbox.get("requests", service="intelepeer_sftp")]
    assert seen[0] == ("CONNECT", None)
    assert {("PUBLICKEY", 0), ("OPEN", 1), ("PASSWORD", 1)} <= set(seen)


def test_intelepeer_files_go_wrong(sandbox):
    api = Insights(sandbox)
    sandbox.post("settings", {"damage_shards": 1})
    guid = api.submit().json()["id"]
    api.wait(guid)
    paths = api.paths(guid)
    whole = api.download(paths)
    with pytest.raises(EOFError):
        gzip.decompress(whole[0])
    assert gzip.decompress(whole[1])
    cut = {
        "service": "intelepeer_sftp",
        "method": "OPEN",
        "path": "0000001",
        "action": {"truncate_after_bytes": 10},
    }
    refused = {**cut, "action": {"status": 3, "body": "Permission denied"}}
    sandbox.post("faults", [cut, refused])
    with pytest.raises((OSError, EOFError, paramiko.SSHException)):
        api.download(paths[1:2])
    with pytest.raises(PermissionError):
        api.download(paths[1:2])
    assert api.download(paths) == whole


def test_intelepeer_results_for_another_server(tmp_path):
    sandbox = Sandbox(tmp_path / "dir", "--results-dir", str(tmp_path / "results"), "--shards", "1")
    try:
        assert "files_url" not in sandbox.config["intelepeer"]
        api = Insights(sandbox)
        guid = api.submit().json()["id"]
        api.wait(guid)
        (path,) = api.paths(guid)
        assert len(rows(gzip.decompress((tmp_path / "results" / path).read_bytes()).decode())) == 60
    finally:
        assert sandbox.stop()[0] == 0


# Khoros Care


class Care:
    def __init__(self, sandbox):
        self.block = block = sandbox.config["khoros_care"]
        self.auth = (block["username"], block["password"])
        self.sandbox = sandbox

    def trigger(self, export, method="POST", hours=24, **more):
        query = {
            "companyKey": self.block["company_key"],
            "startTime": _ms(DAY),
            "endTime": _ms(DAY) + hours * 3600000 - 1,
        }
        url = f"{self.block['base_url']}/report/{export}"
        return requests.request(method, url, params=query | more, auth=self.auth, timeout=10)

    def get(self, url, **more):
        return requests.get(url, auth=self.auth, timeout=10, **more)

    def wait(self, url):
        return until(
            lambda: self.get(url).json()["result"],
            lambda result: _one(result)["result"]["runnerState"] == "CLOSED",
        )


def _one(result):
    return result[0] if isinstance(result, list) else result


def _ms(moment):
    return int(moment.timestamp() * 1000)


def test_khoros_export(sandbox):
    care = Care(sandbox)
    answer = care.trigger("conversation", "GET", reportFormat="CSV", conversationReportType="CREATED").json()
    assert answer["status"] == "PASS"
    result = answer["result"]
    assert result["downloadUrl"] == ""
    assert "%2B" in result["statusUrl"]
    assert "companyKey=" in result["statusUrl"]
    running = care.get(result["statusUrl"]).json()["result"]
    assert isinstance(running, list)
    assert running[0]["result"] | {"runnerState": "RUNNING", "detail": ""} == running[0]["result"]
    ready = care.wait(result["statusUrl"])
    assert (ready["result"]["runnerState"], ready["result"]["detail"]) == ("CLOSED", "COMPLETED")
    assert "analyticsAccessToken=" in ready["jobInfo"]["downloadUrl"]
    hop = care.get(ready["jobInfo"]["downloadUrl"], allow_redirects=False)
    assert hop.status_code == 302
    location = hop.headers["Location"]
    assert urlsplit(location).port == sandbox.control["ports"]["khoros_files"]
    leak = care.get(location)
    assert (leak.status_code, sandbox.get("statistics")["counts"]["credentials_leaked"]) == (400, 1)
    file = requests.get(location, timeout=10)
    assert file.headers["Content-Type"] == "text/csv"
    assert rows(file.content.decode()) == data.expected(WORLD, "khoros_care", "conversation", DAY, NEXT)
    # Both Basic and the key, each time; a URL's access token is no Basic.
    assert requests.get(ready["jobInfo"]["downloadUrl"], timeout=10).status_code == 401
    assert care.get(ready["jobInfo"]["downloadUrl"].partition("?")[0]).status_code == 401
    assert care.trigger("conversation", companyKey="wrong").status_code == 401


def test_khoros_answers_in_several_shapes(sandbox):
    care = Care(sandbox)
    assert set(care.trigger("combined").json()["result"]) == {"workflowId", "runId"}
    assert care.trigger("author").json()["result"]["statusUrl"] == ""
    early = care.trigger("user").json()["result"]["downloadUrl"]
    assert care.get(early).status_code == 404
    result = care.trigger("incoming_post", reportMetrics=["post_id", "SENTIMENT"]).json()["result"]
    url = f"{care.block['base_url']}/report/{result['workflowId']}/{quote(result['runId'], safe='')}/status"
    url += f"?companyKey={care.block['company_key']}"
    document = care.get(care.wait(url)["jobInfo"]["downloadUrl"]).json()
    assert len(document) == 60
    assert set(document[0]) == {"POST_ID", "SENTIMENT"}
    assert isinstance(document[0]["POST_ID"], int)


def test_khoros_methods_and_parameters(sandbox):
    care = Care(sandbox)
    assert care.trigger("response", "GET").status_code == 405
    assert care.trigger("marketing/raw_brand_post", "GET").status_code == 200
    assert care.trigger("marketing/raw_brand_post").status_code == 405
    assert care.trigger("no_such").status_code == 404
    for wrong in ({"startTime": None}, {"reportFormat": "xlsx"}, {"reportMetrics": "NOPE"}, {"endTime": 0}):
        answer = care.trigger("response", **wrong)
        assert (answer.status_code, answer.json()) == (400, {})
    assert care.trigger("team_performance_interval").status_code == 400
    many = care.trigger("team_performance_interval", hours=24 * 31, timeInterval=3600000)
    assert many.status_code == 200
    assert "HydrationException: Too many buckets (744) requested" in many.json()["result"]
    assert "runId" in care.trigger("team_performance_interval", timeInterval=3600000).json()["result"]
    closed = care.trigger(
        "conversation", conversationReportType="CLOSED", reportFormat="csv", teamIds="1,2"
    ).json()
    file = care.get(care.wait(closed["result"]["statusUrl"])["jobInfo"]["downloadUrl"])
    found = rows(file.content.decode())
    assert {row["STATUS"] for row in found} == {"CLOSED"}
    assert {row["TEAM_ID"] for row in found} == {"1", "2"}


def test_khoros_time_zones(sandbox):
    care = Care(sandbox)
    url = f"{care.block['base_url'].removesuffix('/reports')}/config/timezones"
    assert care.get(url).status_code == 401
    zones = care.get(url, params={"companyKey": care.block["company_key"]}).json()["result"]
    india = next(zone for zone in zones if zone["id"] == "Asia/Kolkata")
    assert (india["offsetString"], india["offsetMillis"]) == ("+05:30", 19800000)
    for asked in ({"timezone": india["id"]}, {"timezoneOffset": india["offsetMillis"]}):
        result = care.trigger("response", **asked).json()["result"]
        document = care.get(care.wait(result["statusUrl"])["jobInfo"]["downloadUrl"]).json()
        assert document[0]["POST_TIME"] == "2026-03-04 05:30:00.000"
    assert care.trigger("response", timezone="Mars/Olympus").status_code == 400


def test_khoros_failure_and_rate(sandbox):
    care = Care(sandbox)
    sandbox.post(
        "settings",
        {"fail_jobs": [{"service": "khoros_care", "times": 1}], "khoros_words": ["CLOSED/CONTINUED_AS_NEW"]},
    )
    url = care.trigger("response").json()["result"]["statusUrl"]
    assert care.get(url).json()["result"][0]["result"]["detail"] == "CONTINUED_AS_NEW"
    time.sleep(JOB_SECONDS)
    assert care.get(url).json()["result"][0]["result"]["detail"] == "FAILED"
    codes = [care.get(url).status_code for _ in range(20)]
    assert set(codes) == {200}
    assert sandbox.get("statistics")["counts"]["khoros_rate_violations"] == 3
    sandbox.post("settings", {"khoros_rate": 20})
    refused = care.get(url)
    assert refused.status_code == 429
    assert "Retry-After" not in refused.headers


# Gooee


class Lights:
    def __init__(self, sandbox):
        self.block = sandbox.config["gooee"]
        self.headers = {"Authorization": self.block["api_token"]}

    def call(self, method, path, **more):
        return requests.request(
            method, f"{self.block['base_url']}{path}", headers=self.headers, timeout=10, **more
        )

    def create(self, query=data.GOOEE_ENERGY, path="/analytics/exports/", **more):
        return self.call("POST", path, json={"name": "Export 007", "query": query, **more})

    def wait(self, number):
        return until(
            lambda: self.call("GET", f"/analytics/exports/{number}/").json(),
            lambda seen: seen["status"] in {"complete", "failed"},
        )


def test_gooee_export(sandbox):
    lights = Lights(sandbox)
    created = lights.create()
    assert created.status_code == 201
    queued = created.json()
    assert (queued["status"], queued["number_of_rows"], "url" in queued) == ("queued", None, False)
    done = lights.wait(queued["id"])
    file = requests.get(done["url"], timeout=10)
    assert (len(file.content), len(rows(file.text))) == (done["total_bytes"], done["number_of_rows"])
    as_of = datetime.fromisoformat(sandbox.get("jobs")[0]["created"])
    assert rows(file.text) == data.expected(WORLD, "gooee", data.GOOEE_ENERGY, as_of=as_of)
    part = requests.get(
        done["url"], headers={"Range": "bytes=10-19", "If-Range": file.headers["ETag"]}, timeout=10
    )
    assert (part.status_code, part.content) == (206, file.content[10:20])
    assert requests.head(done["url"], timeout=10).status_code == 403
    both = requests.get(done["url"], headers=lights.headers, timeout=10)
    assert both.status_code == 400
    assert "<Code>InvalidArgument</Code>" in both.text
    assert requests.get(done["url"], cookies={"a": "b"}, timeout=10).status_code == 400
    assert sandbox.get("statistics")["counts"]["credentials_leaked"] == 2
    assert "%2F" in done["url"]
    assert lights.call("PATCH", f"/analytics/exports/{done['id']}/").status_code == 405
    assert lights.call("DELETE", f"/analytics/exports/{done['id']}/").status_code == 204
    assert requests.get(done["url"], timeout=10).status_code == 404
    assert lights.call("GET", f"/analytics/exports/{done['id']}/").status_code == 404


def test_gooee_url_is_good_for_a_while_from_each_view(sandbox):
    lights = Lights(sandbox)
    sandbox.post("settings", {"url_seconds": -1, "row_count_lie": 5})
    number = lights.create(data.GOOEE_EMPTY).json()["id"]
    done = lights.wait(number)
    assert done["number_of_rows"] == 5
    old = requests.get(done["url"], timeout=10)
    assert (old.status_code, "Request has expired" in old.text) == (403, True)
    sandbox.post("settings", {"url_seconds": 60})
    fresh = lights.wait(number)["url"]
    assert (
        requests.get(fresh, timeout=10).text
        == "timestamp,device_id,space_id,active_power,dim,occupancy_detected\n"
    )
    assert dict(parse_qsl(urlsplit(fresh).query)).keys() == {"AWSAccessKeyId", "Signature", "Expires"}


def test_gooee_spellings_of_create(sandbox):
    lights = Lights(sandbox)
    assert lights.create(path="/analytics/export").status_code == 404
    moved = lights.call("POST", "/analytics/exports", json={}, allow_redirects=False)
    assert (moved.status_code, moved.headers["Location"]) == (301, "/analytics/exports/")
    assert lights.create(query="nope").status_code == 400
    assert lights.create(name="").json() == {"name": ["This field is required."]}
    sandbox.post("settings", {"gooee_create_path": "/analytics/export"})
    assert lights.create().status_code == 405
    assert lights.create(path="/analytics/export").status_code == 201


def test_gooee_list_and_credentials(sandbox):
    lights = Lights(sandbox)
    made = [lights.create(data.GOOEE_EMPTY, name=f"n{number}").json()["id"] for number in range(5)]
    sandbox.post("settings", {"gooee_page_size": 2})
    seen, path = [], "/analytics/exports/?limit=100"
    while path:
        answer = lights.call("GET", path)
        seen += [one["id"] for one in answer.json()]
        following = answer.links.get("next", {}).get("url", "")
        path = following.removeprefix(lights.block["base_url"])
    assert seen == made[::-1]
    for headers in ({}, {"Authorization": f"Token {lights.block['api_token']}"}, {"Authorization": "JWT x"}):
        lights.headers = headers
        assert lights.call("GET", "/me").status_code == 401
    lights.headers = {"Authorization": f"Bearer {sandbox.config['gooee']['api_token']}"}
    assert lights.call("GET", "/me").status_code == 200
    form = {"username": "lights@example.com", "password": "gooee-pass"}
    token = lights.call("POST", "/auth/login", json=form).json()["token"]
    lights.headers = {"Authorization": f"JWT {token}"}
    assert lights.call("GET", "/me").status_code == 200


def test_gooee_failure(sandbox):
    lights = Lights(sandbox)
    rules = [{"service": "gooee", "times": 1}, {"service": "gooee", "times": 1, "outcome": "stuck"}]
    sandbox.post("settings", {"fail_jobs": rules, "gooee_words": ["queued", "rendering"]})
    failed = lights.wait(lights.create().json()["id"])
    assert failed["status"] == "failed"
    assert json.loads(failed["errors"])
    stuck = lights.create().json()["id"]
    time.sleep(2 * JOB_SECONDS)
    assert lights.call("GET", f"/analytics/exports/{stuck}/").json()["status"] == "rendering"
    assert [job["state"] for job in sandbox.get("jobs", service="gooee")] == ["failed", "running"]


# giosg


class Workflow:
    def __init__(self, sandbox):
        self.block = sandbox.config["giosg"]
        self.headers = {"Authorization": f"Token {self.block['api_token']}"}

    def download(self, step=1, workflow=data.GIOSG_CALLS, organization=data.GIOSG_ORGANIZATION, **changes):
        form = {
            "filters": [],
            "interval": {"start": "2026-03-04T00:00:00+00:00", "end": "2026-03-04T23:59:59.999+00:00"},
            **changes,
        }
        url = f"{self.block['base_url']}/api/reporting/workflow/v1/orgs/{organization}/workflows/{workflow}"
        return requests.post(f"{url}/step/{step}/download/", json=form, headers=self.headers, timeout=10)


def test_giosg_csv_and_xlsx(sandbox):
    workflow = Workflow(sandbox)
    wanted = data.expected(WORLD, "giosg", f"{data.GIOSG_CALLS}/1", DAY, NEXT)
    answer = workflow.download()
    assert answer.headers["Content-Type"] == "text/csv"
    assert answer.headers["Content-Disposition"].split("filename=")[1].endswith("_step_1.csv")
    assert rows(answer.content.decode()) == wanted
    book = workflow.download(format="xlsx")
    assert book.headers["Content-Type"].endswith("spreadsheetml.sheet")
    assert workflow.download(format="xlsx").content == book.content
    header, *lines = (
        CalamineWorkbook.from_filelike(io.BytesIO(book.content)).get_sheet_by_index(0).to_python()
    )
    assert len(lines) == len(wanted)
    first = dict(zip(header, lines[3], strict=True))
    assert isinstance(first["value"], float)
    assert first["timestamp"].replace(tzinfo=UTC) == datetime.fromisoformat(wanted[3]["timestamp"])


def test_giosg_event_on_the_edge_is_in_both_intervals(sandbox):
    workflow = Workflow(sandbox)
    edge = "2026-03-04T14:00:00+02:00"
    before = workflow.download(interval={"start": "2026-03-04T00:00:00Z", "end": edge})
    after = workflow.download(interval={"start": edge, "end": "2026-03-05T00:00:00Z"})
    assert rows(before.content.decode())[-1] == rows(after.content.decode())[0]
    sandbox.post("settings", {"giosg_end_inclusive": False})
    shorter = workflow.download(interval={"start": "2026-03-04T00:00:00Z", "end": edge})
    assert len(rows(shorter.content.decode())) == len(rows(before.content.decode())) - 1


def test_giosg_choices(sandbox):
    workflow = Workflow(sandbox)
    filters = [{"property": "action", "values": ["User dialed"]}]
    assert {row["action"] for row in rows(workflow.download(filters=filters).text)} == {"User dialed"}
    steps = [{}, {"actions": ["Call ended"]}]
    assert len(rows(workflow.download(step_data=steps).text)) == 60
    chosen = rows(workflow.download(workflow=data.GIOSG_POPUPS, step_data=steps).text)
    assert {row["action"] for row in chosen} == {"Call ended"}
    assert len(rows(workflow.download(limit=7).text)) == 7
    assert {row["category"] for row in rows(workflow.download(target="triggered_goal").text)} == {"goal"}


def test_giosg_refuses(sandbox):
    workflow = Workflow(sandbox)
    wrong = workflow.download(format="totally-not-valid-format")
    assert (wrong.status_code, wrong.json()) == (
        400,
        {"format": ["Format must be 'xlsx' or 'csv'. Change the value or omit the field from payload."]},
    )
    naive = {"start": "2026-03-04T00:00:00", "end": "2026-03-05T00:00:00"}
    for changes in (
        {"interval": naive},
        {"interval": None},
        {"filters": None},
        {"limit": 0},
        {"target": "x"},
    ):
        assert workflow.download(**changes).status_code == 400
    assert workflow.download(filters=[{"property": "label", "values": []}]).status_code == 406
    assert [workflow.download(step=step).status_code for step in (0, 2, 3, 4, 5)] == [200, 200, 404, 200, 404]
    future = {"start": "2999-01-01T00:00:00Z", "end": "2999-01-02T00:00:00Z"}
    assert workflow.download(interval=future).status_code == 404
    assert workflow.download(organization="another").status_code == 403
    sandbox.post("settings", {"fail_jobs": [{"service": "giosg", "times": 1}]})
    assert workflow.download().status_code == 500
    workflow.headers = {"Authorization": workflow.block["api_token"]}
    assert workflow.download().status_code == 401


# Faults


def test_faults_stand_before_a_vendor_or_behind(sandbox):
    lights = Lights(sandbox)
    answer = {"status": 503, "body": {"a": 1}, "headers": {"Retry-After": "1"}}
    rule = {"service": "gooee", "method": "POST", "path": "^/analytics", "times": 1}
    sandbox.post(
        "faults", [{**rule, "after": 1, "action": answer}, {**rule, "action": {**answer, "run": True}}]
    )
    seen = [lights.create() for _ in range(3)]
    assert [one.status_code for one in seen] == [503, 503, 201]
    assert (seen[0].json(), seen[0].headers["Retry-After"]) == ({"a": 1}, "1")
    # The rule that ran before it answered left a job; the other did not.
    assert len(sandbox.get("jobs")) == 2
    lost = {**rule, "action": {"close": "before_headers", "run": True}}
    sandbox.post("faults", [lost, {**rule, "action": {"close": "before_headers"}}])
    for _ in range(2):
        with pytest.raises(requests.ConnectionError):
            lights.create()
    assert len(sandbox.get("jobs")) == 3
    assert sandbox.get("faults")[0]["times"] == 0
    for mistake in ({"action": {"statsu": 1}}, {"service": "goee", "action": {}}):
        url = f"{sandbox.control['control']}/faults"
        assert requests.post(url, json=[{**rule, **mistake}], timeout=10).status_code == 400


def test_a_fault_may_put_any_bytes_in_place_of_the_body(sandbox):
    odd = "\ufeffé".encode("utf-16")
    action = {"replace_bytes": base64.b64encode(odd).decode()}
    sandbox.post("faults", [{"service": "giosg", "action": action}])
    headers = {"Authorization": f"Token {sandbox.config['giosg']['api_token']}"}
    url = f"{sandbox.config['giosg']['base_url']}/api/v5/users/me"
    answer = requests.get(url, headers=headers, timeout=10)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.content == odd


@pytest.mark.parametrize(
    ("action", "raises"),
    [
        ({"close": "mid_body"}, True),
        ({"truncate_after_bytes": 100}, True),
        ({"truncate_after_bytes": 100, "no_length": True}, False),
        ({"truncate_after_bytes": 100, "chunked_truncate": True}, False),
        ({"truncate_after_bytes": 100, "chunked_truncate": True, "gzip_encode": True}, False),
        ({"no_length": True}, False),
        ({"gzip_encode": True}, False),
        ({"delay": 0.1}, False),
        ({"drip": 0.01}, False),
    ],
)
def test_faults_of_transmission(sandbox, action, raises):
    workflow = Workflow(sandbox)
    whole = workflow.download().content
    sandbox.post("faults", [{"service": "giosg", "path": "/download/$", "action": action}])
    if raises:
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            workflow.download()
        return
    answer = workflow.download()
    assert answer.status_code == 200
    if action.get("gzip_encode") and "truncate_after_bytes" in action:
        # requests hands out what a cut stream gave, and says nothing.
        assert 0 < len(answer.content) < len(whole)
    elif "truncate_after_bytes" in action:
        assert answer.content == whole[:100]
    else:
        assert answer.content == whole
    assert ("Content-Length" in answer.headers) == (len(action) == 1 and "no_length" not in action)


def test_a_chunked_answer_can_end_without_its_end(sandbox):
    flex = Flex(sandbox).enter()
    uri = flex.trigger("643040", FLEX_DAY).json()["uri"]
    whole = flex.wait(uri).content
    sandbox.post(
        "faults", [{"service": "flex_insights", "path": "execute/raw", "action": {"close": "mid_body"}}]
    )
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        flex.call("GET", uri)
    substitute = {"substitute": ['"Conversation ID"', '"Id"']}
    sandbox.post("faults", [{"service": "flex_insights", "path": "execute/raw", "action": substitute}])
    assert flex.call("GET", uri).content == whole.replace(b'"Conversation ID"', b'"Id"')
    assert sandbox.get("requests")[-1]["fault"] == substitute
