"""Compiles the package's C sources with the system's compiler, on first use, and loads them.

A library is kept in the user's cache folder under a key of everything that it depends on: sources, flags, compiler and
processor. Size and digest are checked before it is loaded, since a damaged library would end the process.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import os
import platform
import shlex
import shutil
import signal
import stat
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clients.core.shown.secrets import child_environment
from clients.core.shown.text import presentable

FLAGS = ("-std=gnu11", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC", "-pthread")
"""No flag of `-ffast-math`: NaN and infinities must pass through."""
COMPILE_SECONDS = 180.0
"""Seconds after which the compiler is stopped (usual: one to three, and twenty times that on a crowded machine)."""
_SOURCES = Path(__file__).parent
_FULL = ("No space left on device", "Disk quota exceeded")
"""What compilers print of a full disk."""
_LIBRARY, _DIGEST = "kernel.so", "kernel.json"


@dataclass(frozen=True)
class Library:
    """The result of loading a kernel.

    Attributes:
        functions: the loaded library; None if it cannot be used.
        reason: why it cannot be used, as the end of a sentence; empty if it can.
        seconds: time spent compiling; 0 if the library was in the cache.
    """

    functions: ctypes.CDLL | None
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Identity:
    """What a loaded kernel was made from.

    Attributes:
        key: a digest of its sources, flags, compiler and processor.
        compiler: the first line of what the compiler says of itself.
    """

    key: str
    compiler: str


_IDENTITIES: dict[int, Identity] = {}
"""By the library's `id`; loaded libraries last as long as the process."""


def identity_of(functions: ctypes.CDLL) -> Identity | None:
    """Return what a library that `load` returned was made from."""
    return _IDENTITIES.get(id(functions))


Check = Callable[[ctypes.CDLL], str]
"""Tries a library: returns what is wrong with its results, empty if nothing."""


@functools.cache
def load(source: str, defines: tuple[str, ...] = (), check: Check | None = None) -> Library:
    """Compile and load a C source of this package, once a process; forked processes inherit the result.

    Args:
        source: its file name, such as "dense.c". It may include the package's headers.
        defines: macros, such as ("REAL=float",).
        check: compares the library's results with known ones.
    """
    started = time.perf_counter()
    try:
        compiler = _compiler()
        words = _words_of(compiler)
        key, command = _key(compiler, words, source, defines), [*compiler, *FLAGS, *(f"-D{d}" for d in defines)]
        folder = cache_folder()
        found, built = _from_cache(folder / key, command, source) if folder else (_in_private(command, source), True)
    except _Unusable as problem:
        return Library(None, str(problem))
    except OSError as error:
        return Library(None, f"the kernel cannot be built: {_line(str(error))}")
    seconds = time.perf_counter() - started if built else 0.0
    wrong = check(found) if check else ""
    _IDENTITIES[id(found)] = Identity(key, words)
    return Library(None if wrong else found, wrong and f"the kernel's self-check failed: {wrong}", seconds)


class _Unusable(Exception):
    """Why there is no kernel."""


class _NoSpace(_Unusable):
    """The disk that a library is compiled on is full."""


def cache_folder() -> Path | None:
    """Return the folder of compiled kernels, made if need be: $XDG_CACHE_HOME/fedscape or ~/.cache/fedscape.

    None if it cannot be made or written, belongs to another user, or may be written by others: whoever can write there
    could run code in this process.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "fedscape"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.lstat()
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return None
    safe = stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid() and not info.st_mode & 0o022
    return folder if safe and os.access(folder, os.W_OK | os.X_OK) else None


def _compiler() -> list[str]:
    """Return the command of the C compiler: $CC, else cc, gcc or clang."""
    if os.name != "posix":
        raise _Unusable(f"kernels are not built on {platform.system()}")
    named = shlex.split(os.environ.get("CC", ""))
    if named:
        if shutil.which(named[0]) is None:
            raise _Unusable(f"no C compiler: $CC names {named[0]!r}, which is not installed")
        return named
    found = next((path for path in map(shutil.which, ("cc", "gcc", "clang")) if path), None)
    if found is None:
        raise _Unusable("no C compiler (cc, gcc or clang) is installed")
    return [found]


def _words_of(compiler: list[str]) -> str:
    """Return the first line of what a compiler says of itself."""
    status, output = _run([*compiler, "--version"], seconds=10.0)
    if status:
        raise _Unusable(f"the C compiler {compiler[0]!r} does not run: {_line(output)}")
    return output.partition("\n")[0]


def _key(compiler: list[str], words: str, source: str, defines: tuple[str, ...]) -> str:
    """Return a digest of everything that the library depends on."""
    parts = [*compiler, words, *FLAGS, *defines, _processor()]
    parts += [platform.system(), platform.machine(), *platform.libc_ver(), str(struct.calcsize("P"))]
    digest = hashlib.sha256("\0".join(parts).encode())
    for path in sorted([_SOURCES / source, *_SOURCES.glob("*.h")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"{Path(source).stem}-{digest.hexdigest()[:32]}"


def _processor() -> str:
    """Return the processor's model and features, which `-march=native` compiles for."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    names = ("vendor_id", "cpu family", "model", "model name", "flags", "Features", "CPU part")
    return "\n".join(line for line in lines if line.partition(":")[0].strip() in names)


def _from_cache(entry: Path, command: list[str], source: str) -> tuple[ctypes.CDLL, bool]:
    """Load a cache entry, made first if it is missing or damaged; also return whether it was made.

    Where the cache's disk is full, the library is made in a temporary folder, as it is without a cache.
    """
    built = not _is_whole(entry)
    if built:
        with suppress(OSError, _NoSpace):
            _make(entry, command, source)
        if not _is_whole(entry):
            return _in_private(command, source), True
    try:
        return ctypes.CDLL(str(entry / _LIBRARY)), built
    except OSError:  # a file system that runs no programs, for one
        return _in_private(command, source), True


def _make(entry: Path, command: list[str], source: str) -> None:
    """Compile into a cache entry, which appears in one step."""
    with tempfile.TemporaryDirectory(dir=entry.parent, prefix="build-") as scratch:
        made = Path(scratch) / "made"
        made.mkdir(mode=0o700)
        _compile(command, source, made)
        with suppress(OSError):  # a damaged entry, out of the way in one step
            entry.rename(Path(scratch) / "damaged")
        with suppress(OSError):  # another process was first: its entry is as good
            made.rename(entry)


def _in_private(command: list[str], source: str) -> ctypes.CDLL:
    """Compile in a temporary folder of our own, and load; the library stays loaded without its file."""
    with tempfile.TemporaryDirectory(prefix="fedscape-") as scratch:
        _compile(command, source, Path(scratch))
        try:
            return ctypes.CDLL(str(Path(scratch) / _LIBRARY))
        except OSError as error:
            raise _Unusable(f"the kernel cannot be loaded: {_line(str(error))}") from error


def _is_whole(entry: Path) -> bool:
    """Return whether an entry's library has the size and the digest that were written beside it."""
    try:
        noted, content = json.loads((entry / _DIGEST).read_text()), (entry / _LIBRARY).read_bytes()
    except (OSError, ValueError):
        return False
    return bool(noted == _facts(content))


def _facts(content: bytes) -> dict[str, object]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _compile(command: list[str], source: str, folder: Path) -> None:
    """Write the library and its facts into `folder`."""
    target = folder / _LIBRARY
    end = ["-o", str(target), str(_SOURCES / source), "-lm"]
    status, output = _run([*command, *end], temporary=folder)
    if status and "-march=native" in output:  # some compilers know no native target
        status, output = _run([*(part for part in command if part != "-march=native"), *end], temporary=folder)
    if status and any(text in output for text in _FULL):
        raise _NoSpace(f"no space is left to compile it in {presentable(str(folder.parent))}")
    if status:
        errors = [line for line in output.splitlines() if "error: " in line]
        raise _Unusable(f"compiling failed: {_line((errors or [output])[0].replace(str(_SOURCES) + os.sep, ''))}")
    (folder / _DIGEST).write_text(json.dumps(_facts(target.read_bytes())))


def _run(command: list[str], seconds: float = COMPILE_SECONDS, *, temporary: Path | None = None) -> tuple[int, str]:
    """Run a command with a bound on its time, and its temporary files in a folder; return status and all it printed.

    Its output goes to a file, and it leads a group of its own: a compiler's children would hold a pipe open.
    """
    places = {} if temporary is None else {"TMPDIR": str(temporary)}
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            env=child_environment() | {"LC_ALL": "C"} | places,
        )  # fmt: skip
        try:
            status = child.wait(seconds)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise _Unusable(f"the C compiler {command[0]!r} did not end within {seconds:.0f} s") from None
            raise
        output.seek(0)
        return status, output.read().decode(errors="replace")


def _line(text: str) -> str:
    """Return the first line of a text, printable and not too long."""
    lines = text.strip().splitlines() or ["no output"]
    return presentable(lines[0])[:200]
