"""Optuna's study of a tuning: where it is stored, and what it says of the tuning that it belongs to.

By default it is a journal in the tuning's folder: one line for each proposal, value and end of a trial, on disk at
once. Optuna's own dashboard reads it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from clients.core.errors import UserError
from clients.core.shown.secrets import secrets_of
from clients.core.shown.urls import bare_url
from server.record.files import writing
from simulator.scenario.data_files import DataFiles, data_changes

JOURNAL = "optuna.journal"
SETTINGS = "fedscape"
"""The attribute of a study with the settings of its tuning."""
DATA = "data"
"""The setting with the digests of the data files."""
Direction = Literal["minimize", "maximize"]
T = TypeVar("T")
_NAMES = {
    "scenario": "scenario",
    "parameters": "params",
    "seeds": "seeds",
    "measure": "measure",
}


@contextmanager
def quietly() -> Iterator[None]:
    """Let Optuna log warnings alone, and warn of no experimental part. Its loggers are restored afterwards."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def open_study(
    folder: Path,
    url: str | None,
    name: str,
    direction: Direction,
    settings: Mapping[str, Any],
    data: DataFiles | None = None,
) -> optuna.study.Study:
    """Return the study of a tuning, a new one or one that goes on.

    Args:
        folder: the tuning's.
        url: a database; None for the journal in the folder.
        name: the study's name.
        direction: minimize or maximize.
        settings: what every trial of the study has in common.
        data: the files of the tuned scenario's data; None for data without files.

    Raises:
        UserError: the database cannot be opened, or the study has other settings or data.
    """
    storage = _storage(folder, url)
    study = _asked(url, lambda: optuna.create_study(storage=storage, study_name=name, load_if_exists=True,
                                                    direction=direction))  # fmt: skip
    known = study.user_attrs.get(SETTINGS)
    if known is None:
        study.set_user_attr(SETTINGS, {**settings, **({DATA: data.facts()} if data is not None else {})})
        return study
    if changes := data_changes(known.get(DATA), data):
        problem = f"are not those of the study {name!r}: {changes}"
        raise UserError("data", problem, fix="Restore the data, or name another folder with --out.")
    for key, value in settings.items():
        if known.get(key) != value:
            problem = f"differs from that of the study {name!r}: {_short(value)} now, {_short(known.get(key))} there"
            raise UserError(_NAMES.get(key, key), problem, fix="Name another folder with --out, or the same settings.")
    return study


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else f"{text[:76]}..."


def _storage(folder: Path, url: str | None) -> BaseStorage:
    if url is not None:
        return _asked(url, lambda: RDBStorage(url))
    journal = folder / JOURNAL
    with writing(journal):
        _drop_torn_line(journal)
        return JournalStorage(JournalFileBackend(str(journal)))


def _asked(url: str | None, call: Callable[[], T]) -> T:
    """Return what a call on a storage returns; its error names the database without its password."""
    try:
        return call()
    except Exception as error:
        if url is None:
            raise
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        words = f"{bare_url(url)} cannot be used: {secrets_of(url).hidden(first)}"
        raise UserError("storage", words[:300], fix="Such as sqlite:///tuning.db, or no --storage.") from None


def _drop_torn_line(journal: Path) -> None:
    """Drop an incomplete last line, which a full disk or a power cut left: Optuna would read no line after it."""
    if not journal.is_file():
        return
    with journal.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
