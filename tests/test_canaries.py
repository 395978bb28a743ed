"""Whatever goes wrong, no secret is anywhere in what the tap writes, in any form, not even in part."""

import base64
import html
import json
import math
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from canary_sandbox import CANARIES
from conftest import Sandbox, run_tap

from tap_analytics_exports.sandbox.echo import FORMS

LOGGING = """
version: 1
disable_existing_loggers: false
formatters:
  structured:
    (): singer_sdk.logging.StructuredFormatter
  parts:
    format: "%(message)s | %(msg)s | %(args)s"
handlers:
  console:
    class: logging.StreamHandler
    stream: ext://sys.stderr
    formatter: parts
  structured:
    class: logging.FileHandler
    filename: {folder}/structured.log
    formatter: structured
  parts:
    class: logging.FileHandler
    filename: {folder}/parts.log
    formatter: parts
loggers:
  urllib3:
    level: DEBUG
    handlers: [parts]
  paramiko:
    level: DEBUG
    handlers: [parts]
root:
  level: DEBUG
  handlers: [console, structured, parts]
"""

AWS = {
    "AWS_SECRET_ACCESS_KEY": "wJ4rX/UtnF9EMI+K7MD=EN8bPx",
    "AWS_SESSION_TOKEN": "FwoG3XIv/YXdz+EBY0aD=Hq2Vd7",
}
SERVICES = ("flex_insights", "intelepeer", "khoros_care", "gooee", "giosg")
STATUSES = (400, 401, 403, 404, 409, 410, 422)
OTHERS: tuple[dict[str, Any], ...] = (
    {"close": "before_headers"},
    {"truncate_after_bytes": 3},
    {"chunked_truncate": True},
    {"replace_body": "<html>Sign in</html>"},
    {"status": 302, "headers": {"Location": "http://127.0.0.1:1/f?Signature=kQ7/w+Zt0=Xb2"}},
    {"gzip_encode": True, "truncate_after_bytes": 12},
)


@pytest.fixture(scope="module")
def canaries(tmp_path_factory):
    """The services, whose secrets are canaries."""
    program = [sys.executable, Path(__file__).with_name("canary_sandbox.py")]
    services = Sandbox(tmp_path_factory.mktemp("canaries"), "--rows", "3", program=program)
    yield services
    services.stop()


def configuration(sandbox: Sandbox, folder: Path, *, logins: bool) -> dict[str, Any]:
    """All providers, with each of the two ways in which some of them know us."""
    config = sandbox.config(
        ledger=str(folder / "ledger"), spool_dir=str(folder / "spool"), export_timeout="PT4S"
    )
    config["khoros_care"]["exports"][0]["parameters"]["accessToken"] = CANARIES["khoros parameter"]
    if logins:
        del config["gooee"]["api_token"]
        config["gooee"] |= {"username": "lights@example.com", "password": CANARIES["gooee password"]}
    else:
        block = config["intelepeer"]
        del block["username"], block["password"], block["sftp_password"]
        block["api_token"] = CANARIES["intelepeer API token"]
        about = json.loads((sandbox.folder / "control.json").read_text())
        block["sftp_private_key"] = Path(about["sftp_private_key_file"]).read_text()
    return config


def said(config: dict[str, Any], folder: Path, *args: str, exit_code: int | None = None) -> str:
    """Run the tap, and give all that is left of it: what it wrote, logged and kept."""
    folder.mkdir(exist_ok=True)
    logs = folder / "logging.yaml"
    logs.write_text(LOGGING.format(folder=folder))
    env = {
        "SINGER_SDK_LOG_CONFIG": str(logs),
        "TAP_ANALYTICS_EXPORTS_LOGLEVEL": "DEBUG",
        "LANG": "C.UTF-8",
        **AWS,
    }
    result = run_tap(config, *args, env=env, timeout=110)
    assert exit_code in (None, result.exit_code), result.stderr[-3000:]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert (folder / "structured.log").stat().st_size
    kept = [path.read_bytes().decode(errors="replace") for path in files]
    return "\n".join([result.stdout, result.stderr, *map(str, files), *kept])


def traces(secret: str) -> dict[str, str]:
    """Every part of eight characters, in every form."""
    found: dict[str, str] = {}
    for part in (secret[i : i + 8] for i in range(len(secret) - 7)):
        forms = {
            "as it is": part,
            "URL": quote(part, safe=""),
            "URL, lower case": quote(part, safe="").replace("%2F", "%2f").replace("%3D", "%3d"),
            "URL twice": quote(quote(part, safe=""), safe=""),
            "form": quote_plus(part),
            "JSON": json.dumps(part)[1:-1],
            "JSON of PHP": json.dumps(part, ensure_ascii=False)[1:-1].replace("/", "\\/"),
            "HTML": html.escape(part),
            "HTML numbers": "".join(f"&#{ord(character)};" for character in part),
        }
        data = part.encode()
        for skipped in range(3):
            letters = base64.b64encode(bytes(skipped) + data).decode()
            whole = letters[math.ceil(8 * skipped / 6) : 8 * (skipped + len(data)) // 6]
            forms[f"Base64 {skipped}"] = whole
            forms[f"Base64 {skipped} for URLs"] = whole.replace("+", "-").replace("/", "_")
        found |= {text: form for form, text in forms.items()}
    return found


def check(text: str, secrets: dict[str, str]) -> None:
    """See that no secret is in a text."""
    leaks = {
        (name, form): (part, text[text.index(part) - 200 :][:400])
        for name, secret in secrets.items()
        for part, form in traces(secret).items()
        if part in text
    }
    assert not leaks


def faults(run: int) -> list[dict[str, Any]]:
    """For each service another status and form, after another number of requests that go well."""
    forms = sorted(FORMS)
    rules = []
    for i, service in enumerate(SERVICES):
        number = run * len(SERVICES) + i
        action = {"status": STATUSES[number % len(STATUSES)], "echo": forms[number % len(forms)]}
        after = (0, 1, 3, 5)[(run + i) % 4]
        rules.append({"service": service, "times": None, "after": after, "action": action})
        passing = {"status": 503, "echo": forms[(number + 1) % len(forms)]}
        rules.append({"service": service, "method": "GET", "after": 1, "action": passing})
        rules.append({"service": service, "method": "GET", "action": OTHERS[number % len(OTHERS)]})
    host = {"times": 1, "action": {"status": 403, "echo": forms[run % len(forms)]}}
    rules += [{"service": service, **host} for service in ("khoros_files", "gooee_files")]
    password = {
        "status": 4,
        "body": f"refused {CANARIES['sftp password']} {quote(CANARIES['sftp password'])}",
    }
    return [*rules, {"service": "intelepeer_sftp", "times": 1, "action": password}]


@pytest.mark.parametrize("run", range(4))
def test_a_vendor_that_echoes_requests_makes_the_tap_say_no_secret(canaries, tmp_path, run):
    canaries.post("reset")
    canaries.post("faults", faults(run))
    config = configuration(canaries, tmp_path / "all", logins=run % 2 == 0)
    text = said(config, tmp_path / "all")
    hit = {each["service"] for each in canaries.get("requests") if (each.get("fault") or {}).get("echo")}
    assert set(SERVICES) <= hit
    key = config["intelepeer"].get("sftp_private_key", "")
    check(text, CANARIES | AWS | ({"private key": "".join(key.splitlines()[2:-1])} if key else {}))
    assert "***" in text


def test_nor_does_a_test_of_the_credentials(canaries, tmp_path):
    canaries.post("reset")
    rules = [
        {"service": service, "times": None, "action": {"status": status, "echo": form}}
        for service, status, form in zip(
            (*SERVICES, "intelepeer_auth"), (401, 403, 400, 400, 401, 400), sorted(FORMS), strict=False
        )
    ]
    canaries.post("faults", rules)
    text = said(configuration(canaries, tmp_path / "all", logins=True), tmp_path / "all", "--test")
    check(text, CANARIES | AWS)
    assert "***" in text


def test_nor_a_run_in_which_all_goes_well(canaries, tmp_path):
    canaries.post("reset")
    config = configuration(canaries, tmp_path / "all", logins=True)
    text = said(config, tmp_path / "all", exit_code=0)
    assert '"status":"failed"' not in text
    check(text, CANARIES | AWS)


def test_nor_settings_that_are_wrong(canaries, tmp_path):
    config = configuration(canaries, tmp_path / "all", logins=True)
    config["giosg"] |= {
        "auth_scheme": config["giosg"]["api_token"],
        "organization_id": [CANARIES["gooee token"]],
    }
    config["gooee"]["password"] = {CANARIES["gooee password"]: 1}
    config["khoros_care"]["exports"][0]["format"] = config["khoros_care"]["password"]
    text = said(config, tmp_path / "all")
    assert "giosg.auth_scheme" in text
    check(text, CANARIES | AWS)
