"""The five services with canaries for secrets: each is recognised, in any form and in part, wherever it is.

Run as a program, it takes the sandbox's own arguments.
"""

import base64
import random
import string
from itertools import count

from tap_analytics_exports.sandbox import __main__ as sandbox
from tap_analytics_exports.sandbox import files, flex_insights, giosg, gooee, intelepeer, khoros_care, sftp

AWKWARD = "/+=&\"'<% "
NAMES = {
    # As JSON, Basic, a query and SSH have them.
    "flex password": AWKWARD + "é",
    "intelepeer password": AWKWARD + "é",
    "khoros password": AWKWARD + "é",
    "khoros company key": AWKWARD + "é",
    "gooee password": AWKWARD + "é",
    "sftp password": AWKWARD + "é",
    "khoros parameter": AWKWARD + "é",
    # As headers have them.
    "intelepeer API token": AWKWARD,
    "gooee API token": AWKWARD,
    "giosg API token": AWKWARD,
    # What the services give out: as cookies and URLs have it.
    "flex session": "/+=&'<%",
    "flex token": "/+=&'<%",
    "intelepeer token": "/+=&'<%",
    "gooee token": "/+=&'<%",
    "khoros signature": "/+=&\"'<%",
    "gooee signature": "/+=&\"'<%",
}


def canary(name: str) -> str:
    """A secret of 28 characters, half of them letters and digits, always the same."""
    chance = random.Random(name)
    plain = string.ascii_letters + string.digits
    return "".join(chance.choice(plain if i % 3 else NAMES[name]) for i in range(1, 29))


ACCESS = random.Random("khoros access token").randbytes(13)
CANARIES = {name: canary(name) for name in NAMES} | {"khoros access token": base64.b64encode(ACCESS).decode()}


class Secrets:
    """In place of the module `secrets`: what it gives begins with a canary, or is the usual."""

    def __init__(self, usual, *names: str) -> None:
        self._usual = usual
        self._tokens = [CANARIES[name] for name in names]
        self._count = count()

    def __getattr__(self, name: str):
        return getattr(self._usual, name)

    def token_urlsafe(self, size: int) -> str:
        """A canary, and a number that makes it one of its own."""
        if size < 24:
            return self._usual.token_urlsafe(size)
        number = next(self._count)
        return self._tokens[number % len(self._tokens)] + f"{number:04}"

    def token_bytes(self, size: int) -> bytes:
        """Khoros' access token, or what it usually is."""
        return ACCESS if size == len(ACCESS) else self._usual.token_bytes(size)


def put_in() -> None:
    """Put the canaries into the services."""
    flex_insights.PASSWORD = CANARIES["flex password"]
    intelepeer.PASSWORD = CANARIES["intelepeer password"]
    intelepeer.API_TOKEN = CANARIES["intelepeer API token"]
    khoros_care.PASSWORD = CANARIES["khoros password"]
    khoros_care.COMPANY_KEY = CANARIES["khoros company key"]
    gooee.PASSWORD = CANARIES["gooee password"]
    gooee.API_TOKEN = CANARIES["gooee API token"]
    giosg.API_TOKEN = sandbox.GIOSG_TOKEN = CANARIES["giosg API token"]
    sftp.PASSWORD = CANARIES["sftp password"]
    flex_insights.secrets = Secrets(flex_insights.secrets, "flex session", "flex token")
    intelepeer.secrets = Secrets(intelepeer.secrets, "intelepeer token")
    khoros_care.secrets = Secrets(khoros_care.secrets)
    gooee.secrets = Secrets(gooee.secrets, "gooee token")
    files.KhorosFiles._signature = lambda *_: CANARIES["khoros signature"]
    files.GooeeFiles._signature = lambda *_: CANARIES["gooee signature"]


if __name__ == "__main__":
    put_in()
    sandbox.main()
