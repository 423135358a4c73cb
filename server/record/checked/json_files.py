"""Files of one JSON object: written with a checksum, read with it and with their layout."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clients.core.errors import RunFolderError
from server.record.checked.layouts import layout_of
from server.record.checked.parsing import parse_json
from server.record.checked.regular_files import LARGEST_TABLE, LARGEST_TEXT, read_regular
from server.record.checked.seals import ACCEPT, UNLIKE, sealed_json, unsealed_json
from server.record.checked.shapes import Misfit
from server.record.files import sync_folder, whole_file
from server.record.jsonlines import to_json

SMALL = ("environment.json", "outcome.json", "federation.json")
"""Files that do not grow with clients or rounds."""


def write_json(path: Path, value: Mapping[str, Any], *, indent: bool = False) -> None:
    """Replace a file by a JSON object with its checksum, atomically.

    Raises:
        RunFolderError: it cannot be written.
    """
    with whole_file(path) as file:
        file.write((sealed_json(to_json(value, indent=indent)) + "\n").encode())
    sync_folder(path.parent)


def read_json(path: Path) -> tuple[dict[str, Any], bool] | None:
    """Return a file's JSON object and whether it has a checksum; None where the file is absent.

    Raises:
        RunFolderError: it cannot be read, is damaged, or does not have its layout.
    """
    if not os.path.lexists(path):
        return None
    raw = read_regular(path, most=LARGEST_TEXT if path.name in SMALL else LARGEST_TABLE)
    content, fits = unsealed_json(raw)
    try:
        value = parse_json(content)
    except ValueError:
        value = None
    fix = "The rounds are in rounds.jsonl."
    if not isinstance(value, dict):
        raise RunFolderError(str(path), "is damaged: it is not a JSON object", fix=fix)
    if fits is False:
        raise RunFolderError(str(path), UNLIKE, fix=ACCEPT)
    try:
        layout_of(path.name)(value)
    except Misfit as misfit:
        raise RunFolderError(str(path), f"is damaged: {misfit}", fix=fix) from misfit
    return value, fits is not None
