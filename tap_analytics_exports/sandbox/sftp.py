"""The SFTP server on which IntelePeer puts results (File Storage Setup)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncssh

if TYPE_CHECKING:
    from pathlib import Path

    from tap_analytics_exports.sandbox.server import Hub

USERNAME = "acme"
PASSWORD = "sftp-pass"
#: The name under which this server stands in requests and faults.
NAME = "intelepeer_sftp"
#: The folder of the server in which the results' relative paths begin.
BASE = "outbox"


class Login(asyncssh.SSHServer):
    """Who may enter, and a record of who tried."""

    def __init__(self, hub: Hub, client_key: asyncssh.SSHKey) -> None:
        """Joins the hub; the client's key enters, and so does the password."""
        self.hub = hub
        self.client_key = client_key

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Records the connection, which may never ask to authenticate."""
        del conn
        self.hub.record(NAME, "CONNECT", "")

    def password_auth_supported(self) -> bool:
        """Offers passwords."""
        return True

    def validate_password(self, username: str, password: str) -> bool:
        """Checks a password."""
        good = (username, password) == (USERNAME, PASSWORD)
        self.hub.record(NAME, "PASSWORD", username)["status"] = 0 if good else 1
        return good

    def public_key_auth_supported(self) -> bool:
        """Offers keys."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Checks a key."""
        good = username == USERNAME and key.public_data == self.client_key.public_data
        self.hub.record(NAME, "PUBLICKEY", username)["status"] = 0 if good else 1
        return good


class Outbox(asyncssh.SFTPServer):
    """A folder that can be read, and only that; a fault may stand before a file or break its transfer."""

    def __init__(self, chan: asyncssh.SSHServerChannel[bytes], hub: Hub, root: Path) -> None:
        """Shows one folder as the whole file system."""
        super().__init__(chan, chroot=str(root).encode())
        self.hub = hub
        self.cuts: dict[object, int] = {}

    async def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        """Opens a file for reading."""
        name = path.decode(errors="replace")
        fault = self.hub.fault(NAME, "OPEN", name)
        action: dict[str, Any] = fault.action if fault else {}
        entry = self.hub.record(NAME, "OPEN", name, fault=action or None)
        entry["status"] = 1
        await asyncio.sleep(action.get("delay", 0))
        if action.get("hang"):
            await asyncio.Event().wait()
        if action.get("close") == "before_headers":
            self.channel.get_connection().abort()
        if "status" in action:
            raise asyncssh.SFTPError(action["status"], str(action.get("body", "Failure")))
        if pflags & ~asyncssh.FXF_READ:
            raise asyncssh.SFTPPermissionDenied("Read only")
        opened: object = super().open(path, pflags, attrs)
        entry["status"] = 0
        if "truncate_after_bytes" in action:
            self.cuts[opened] = action["truncate_after_bytes"]
        return opened

    async def read(self, file_obj: object, offset: int, size: int) -> bytes:
        """Reads; past the place of a cut, the connection is gone."""
        cut = self.cuts.get(file_obj)
        if cut is not None and offset + size > cut:
            self.channel.get_connection().abort()
            return b""
        data = super().read(file_obj, offset, size)
        return data if isinstance(data, bytes) else await data


def keys(folder: Path) -> tuple[asyncssh.SSHKey, asyncssh.SSHKey]:
    """Gives the host's key and the client's, made on first use and kept in a folder."""
    found = []
    for name in ("host_key", "client_key"):
        path = folder / name
        if not path.exists():
            path.touch(mode=0o600)
            asyncssh.generate_private_key("ssh-ed25519").write_private_key(path)
        found.append(asyncssh.read_private_key(path))
    return found[0], found[1]


async def serve(
    hub: Hub, root: Path, port: int, host_key: asyncssh.SSHKey, client_key: asyncssh.SSHKey
) -> asyncssh.SSHAcceptor:
    """Starts the server.

    Args:
        hub: The state of all services.
        root: What clients see as `/`.
        port: Where to listen; 0 for any.
        host_key: Its identity.
        client_key: Whose public half may enter.

    Returns:
        The listener.
    """
    return await asyncssh.listen(
        "127.0.0.1",
        port,
        server_host_keys=[host_key],
        server_factory=lambda: Login(hub, client_key),
        sftp_factory=lambda chan: Outbox(chan, hub, root),
        allow_scp=False,
    )
