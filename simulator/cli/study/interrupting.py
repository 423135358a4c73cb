"""Ctrl-C in two steps, and imports without garbage collections: what every command that plays runs begins with."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Import without garbage collections, a sixth of the imports' time; what was made is never searched again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def two_step_interrupt() -> Iterator[Callable[[], bool]]:
    """Make the first Ctrl-C finish the round and keep the checkpoint, and the second stop at once."""
    stop = False

    def first(number: int, frame: FrameType | None) -> None:
        nonlocal stop
        stop = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = _repeat_interrupt
        print("\nfedscape: finishing this round, then stopping; Ctrl-C again stops at once", file=sys.stderr)

    before, hook = signal.signal(signal.SIGINT, first), sys.unraisablehook
    try:
        yield lambda: stop
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = hook


def _repeat_interrupt(lost: sys.UnraisableHookArgs) -> None:
    """Repeat a Ctrl-C whose error was raised in a destructor or a callback of C code, where Python drops it."""
    if lost.exc_type is KeyboardInterrupt:  # a moment later: the destructor still runs
        main = threading.main_thread().ident
        assert main is not None
        repeat = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT))
        repeat.daemon = True
        repeat.start()
    else:
        sys.__unraisablehook__(lost)
