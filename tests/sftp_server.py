"""An SFTP server of this process, in a thread of its own."""

import asyncio
import threading
from pathlib import Path

import asyncssh

from tap_analytics_exports.transport.file_settings import FileSettings
from tap_analytics_exports.transport.files import FileStore, file_store


class Server:
    """An SFTP server of a folder, in a thread of its own.

    Attributes:
        cuts: After how many bytes, from wherever a file is read, its next transfers break off.
        short: How many bytes of a file there are to be read; None: all.
        read: How many bytes were read.
        password: With which acme is let in.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cuts: list[int] = []
        self.short: int | None = None
        self.read = 0
        self.password = "invented"
        self.connections: list[asyncssh.SSHServerConnection] = []
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._acceptor = self._do(self._listen())
        self.port = self._acceptor.get_port()

    def store(self, base: str = "/base") -> FileStore:
        settings = FileSettings(
            base_url="",
            files_url=f"sftp://acme@127.0.0.1:{self.port}{base}",
            sftp_password="invented",
            sftp_host_key=self.host_key,
        )
        return file_store("vendor", settings)

    @property
    def host_key(self) -> str:
        return self._key.export_public_key().decode().strip()

    @property
    def fingerprint(self) -> str:
        return self._key.get_fingerprint()

    def close(self) -> None:
        self._do(self._leave())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, what):
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _leave(self) -> None:
        self._acceptor.close()
        await self._acceptor.wait_closed()
        for connection in self.connections:
            connection.abort()
            await connection.wait_closed()
        await asyncio.sleep(0.01)  # until the transports are closed too

    async def _listen(self):
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[self._key],
            server_factory=lambda: Login(self),
            sftp_factory=lambda channel: Files(channel, self),
        )


class Login(asyncssh.SSHServer):
    """Lets in who knows the password."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def connection_made(self, conn) -> None:
        self._server.connections.append(conn)

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return password == self._server.password


class Files(asyncssh.SFTPServer):
    """The folder, whose files may be shorter than they say, or break off."""

    def __init__(self, channel, server: Server) -> None:
        super().__init__(channel, chroot=str(server.root).encode())
        self._server = server
        self._left: dict[object, int] = {}

    def open(self, path, pflags, attrs):
        file = super().open(path, pflags, attrs)
        if self._server.cuts:
            self._left[file] = self._server.cuts.pop(0)
        return file

    def read(self, file_obj, offset, size):
        if self._server.short is not None:
            size = max(0, min(size, self._server.short - offset))
        if file_obj in self._left:
            self._left[file_obj] -= size
            if self._left[file_obj] < 0:
                self.channel.get_connection().abort()
                return b""
        data = super().read(file_obj, offset, size) if size else b""
        self._server.read += len(data)
        return data
