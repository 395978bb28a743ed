"""The keys by which an SSH server is known, and by which it knows us."""

from __future__ import annotations

import base64
import hashlib
import io
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import paramiko


@dataclass(frozen=True)
class HostKey:
    """The public key of an SSH server."""

    kind: str
    blob: bytes

    def __str__(self) -> str:
        """As in a line of known_hosts."""
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"

    @classmethod
    def parse(cls, text: str) -> HostKey | None:
        """The key in a line of known_hosts, with or without names before and words after it."""
        for kind, key in pairwise(text.split()):
            with suppress(ValueError):  # no base64, or no ASCII
                blob = base64.b64decode(key)
                if blob[4:].startswith(kind.encode()):  # it begins with its type, after the length of that
                    return cls(kind, blob)
        return None

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen shows it."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")
        return f"{self.kind} SHA256:{digest}"


def private_key(text: str) -> paramiko.PKey:
    """A private key without a passphrase, of any format and type that is in use.

    Raises:
        ValueError: It is something else.
    """
    import paramiko
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as keys

    # In an environment variable, line breaks are often written so.
    data = text.replace("\\n", "\n").strip().encode() + b"\n"
    try:
        load = keys.load_ssh_private_key if b"OPENSSH PRIVATE" in data else keys.load_pem_private_key
        key = load(data, None)
        form = keys.PrivateFormat.OpenSSH
        openssh = key.private_bytes(keys.Encoding.PEM, form, keys.NoEncryption()).decode()
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from None
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        with suppress(paramiko.SSHException):
            return kind.from_private_key(io.StringIO(openssh))
    raise ValueError("its type is not in use any more")
