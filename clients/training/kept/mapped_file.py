"""An unnamed file that is mapped into memory: the system keeps its pages, and writes them to disk when it must."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from clients.core.errors import RunFolderError

_ZEROS = 1 << 20


class MappedFile:
    """A file without a name. It ends with the process, however that ends.

    Args:
        folder: where its bytes lie.

    Attributes:
        size: bytes that are reserved and mapped.

    Raises:
        RunFolderError: the folder cannot hold it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.size = folder, 0
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (closed by `close`)
        except OSError as error:
            raise self._refused(0, error) from error
        self._map: mmap.mmap | None = None

    def grow(self, size: int) -> None:
        """Reserve and map the first `size` bytes. No tensor of the file may be in use.

        The bytes are reserved on disk, because a page that the disk cannot take would end the process without an error.

        Raises:
            RunFolderError: the disk is full, or the system maps no more; the file stays as it was.
        """
        try:
            reserve(self._file.fileno(), self.size, size)
            grown = mmap.mmap(self._file.fileno(), size)
        except OSError as error:
            os.ftruncate(self._file.fileno(), self.size)
            raise self._refused(size - self.size, error) from error
        self._unmap()
        self._map, self.size = grown, size

    def rows(self, width: int, dtype: torch.dtype) -> Tensor:
        """Return the file's whole rows, [size // bytes of a row, width]; they are the file, not a copy."""
        assert self._map is not None, "a file that has grown"
        count = self.size // (width * dtype.itemsize)
        return torch.frombuffer(self._map, dtype=dtype, count=count * width).view(count, width)

    def rest(self) -> None:
        """Take the file's pages out of the process; the system has them still, and reads them again when needed."""
        if self._map is not None and sys.platform == "linux":
            self._map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Give the file back to the system. No tensor of it may be in use."""
        self._unmap()
        self._file.close()

    def _unmap(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None

    def _refused(self, more: int, error: OSError) -> RunFolderError:
        reason = error.strerror or str(error)
        problem = f"cannot hold what clients keep between rounds: {reason}"
        if more:
            free = shutil.disk_usage(self.folder).free
            problem += f"; {more:,} bytes more are needed beside {self.size:,}, and {free:,} bytes are free"
        fix = "Free some space and resume the run, or use another disk: --out, or TMPDIR for a run without a record."
        return RunFolderError(str(self.folder), problem, fix=fix)


def reserve(handle: int, start: int, end: int) -> None:
    """Reserve the bytes of an open file from `start` to `end` on disk, and make the file that long.

    Raises:
        OSError: the disk is full, or a file may not be so large.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, start, end - start)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    zeros = bytes(_ZEROS)
    while start < end:
        start += os.pwrite(handle, zeros[: end - start], start)
