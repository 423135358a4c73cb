"""The error for a missing published data set names its source. fedscape downloads none of them."""

from __future__ import annotations

from dataclasses import dataclass
from glob import glob
from pathlib import Path

from clients.core.errors import DataError


@dataclass(frozen=True)
class Published:
    """The source of a data set.

    Attributes:
        name: its name.
        page: address of the page that offers it.
        licence: its licence, as that page states it.
        take: the files to download there and unpack.
    """

    name: str
    page: str
    licence: str
    take: str


def require_published(path: str, what: Published) -> Path:
    """Return the file or folder at `path`, the first match of a pattern.

    Args:
        path: relative to the working folder; `~` is the home folder.
        what: the data set that should be there.

    Raises:
        DataError: nothing is at `path`. The message names the download, its licence, and where to put it.
    """
    here = Path(path).expanduser()
    pattern = any(c in path for c in "*?[") and not here.exists()
    found = [Path(p) for p in sorted(glob(str(here), recursive=True))] if pattern else [here] * here.exists()
    if found:
        return found[0]
    raise DataError(
        "path",
        f"{path} does not exist. {what.name} is not downloaded for you: from {what.page} (licence: {what.licence}) "
        f"take {what.take}",
        fix=f"Put it at {here.absolute()}, or give its place with --set data.path=...",
    )
