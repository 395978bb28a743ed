"""Secrets are found in whatever form a vendor shows them, and nothing else is touched."""

import base64
import html
import io
import json
import logging
import random
import re
import string
import subprocess
import sys
import threading
import time
from urllib.parse import quote, quote_plus

import pytest
from conftest import run_tap
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from singer_sdk.logging import StructuredFormatter

from tap_analytics_exports import redaction
from tap_analytics_exports.redaction import clean, clean_data, clean_logger, hide, safe_url, shown
from tap_analytics_exports.settings import secrets

SECRET = "Kx/9+=&\"'<% é7aQz\\pW2;m"


def lower(text: str) -> str:
    """Percent-encoding in lower case."""
    return re.sub("%..", lambda escape: escape[0].lower(), text)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


FORMS = {
    "as it is": str,
    "URL": lambda s: quote(s, safe=""),
    "URL, lower case": lambda s: lower(quote(s, safe="")),
    "URL in Latin-1": lambda s: quote(s, safe="", encoding="latin-1", errors="replace"),
    "URL, every character": lambda s: "".join(f"%{byte:02x}" for byte in s.encode()),
    "form": quote_plus,
    "URL twice": lambda s: quote(quote(s, safe=""), safe=""),
    "JSON": lambda s: json.dumps(s)[1:-1],
    "JSON, upper case": lambda s: "".join(f"\\u{ord(c):04X}" if ord(c) < 0x10000 else c for c in s),
    "JSON of PHP": lambda s: json.dumps(s)[1:-1].replace("/", "\\/"),
    "JSON in JSON": lambda s: json.dumps(json.dumps(s)[1:-1])[1:-1],
    "HTML": html.escape,
    "HTML, numbers": lambda s: "".join(f"&#{ord(c)};" for c in s),
    "HTML, hexadecimal": lambda s: "".join(f"&#x{ord(c):X};" for c in s),
    "slashes": lambda s: "".join(f"\\{c}" if c in "\\'\"" else c for c in s),
    "Python": lambda s: ascii(s)[1:-1],
    "Python, bytes": lambda s: repr(s.encode())[2:-1],
    "one encoding for the other": lambda s: s.encode().decode("latin-1"),
    "white space folded": lambda s: "\n  ".join([s[:5], s[5:9], s[9:]]),
    "white space removed": lambda s: "".join(s.split()),
    "Base64": lambda s: b64(s.encode()),
    "Base64, one later": lambda s: b64(b"." + s.encode()),
    "Base64, two later": lambda s: b64(b"me" + s.encode() + b"!"),
    "Base64 of Basic": lambda s: b64(f"somebody:{s}".encode()),
    "Base64 for URLs": lambda s: base64.urlsafe_b64encode(s.encode()).decode().rstrip("="),
    "Base64 in a URL": lambda s: quote(b64(s.encode()), safe=""),
    "Base64 of JSON": lambda s: b64(json.dumps({"password": s}).encode()),
    "Base64 of Base64": lambda s: b64(b64(s.encode()).encode()),
    "Base64 in lines": lambda s: base64.encodebytes(b"x" * 50 + s.encode()).decode(),
}


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch):
    """No secret is known from another test."""
    monkeypatch.setattr(redaction, "_known", redaction._Known())


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_found_in_every_form(form):
    hide(SECRET)
    cleaned = clean(f"the vendor said: {FORMS[form](SECRET)} (400)")
    assert cleaned.startswith("the vendor said: ")
    assert cleaned.endswith(" (400)")
    left = cleaned.removeprefix("the vendor said: ").removesuffix(" (400)")
    assert "***" in left
    if "Base64" not in form:
        assert left == "***"
    else:  # what stands beside the secret is no secret
        assert len(left) < len(FORMS[form](SECRET)) - 20


@pytest.mark.parametrize(
    ("before", "after", "first", "last"), [("abc", "def", 4, 24), (".", "!", 1, 22), ("me", "?", 2, 23)]
)
def test_of_base64_the_letters_that_hold_the_secret_are_masked_and_no_others(before, after, first, last):
    secret = "Tr0ub4dor&3-xyz"
    hide(secret)
    text = b64(f"{before}{secret}{after}".encode())
    assert clean(text) == f"{text[:first]}***{text[last:]}"


def telling(secret: str) -> bool:
    """Whether no part of a secret may be a word, or a line of the same character."""
    parts = [secret[i : i + 8] for i in range(len(secret) - 7)]
    return all(len(set(part)) >= 4 and any(c.isdigit() or c in "/+=&%<" for c in part) for part in parts)


CHARACTERS = string.ascii_letters + string.digits + "/+=&\"'<>% \\;.,:?#@!*{}[]-_éß€😀"
SECRETS = st.text(st.sampled_from(CHARACTERS), min_size=12, max_size=40).map(str.strip)
TEXTS = st.text(st.sampled_from("abc XYZ.,:;/%\\&\"'=+-012\n"), max_size=40)


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.filter_too_much])
@given(secret=SECRETS, form=st.sampled_from(sorted(FORMS)), before=TEXTS, after=TEXTS, data=st.data())
def test_no_part_of_any_secret_is_left(secret, form, before, after, data):
    assume(len(secret) >= 12 and telling(secret))
    redaction._known = redaction._Known()
    hide(secret)
    part = secret
    if data.draw(st.booleans()):
        start = data.draw(st.integers(0, len(secret) - 12))
        part = secret[start : start + data.draw(st.integers(12, len(secret)))]
    text = f"{before} {FORMS[form](part)} {after}"
    cleaned = clean(text)
    assert "***" in cleaned
    assert clean(cleaned) == cleaned
    for i in range(len(secret) - 7):
        assert secret[i : i + 8] not in cleaned
        if "Base64" not in form and "white" not in form:
            assert FORMS[form](secret[i : i + 8]) not in cleaned


@settings(deadline=None)
@given(st.text(st.sampled_from(CHARACTERS + "\n")))
def test_a_text_without_secrets_stays_as_it_is(text):
    redaction._known = redaction._Known()
    hide("q7-Zt0/wUvN2kRg8Hs", "p4", "")
    assert clean_data(text) == text
    if "://" not in text and not set("%\\&") & set(text):
        assert clean(text) == text


def test_parts_that_are_words_stay_in_messages():
    hide("insights-pass", "my password 7", "kJ8s0dkA9fQ2")
    said = "flex_insights, stream calls: check the password of IntelePeer Insights, insights-based"
    assert clean(said) == said
    assert clean("token kJ8s0dkA… refused") == "token ***… refused"
    assert clean("insights-pass") == "***"
    assert clean("what an xinsights is, or insightsx") == "what an x*** is, or ***x"


@pytest.mark.parametrize("secret", ["a", "42", "key", "a/b="])
def test_a_short_secret_is_replaced_only_where_it_stands_alone(secret):
    hide(secret)
    around = f"monkey{secret}board 1{secret}2 {secret}"
    assert clean(around) == f"monkey{secret}board 1{secret}2 ***"
    assert clean(f"key={secret}&x" if secret != "key" else f"k={secret}&x").count("***") == 1
    assert clean(f"({quote(secret, safe='')})") == "(***)"


def test_no_secret_is_no_secret():
    hide("", None)
    assert clean("a text") == "a text"


KEY = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF
8Uw3Zb1rTq9sXkPl0aJmN5vYcE2hGdOi7tRwQyLzKjHfBnVxSuIpCe4MgA6DWo=
-----END PRIVATE KEY-----
"""


@pytest.mark.parametrize("fold", [" ", "", "\\n", "\\\\n", "\r\n", "%0A", "<br>", "&#10;"])
def test_a_private_key_is_found_however_its_lines_are_folded(fold):
    hide(KEY)
    cleaned = clean(f"invalid key: {KEY.replace(chr(10), fold)} sent")
    for line in KEY.splitlines()[1:3]:
        assert not any(line[i : i + 8] in cleaned for i in range(len(line) - 7))
    assert clean("it is no PRIVATE KEY: -----BEGIN PRIVATE KEY-----") == (
        "it is no PRIVATE KEY: -----BEGIN PRIVATE KEY-----"
    )


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("see https://h.example/p?sig=1#x now", "see https://h.example/p now"),
        ("https://me:pw@h.example:1/p/", "https://h.example:1/p/"),
        ("s3+x://u@b/k?x and sftp://u:a%2Fb@h/p", "s3+x://b/k and sftp://h/p"),
        (r'{"url":"https:\/\/u:p\u0040h\/p?sig=1"}', r'{"url":"https:\/\/h\/p"}'),
        (r"https:\\/\\/h\\/p?sig=1 x", r"https:\\/\\/h\\/p x"),
        ("to=https%3A%2F%2Fh%2Fp%3Fsig%3D12 x", "to=https%3A%2F%2Fh%2Fp x"),
        ("to=https%253a%252f%252fh%252fp%253fsig%253d12 x", "to=https%253a%252f%252fh%252fp x"),
        ("https://a/https%3A%2F%2Fb%2Ff%3FSignature%3Dabc", "https://a/https%3A%2F%2Fb%2Ff"),
        ("https&#58;&#x2f;&#x2f;h&#x2f;p?sig=1", "https&#58;&#x2f;&#x2f;h&#x2f;p"),
        ("a question? no: HTTPS://Host/path", "a question? no: HTTPS://Host/path"),
    ],
)
def test_urls_lose_their_queries_and_users(text, cleaned):
    assert clean(text) == cleaned
    assert clean_data(text) == text


def test_a_safe_url_says_where_and_no_more():
    assert safe_url("https://u:p@h.example:1/p/q?sig=1#x") == "https://h.example:1/p/q"
    assert safe_url("https://[u:p@h/p") == "***"


def test_what_is_shown_was_cleaned_before_it_was_cut():
    hide(SECRET)
    text = f"{'x' * 290}{SECRET}"
    assert shown(text, 300) == "x" * 290 + "***"
    assert len(shown("y z" * 200, 300)) == 300


def test_a_megabyte_is_cleaned_in_seconds():
    chance = random.Random(1)
    for _ in range(25):
        hide("".join(chance.choices(string.ascii_letters + string.digits + "+/=", k=40)))
    texts = ["\\" * 10**6, "%25" * 330_000, "a://@" * 200_000, "&a" * 500_000, " " * 10**6, "ab" * 500_000]
    for text in [*texts, b64(chance.randbytes(700_000)), "a word " * 150_000]:
        started = time.process_time()
        clean(text)
        assert time.process_time() - started < 20, text[:20]


def test_secrets_may_be_hidden_from_many_threads_while_others_clean():
    tokens = [f"{i:02}-Tk/{i * 7919:08}+q" for i in range(80)]
    leaks: list[str] = []

    def learn(mine: list[str]) -> None:
        for token in mine:
            hide(token)
            if token in (said := clean(f"refused: {token}")):
                leaks.append(said)

    threads = [threading.Thread(target=learn, args=[tokens[i::4]]) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert leaks == []
    assert all(token not in clean(" ".join(tokens)) for token in tokens)


# Logging


@pytest.fixture
def written():
    """A logger of ours, and what handlers of several kinds made of its records."""
    texts = [io.StringIO() for _ in range(3)]
    formats = [
        logging.Formatter("%(message)s | %(msg)s | %(args)s"),
        StructuredFormatter(),
        logging.Formatter("%(message)s %(extra)s", defaults={"extra": ""}),
    ]
    logger = clean_logger("tap-analytics-exports.test")
    logger.setLevel(logging.DEBUG)
    for text, made in zip(texts, formats, strict=True):
        handler = logging.StreamHandler(text)
        handler.setFormatter(made)
        logger.addHandler(handler)
    yield logger, lambda: "\n".join(text.getvalue() for text in texts)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)


def fail() -> None:
    first = KeyError(SECRET)
    first.add_note(f"with {SECRET}")
    second = ValueError(f"bad {SECRET}")
    second.__cause__ = first
    second.__context__ = first
    third = ExceptionGroup(SECRET, [RuntimeError(f"the inner one {SECRET}"), second])
    third.__context__ = second
    raise third from None


def leaks(text: str) -> bool:
    """Whether a part of the secret is in a text, or in a JSON text."""
    parts = [SECRET[i : i + 8] for i in range(len(SECRET) - 7)]
    return any(part in text or json.dumps(part)[1:-1] in text for part in parts)


def test_every_handler_gets_clean_records(written):
    logger, text = written
    hide(SECRET)
    logger.info("as argument %s", SECRET)
    logger.info("as object %s", {"token": [SECRET]})
    formatted = f"in the message {SECRET}"
    logger.info(formatted)
    logger.info("extra", extra={"extra": SECRET, "more": {"token": SECRET}})
    logger.info("stack", stack_info=True)
    logger.info("%d is no number", SECRET)
    try:
        fail()
    except ExceptionGroup:
        logger.exception("failed")
    assert not leaks(text())
    assert "the inner one ***" in text()
    assert text().count("***") > 10


def test_a_secret_that_is_a_number_leaves_the_level_of_a_record():
    hide(str(logging.WARNING))
    record = logging.makeLogRecord({"levelno": logging.WARNING, "msg": "30 of 40", "count": 30})
    redaction.CleanFilter().filter(record)
    assert (record.levelno, record.getMessage()) == (logging.WARNING, "*** of 40")
    assert record.count == "***"


def test_a_record_without_secrets_keeps_its_parts(written):
    logger, text = written
    hide(SECRET)
    logger.info("%s of %d", "rows", 5)
    assert "rows of 5 | %s of %d | ('rows', 5)" in text()


PROCESS = """
import logging, sys, threading, warnings
from tap_analytics_exports import redaction
secret = sys.argv[1]
logging.basicConfig(level=logging.DEBUG)
logging.captureWarnings(True)
own = logging.getLogger("somebody.else")
own.addHandler(logging.FileHandler(sys.argv[2]))
redaction.install()
redaction.hide(secret)
own.info("token %s", secret)
logging.getLogger("urllib3").debug("signed")
warnings.warn(f"deprecated {secret}")
def fail():
    raise ValueError(secret) from KeyError(secret)
thread = threading.Thread(target=fail)
thread.start()
thread.join()
class Dies:
    def __del__(self):
        fail()
Dies()
fail()
"""


def test_a_process_of_the_tap_says_nothing_unclean(tmp_path):
    command = [sys.executable, "-c", PROCESS, SECRET, tmp_path / "log"]
    run = subprocess.run(command, capture_output=True, check=False, encoding="utf-8", timeout=60)
    said = run.stderr + (tmp_path / "log").read_text()
    assert not leaks(said)
    assert run.stderr.count("ValueError: ***") == 3
    assert said.count("token ***") == 2
    assert "deprecated ***" in said
    assert "signed" not in said


def test_what_is_imported_changes_no_logging():
    program = (
        "import logging, sys, threading\n"
        "before = (sys.excepthook, threading.excepthook, logging.root.handlers[:])\n"
        "import tap_analytics_exports.jobs.runner, tap_analytics_exports.transport.http\n"
        "assert before == (sys.excepthook, threading.excepthook, logging.root.handlers[:])"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# Settings


def test_secrets_are_found_anywhere_in_the_settings():
    config = {
        "khoros_care": {
            "password": "one",
            "exports": [
                {
                    "name": "x",
                    "parameters": {"accessToken": ["two", "three"], "teamIds": "none"},
                    "columns": {"token": "string"},
                    "primary_keys": ["token"],
                }
            ],
        },
        "intelepeer": {"sftp_private_key": "four", "sftp_private_key_file": "none", "api_token": None},
    }
    assert list(secrets(config)) == ["one", "two", "three", "four"]


def test_a_rejected_row_has_no_secret_and_is_else_as_it_was(sandbox):
    config = sandbox.config("giosg", ledger="")
    token = config["giosg"]["api_token"]
    config["giosg"]["exports"] = config["giosg"]["exports"][:1]
    by = f"https://h.example/p?x=y {token[4:]} and,one,too,many"
    sandbox.post(
        "faults", [{"service": "giosg", "times": None, "action": {"substitute": ["User dialed", by]}}]
    )
    result = run_tap(config)
    assert result.rejected
    assert token[4:] not in result.stdout
    assert any("https://h.example/p?x=y *** and,one,too,many" in row["raw"] for row in result.rejected)
