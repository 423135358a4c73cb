"""Errors raised by the user's own code: their words, with the file and the line of the user's code."""

from __future__ import annotations

import inspect
import linecache
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from types import CodeType, FrameType

from clients.core.errors import FedscapeError, UserError
from clients.core.shown.text import presentable

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("clients", "server", "simulator", "dashboards", "fedscape")
OURS = tuple(str(_ROOT / name) + "/" for name in _PACKAGES)
"""Folders of fedscape's own code."""
LIBRARIES = tuple({sysconfig.get_path(name) + "/" for name in ("stdlib", "platstdlib")})
"""Folders of Python's own library; installed packages may lie in one of them."""
_INSTALLED = re.compile(r"/(site|dist)-packages/")
_NEVER = re.compile(r"/(site|dist)-packages/(torch|functorch|flwr|numpy|scipy)/|/torch/nn/modules/")
_OF_MODEL = re.compile(r"/torch/(nn/modules|autograd)/")
_MOST = 500  # characters of an error's text

_Frame = tuple[FrameType, int]


def described(error: BaseException) -> str:
    """Return an error in one line: its type, its text, and the place in the user's own code, if it passes there.

    Example:
        >>> described(ValueError("no such site"))
        'ValueError: no such site'
    """
    text = presentable(" ".join(str(error).split()))
    text = text if len(text) <= _MOST else text[: _MOST - 4] + " ..."
    place = user_place(error)
    return type(error).__name__ + (f": {text}" if text else "") + (f" ({place})" if place else "")


def user_place(error: BaseException) -> str:
    """Return the innermost place in the user's code that an error passes; empty where it passes none.

    It is the innermost frame outside fedscape, Python's library and installed packages. A user's package that is
    installed counts where nothing else does.

    Example:
        >>> user_place(ValueError("never raised"))
        ''
    """
    frames = _frames(error)
    own = [f for f in frames if not _is_of_library(f) and not _INSTALLED.search(_file(f))]
    own = own or [f for f in frames if _INSTALLED.search(_file(f)) and not _NEVER.search(_file(f)) and not _is_ours(f)]
    if not own:
        return ""
    frame, line = own[-1]
    code = frame.f_code
    source = linecache.getline(code.co_filename, line, frame.f_globals).strip()
    where = "" if code.co_name == "<module>" else f", in {code.co_name}"
    return f"at {code.co_filename}, line {line}{where}" + (f": {source}" if source else "")


def passes(error: BaseException, functions: Iterable[object]) -> bool:
    """Return whether an error passes through one of some functions; what is no Python function is left out."""
    codes = {code for f in functions if isinstance(code := getattr(f, "__code__", None), CodeType)}
    return any(frame.f_code in codes for frame, _ in _frames(error))


def is_of_users_code(error: BaseException) -> bool:
    """Return whether an error comes from the user's code or model, not from a mistake in fedscape.

    An error of torch's own layers, or of its backward pass, comes from the model that consists of them. A failed
    `assert` of fedscape does not, also where the user's code called it.
    """
    frames = _frames(error)
    if isinstance(error, AssertionError) and frames and _is_ours(frames[-1]):
        return False
    return bool(user_place(error)) or any(_OF_MODEL.search(_file(f)) for f in frames)


@contextmanager
def naming(field: str, doing: str, *, kind: type[UserError] = UserError, fix: str = "") -> Iterator[None]:
    """Turn an error of the user's code into a `UserError`; fedscape's own errors pass unchanged.

    Args:
        field: the argument that the code came with, such as "model".
        doing: what it does, as the start of the problem, such as "fails in round 3".
        kind: the class of the error.
        fix: the usual fix.
    """
    try:
        yield
    except FedscapeError:
        raise
    except Exception as error:  # the user's code may raise anything
        if not is_of_users_code(error):
            raise
        raise kind(field, f"{doing}: {described(error)}", fix=fix) from error


def is_our_object(value: object) -> bool:
    """Return whether an object's class is fedscape's own, and not the user's.

    Example:
        >>> is_our_object(UserError("seed", "is 1")), is_our_object([])
        (True, False)
    """
    return type(value).__module__.partition(".")[0] in _PACKAGES


def name_of(function: Callable[..., object]) -> str:
    """Return a function's name for messages; an object's class.

    Example:
        >>> name_of(len), name_of(lambda: 0)
        ('len', '<lambda>')
    """
    return getattr(inspect.unwrap(function), "__name__", type(function).__name__)


def _frames(error: BaseException) -> list[_Frame]:
    """Return the frames that an error passes, the innermost last; without those of generated code."""
    frames = walk_tb(error.__traceback__)
    return [f for f in frames if not _file(f).startswith(("<frozen", "<eval_with_key", "<__array"))]


def _file(frame: _Frame) -> str:
    return frame[0].f_code.co_filename


def _is_ours(frame: _Frame) -> bool:
    return _file(frame).startswith(OURS)


def _is_of_library(frame: _Frame) -> bool:
    """Return whether a frame is of fedscape, Python's library or torch's layers."""
    return _file(frame).startswith((*OURS, *LIBRARIES)) or _NEVER.search(_file(frame)) is not None
