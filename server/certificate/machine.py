"""What a run's bits depend on beside its scenario: torch's build, the processor's instructions, the kernel in C."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from clients.engines.base import Engine
from clients.engines.native.build import identity_of
from clients.engines.native.choice import kernel_in
from clients.engines.stacked import StackedEngine
from server.certificate.hashing import HASH


def machine_facts(engine: Engine | None) -> dict[str, Any]:
    """Return the facts of this machine that the bits of a run depend on.

    Args:
        engine: the engine of this process; None where clients are trained elsewhere.

    Returns:
        The hash, the instructions that torch uses, the commit of its build, and key and compiler of the kernel in C.
    """
    kernel = kernel_in(engine.program) if isinstance(engine, StackedEngine) else None
    made = identity_of(kernel.functions) if kernel is not None else None
    return {
        "hash": HASH,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch_build": torch.version.git_version,
        **({"kernel": made.key, "compiler": made.compiler} if made is not None else {}),
    }


_WORDS = {
    "instructions": "torch uses other instructions of the processor",
    "torch_build": "torch is another build",
    "kernel": "the kernel in C is another",
    "compiler": "its compiler is another",
}


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between the environment of a record and that of now, as clauses.

    Args:
        recorded: the content of environment.json, with `machine_facts` in `run.certificate`.
        now: `server.record.environment.environment()`, with the same.

    Returns:
        One clause for each difference on which bits may depend; what the record lacks is left out.
    """
    before, here = recorded.get("versions") or {}, now.get("versions") or {}
    found = [f"{name} is {here.get(name)}, and was {version}" for name, version in before.items()
             if here.get(name) != version]  # fmt: skip
    for key in ("python", "processor", "gpus"):
        if key in recorded and recorded[key] != now.get(key):
            found.append(f"{key} is {_shown(now.get(key))}, and was {_shown(recorded[key])}")
    found += _of_source(recorded.get("source"), now.get("source"))
    made = [(environment.get("run") or {}).get("certificate") or {} for environment in (recorded, now)]
    for key, words in _WORDS.items():
        was, is_now = (facts.get(key) for facts in made)
        if was is not None and is_now is not None and was != is_now:
            found.append(f"{words}: {is_now}, and was {was}")
    return found


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _of_source(recorded: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> list[str]:
    """Return that the code is of another commit, or has files that differ from its commit."""
    if not recorded or not now:
        return []
    was, is_now = (str(source.get("commit"))[:12] for source in (recorded, now))
    found = [f"the code is commit {is_now}, and was {was}"] if was != is_now else []
    changed = [words for words, source in (("was", recorded), ("is", now)) if source.get("modified")]
    return [*found, f"the code {' and '.join(changed)} changed from its commit"] if changed else found
