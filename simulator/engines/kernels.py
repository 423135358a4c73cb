"""Whether the stacked engine trains with a kernel in C: the option, the note in the plan, and resumed runs."""

from __future__ import annotations

from dataclasses import replace

from clients.core.errors import EngineError
from clients.engines.base import Engine
from clients.engines.native.choice import NO_KERNEL, has_kernel, kernel_of
from clients.engines.stacked import StackedEngine
from clients.training.rules import LocalRule
from clients.training.task import LearningTask
from simulator.engines.options import EngineOptions
from simulator.engines.plan import EnginePlan


def find_kernel(options: EngineOptions, task: LearningTask, rule: LocalRule) -> tuple[bool, str]:
    """Return whether a kernel covers a task and may be used, and why not: `NO_KERNEL`, or the end of a sentence.

    Args:
        options: "never" looks for none.
        task: the model, the clients' data and their options.
        rule: the algorithm's local rule.

    Raises:
        EngineError: a kernel was demanded, and there is none.
    """
    if options.native == "never":
        return False, NO_KERNEL
    kernel, reason = kernel_of(task, rule)
    if kernel is None and options.native == "always":
        raise EngineError(
            "engine.native", f"'always' is impossible: {reason}", fix="Set native = 'auto' or 'never', or remove that."
        )
    return kernel is not None, reason


def with_note(plan: EnginePlan, engine: Engine, reason: str) -> EnginePlan:
    """Return a stacked plan with the use of a kernel, and with the reason where a model that has one does without."""
    if not isinstance(engine, StackedEngine) or reason == NO_KERNEL:
        return plan
    native = has_kernel(engine.program)
    note = "kernel in C" if native else f"no kernel in C: {reason}"
    return replace(plan, native=native, reason=f"{plan.reason}; {note}")
