"""A bucket, which moto's server stands in for: IntelePeer's results in it, and batch files."""

import gzip
import importlib.util
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import boto3
import pytest
import requests
from conftest import Sandbox, run_tap
from test_batch import batch, calls, plain, rows_of

from tap_analytics_exports.errors import SettingsError
from tap_analytics_exports.providers.intelepeer import IntelePeerSettings
from tap_analytics_exports.settings import decode

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
START = TODAY - timedelta(days=1)
LOCATION = r"/Q/[0-9a-f]+$"
FILES = [f"reports/guid1/guid2_QueryExport_1579194142011__{n:012d}.csv.gz" for n in range(2)]


class Bucket:
    """The bucket, and the environment by which it is reached."""

    def __init__(self, endpoint: str) -> None:
        self.environment = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "AKIAINVENTED",
            "AWS_SECRET_ACCESS_KEY": "invented-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self.client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="AKIAINVENTED",
            aws_secret_access_key="invented-secret",
            region_name="us-east-1",
        )

    def put(self, key: str, text: str) -> bytes:
        body = gzip.compress(text.encode())
        self.client.put_object(Bucket="acme", Key=key, Body=body)
        return body

    def keys(self, prefix: str) -> list[str]:
        found = self.client.list_objects_v2(Bucket="acme", Prefix=prefix)
        return [each["Key"] for each in found.get("Contents", [])]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("moto") / "log"
    command = [sys.executable, "-c", "from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    while not (found := re.search(r"Running on (\S+)", log.read_text())):
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    yield found[1]
    process.kill()
    process.wait()


@pytest.fixture
def bucket(endpoint: str) -> Bucket:
    requests.post(f"{endpoint}/moto-api/reset", timeout=10).raise_for_status()
    bucket = Bucket(endpoint)
    bucket.client.create_bucket(Bucket="acme")
    return bucket


@pytest.fixture
def config(sandbox: Sandbox) -> dict:
    """One day's messages, whose results are in the bucket."""
    listed = ", ".join(f"u'{path}'" for path in FILES)
    body = {"status": f"Process finished. Download: [{listed}]", "guid": "x"}
    action = {"status": 200, "body": body}
    sandbox.post("faults", [{"service": "intelepeer", "path": LOCATION, "times": None, "action": action}])
    settings = sandbox.config("intelepeer", start_date=START.isoformat(), end_date=TODAY.isoformat())
    block = {
        name: value
        for name, value in settings["intelepeer"].items()
        if not name.startswith(("sftp", "files"))
    }
    fields = ["TransactionId", "EventVersion"]
    export = {"name": "messages", "event": "MsgEvent", "fields": fields}
    settings["intelepeer"] = {**block, "files_url": "s3://acme/base", "exports": [export]}
    return settings


def rows(result) -> list[tuple]:
    return [(row["transaction_id"], row["event_version"]) for row in result.records("messages")]


def test_results_come_from_the_bucket(config, bucket):
    first = bucket.put(f"base/{FILES[0]}", "TransactionId,EventVersion\nCP1-a,1\nCP1-b,2\n")
    second = bucket.put(f"base/{FILES[1]}", "TransactionId,EventVersion\n")
    result = run_tap(config, env=bucket.environment)
    assert result.exit_code == 0, result.stderr
    assert rows(result) == [("CP1-a", 1), ("CP1-b", 2)]
    (run,) = result.runs
    assert (run["status"], run["files"], run["bytes"]) == ("loaded", 2, len(first) + len(second))
    assert "invented-secret" not in result.stdout + result.stderr


def test_a_large_object_arrives_whole(config, bucket):
    lines = "".join(f"CP1-{n:040d},{n % 9}\n" for n in range(60_000))
    bucket.put(f"base/{FILES[0]}", "TransactionId,EventVersion\n" + lines)
    bucket.put(f"base/{FILES[1]}", "TransactionId,EventVersion\n")
    result = run_tap(config, env=bucket.environment)
    assert (result.exit_code, len(rows(result))) == (0, 60_000), result.stderr


def test_an_object_that_is_not_there_means_a_new_job(config, bucket):
    bucket.put(f"base/{FILES[0]}", "TransactionId,EventVersion\n")
    result = run_tap(config, env=bucket.environment)
    assert (result.exit_code, [run["status"] for run in result.runs]) == (3, ["failed"] * 3)
    assert "is not there any more" in result.runs[0]["error"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://acme/elsewhere", "there is nothing below elsewhere/; check files_url"),
        ("s3://nowhere/base", "NoSuchBucket"),
    ],
)
def test_a_wrong_address_fails_the_export_at_once(config, bucket, url, words):
    config["intelepeer"]["files_url"] = url
    result = run_tap(config, env=bucket.environment)
    assert (result.exit_code, result.runs) == (3, []), result.stderr
    assert words in result.stderr


def test_without_credentials_the_exports_fail_with_a_hint(config, bucket, tmp_path):
    without = {
        **bucket.environment,
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
        "HOME": str(tmp_path),
    }
    result = run_tap(config, env=without)
    assert (result.exit_code, result.runs) == (3, []), result.stderr
    assert "Unable to locate credentials; set the usual AWS environment variables" in result.stderr
    assert result.bookmark("messages")["jobs"] == []
    assert "credentials" in run_tap(config, "--test", env=without).stdout


def test_check_looks_at_the_bucket(config, bucket):
    result = run_tap(config, "--test", env=bucket.environment)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "intelepeer: ok\nintelepeer.messages: ok\n"
    config["intelepeer"]["files_url"] = "s3://nowhere/base"
    result = run_tap(config, "--test", env=bucket.environment)
    assert result.exit_code == 1
    assert "NoSuchBucket" in result.stdout


def test_without_the_extra_the_settings_say_what_to_install(config, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "boto3" else found(name))
    with pytest.raises(SettingsError, match=r"files_url: .*pip install 'tap-analytics-exports\[s3\]'"):
        decode(config, {"intelepeer": IntelePeerSettings})


# Batch files


@pytest.mark.parametrize(
    "encoding", [{"format": "jsonl", "compression": "gzip"}, {"format": "parquet"}], ids=lambda e: e["format"]
)
def test_batch_files_in_a_bucket_hold_what_records_would_say(sandbox, bucket, tmp_path, encoding):
    records = run_tap(calls(sandbox)).records("calls")
    settings = batch("s3://acme/out", 30, **encoding)
    result = run_tap(calls(sandbox, batch_config=settings), env=bucket.environment)
    assert result.exit_code == 0, result.stderr
    assert result.records("calls") == []
    found = []
    for message in result.of("BATCH", "calls"):
        assert message["encoding"] == encoding
        (url,) = message["manifest"]
        assert url.startswith("s3://acme/out/night-calls-")
        bucket.client.download_file("acme", url.removeprefix("s3://acme/"), tmp_path / "file")
        found += rows_of(tmp_path / "file", encoding)
    assert list(map(plain, found)) == list(map(plain, records))
    assert len(bucket.keys("out/")) == len(result.of("BATCH", "calls"))


@pytest.mark.parametrize("encoding", ["jsonl", "parquet"])
@pytest.mark.parametrize("remote", [True, False])
def test_a_window_that_fails_late_leaves_no_part_of_a_file(config, bucket, tmp_path, encoding, remote):
    lines = "".join(f"CP1-{n:040d},{n}\n" for n in range(100_000))
    bucket.put(f"base/{FILES[0]}", f"TransactionId,EventVersion\n{lines}CP1-last,none\n")
    bucket.put(f"base/{FILES[1]}", "TransactionId,EventVersion\n")
    root = "s3://acme/out" if remote else tmp_path.as_uri()
    config |= {"batch_config": batch(root, 50_000, format=encoding), "on_bad_row": "fail"}
    result = run_tap(config, env=bucket.environment)
    assert (result.exit_code, [run["status"] for run in result.runs]) == (3, ["failed"]), result.stderr
    written = bucket.keys("out/") if remote else [path.name for path in tmp_path.iterdir()]
    told = [url for message in result.of("BATCH", "messages") for url in message["manifest"]]
    assert sorted(url.rpartition("/")[2] for url in told) == sorted(key.rpartition("/")[2] for key in written)
    assert len(told) == 1  # the second was begun, for 100,000 rows are several frames
    assert "Uploads" not in bucket.client.list_multipart_uploads(Bucket="acme")


# The archive


def test_an_archive_in_a_bucket_is_written_and_replayed(sandbox, bucket):
    config = calls(sandbox, archive_url="s3://acme/kept")
    first = run_tap(config, env=bucket.environment)
    assert first.exit_code == 0, first.stderr
    kept = bucket.keys("kept/calls/")
    assert len([key for key in kept if key.endswith("/manifest.json")]) == len(first.runs)
    which = f"{config['start_date']}/{datetime.now(UTC).isoformat()}"
    config["giosg"]["base_url"] = "http://127.0.0.1:9"
    result = run_tap(config, "--replay", which, env=bucket.environment)
    assert result.exit_code == 0, result.stderr
    ours = {"_sdc_export_id": None}
    assert [row | ours for row in result.records("calls")] == [row | ours for row in first.records("calls")]
    assert bucket.keys("kept/calls/") == kept
    config["archive_url"] = "s3://nowhere/kept"
    result = run_tap(config, env=bucket.environment)
    assert (result.exit_code, result.runs) == (1, [])
    assert "archive_url: can't be written" in result.stderr
