"""What is packed, taken out as a stream: gzip of any number of members, and the members of a ZIP archive.

isal inflates, as it takes a third of the time that zlib does.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from typing import TYPE_CHECKING, BinaryIO, Protocol

from isal import igzip_lib, isal_zlib

from tap_analytics_exports.errors import ExportFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

GZIP = b"\x1f\x8b"
ZIP = b"PK\x03\x04"
EMPTY_ZIP = b"PK\x05\x06"

LARGEST_DIRECTORY = 4 << 20  # of a ZIP archive; it is read at once
SHOWN = 5
_INPUT = 1 << 16
_ENCRYPTED = 1
_LOCAL_HEADER = struct.Struct("<4s22xHH")


class Readable(Protocol):
    """What bytes can be read from."""

    def read(self, size: int, /) -> bytes:
        """Up to so many bytes; none at the end only."""
        ...


class Peeked:
    """A stream of which the first bytes are known before they are read.

    Attributes:
        start: Those bytes, fewer than asked for if there are no more.
    """

    def __init__(self, source: Readable, size: int) -> None:
        self._source = source
        self.start = b""
        while len(self.start) < size and (more := source.read(size - len(self.start))):
            self.start += more
        self._left = self.start

    def read(self, size: int) -> bytes:
        """Up to so many bytes; none at the end only."""
        if not self._left:
            return self._source.read(size)
        taken, self._left = self._left[:size], self._left[size:]
        return taken + self._source.read(size - len(taken)) if size > len(taken) else taken


class Gzip:
    """A gzip stream, to the last of its members; ExportFailed where it is cut or damaged.

    Attributes:
        behind: How many bytes were found behind the last member that are no member, and not read. Zeros that
            fill a block up are not counted.
    """

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._input = source.read(_INPUT)
        self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        self.behind = 0

    def read(self, size: int) -> bytes:
        """So many bytes; fewer at the end only."""
        parts = []
        while size:
            if self._member.eof and not self._next_member():
                break
            try:
                part = self._member.decompress(self._input, size)
            except igzip_lib.IsalError as error:
                raise ExportFailed(f"the file is damaged: its gzip stream can't be read ({error})") from error
            size -= len(part)
            parts.append(part)
            self._input = b""
            if self._member.needs_input and not self._member.eof:
                self._input = self._source.read(_INPUT)
                if not self._input:
                    raise ExportFailed(
                        "the file is cut: its gzip stream ends before its trailer; the next run asks for "
                        "another, and if that goes on, ask the vendor"
                    )
        return b"".join(parts)

    def _next_member(self) -> bool:
        if self.behind:
            return False
        start = self._member.unused_data.lstrip(b"\0")
        while len(start) < len(GZIP) and (more := self._source.read(_INPUT)):
            start = (start + more).lstrip(b"\0")
        if start and GZIP.startswith(start[: len(GZIP)]):  # half of a magic number is a cut member
            self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            self._input = start
            return True
        self.behind = len(start)
        while more := self._source.read(_INPUT):
            self.behind += len(more)
        return False


class Member:
    """A member of a ZIP archive, stored or deflated; ExportFailed where it is damaged.

    Args:
        archive: The archive, in which nobody else moves.
        member: The member, as the archive's directory has it.
    """

    def __init__(self, archive: BinaryIO, member: zipfile.ZipInfo) -> None:
        self._archive = archive
        self._member = member
        self._crc = 0
        self._missing = member.file_size
        if member.flag_bits & _ENCRYPTED:
            raise ExportFailed(f"{member.filename!r} in the ZIP archive is encrypted, and can't be read")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ExportFailed(
                f"{member.filename!r} in the ZIP archive is packed by method {member.compress_type}, and "
                "only 0 (stored) and 8 (deflated) can be read"
            )
        deflated = member.compress_type == zipfile.ZIP_DEFLATED
        self._inflate = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE) if deflated else None
        self._left = member.compress_size
        if member.header_offset < 0:
            raise self._damaged("it would begin before the file")
        archive.seek(member.header_offset)
        header = archive.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(ZIP):
            raise self._damaged("it is not where the directory says")
        _, name, extra = _LOCAL_HEADER.unpack(header)
        archive.seek(name + extra, os.SEEK_CUR)

    def read(self, size: int) -> bytes:
        """Up to so many bytes; none at the end only."""
        part = self._more(size)
        while not part and (self._left or (self._inflate and not self._inflate.eof)):
            part = self._more(size)
        self._crc = isal_zlib.crc32(part, self._crc)
        self._missing -= len(part)
        if self._missing < 0 or (not part and size and (self._missing or self._crc != self._member.CRC)):
            raise self._damaged("its size or its checksum is not that of the directory")
        return part

    def _more(self, size: int) -> bytes:
        if self._inflate is None:
            return self._packed(size)
        if self._inflate.eof:
            self._left = 0
            return b""
        packed = self._packed(_INPUT) if self._inflate.needs_input else b""
        if self._inflate.needs_input and not packed:
            raise self._damaged("it ends too early")
        try:
            part: bytes = self._inflate.decompress(packed, size)
        except igzip_lib.IsalError as error:
            raise self._damaged(str(error)) from error
        return part

    def _packed(self, size: int) -> bytes:
        packed = self._archive.read(min(size, self._left))
        if not packed and self._left:
            raise self._damaged("it ends too early")
        self._left -= len(packed)
        return packed

    def _damaged(self, why: str) -> ExportFailed:
        return ExportFailed(
            f"the file is cut or damaged: {self._member.filename!r} in its ZIP archive: {why}"
        )


def members(path: Path) -> list[zipfile.ZipInfo]:
    """The members of a ZIP archive, folders left out.

    Raises:
        ExportFailed: The archive has no directory that can be read.
    """
    try:
        with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
            return [member for member in archive.infolist() if not member.filename.endswith("/")]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise ExportFailed(
            f"the file is cut or damaged: its ZIP directory can't be read ({error})"
        ) from error


def listed(names: Sequence[str]) -> str:
    """Some names of members, to show them."""
    return ", ".join(map(repr, names[:SHOWN])) + (", …" if len(names) > SHOWN else "")


class _Bounded(io.FileIO):
    """A file of which nobody reads much at once, so that a ZIP directory is no trap."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size > LARGEST_DIRECTORY:
            raise OSError(f"it is larger than {LARGEST_DIRECTORY >> 20} MiB")
        return super().read(size) or b""
