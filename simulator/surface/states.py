"""The states of a run that a surface needs: kept ones are read, the others are played again, within a budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from clients.core.errors import RunFolderError, StrategyError, UserError
from clients.core.numbers.spacing import evenly_spaced
from clients.core.parameters import Layout
from clients.training.task import LearningTask
from server.record.records import RunFolder
from simulator.replay.branch import checkpoint_of, kept_rounds
from simulator.replay.replaying import Replayable, nearest_checkpoint
from simulator.runs.record import model_tensors
from simulator.runs.session import Session
from simulator.surface.walking import ClientEnds, client_ends, walk

State = int | str | PathLike[str] | nn.Module | Mapping[str, Tensor] | Tensor
"""A state of the model: a round of the run, "first", "best" or "last", another run's folder (its final model), a
module, a state dict, or parameters [P]."""
MOST_STATES = 200
"""The most states of a path."""
PATH_BYTES = 2**30
"""What the states of a path may take."""
ENOUGH = 5
"""A path of so many kept states is drawn without playing the run again."""


@dataclass(frozen=True)
class Model:
    """Parameters [P] and buffers [Q] of a model, with its name."""

    name: str
    params: Tensor
    buffers: Tensor


@dataclass(frozen=True)
class ServerStates:
    """States of the server by round.

    Attributes:
        models: round -> the model.
        path: the rounds of the path, in order.
        ends: the clients' ends; None where they are not wanted, or take too long.
        again: whether rounds were played again.
        notes: what was left out, and how the states were found; sentences.
    """

    models: dict[int, Model]
    path: tuple[int, ...]
    ends: ClientEnds | None
    again: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The states that are wanted.

    Attributes:
        rounds: rounds by number.
        path_needed: whether the whole path is, even if it takes too long.
        ends: the round whose clients' ends are; None for none.
        ends_needed: whether ends that take too long are an error.
        seconds: how long rounds may be played again.
    """

    rounds: Sequence[int] = ()
    path_needed: bool = True
    ends: int | None = None
    ends_needed: bool = False
    seconds: float = 60.0


def states_of(session: Session, run: Replayable, wanted: Wanted) -> ServerStates:
    """Return the states of a run that are wanted.

    Raises:
        UserError: they were not kept, and playing the rounds again would take longer than `wanted.seconds`.
        RunFolderError: a file cannot be read.
    """
    last = int(run.lines[-1]["round"])
    kept = sorted({*run.folder.parameters.rounds(), *kept_rounds(run.folder)})
    kept = [r for r in kept if r <= last]
    rounds = sorted({_checked(r, last) for r in wanted.rounds})
    path, few = _path_rounds(session, run, kept, last, wanted)
    missing = [r for r in {*rounds, *path} if r not in kept]
    plan = _Walk.of(run, missing)
    _require_time(plan, run, wanted.seconds, missing)
    ends, notes = None, [few] if few else []
    of_ends = _Walk.of(run, [wanted.ends - 1]) if wanted.ends is not None else _Walk()
    if wanted.ends is not None and not wanted.ends_needed and plan.joined(of_ends).seconds(run) > wanted.seconds:
        notes.append(
            f"The clients' ends of round {wanted.ends} are left out: playing the rounds before it again takes about "
            f"{of_ends.seconds(run):.0f} s, and {wanted.seconds:g} s are allowed."
        )
        of_ends = _Walk()
    elif wanted.ends is not None:
        _require_time(of_ends, run, wanted.seconds, [wanted.ends - 1])
    models = {r: _kept_model(session.task, run.folder, r) for r in {*rounds, *path} if r in kept}
    whole = plan.joined(of_ends)
    if whole.last >= 0:
        again = walk(session, run, after=whole.after, last=whole.last)
        for state in again:
            if state.round_index in missing:
                models[state.round_index] = Model(_round_name(state.round_index), state.params, state.buffers)
            if of_ends.last == state.round_index:
                try:
                    ends = client_ends(session, state)
                except StrategyError as error:
                    if wanted.ends_needed:
                        raise
                    notes.append(f"The {error.field} {error.problem}.")
    first = max(whole.after, 0) + 1
    if missing and whole.last >= first:
        notes.append(f"Rounds {first} to {whole.last} were played again to find the states.")
    return ServerStates(models, path, ends, whole.last >= first, tuple(notes))


@dataclass(frozen=True)
class _Walk:
    """Rounds to play again: those after `after`, up to `last`; none where `last` is -1."""

    after: int = 0
    last: int = -1

    @classmethod
    def of(cls, run: Replayable, rounds: Iterable[int]) -> _Walk:
        """Return the shortest walk that meets some rounds.

        Raises:
            RunFolderError: they are before the run's branch.
        """
        wanted = sorted(rounds)
        if not wanted:
            return cls()
        after = nearest_checkpoint(run, wanted[0] + 1)
        if after > wanted[0]:
            problem = f"begins at round {after}, where it was branched, and lacks the state of round {wanted[0]}"
            raise RunFolderError(str(run.folder.path), problem, fix=f"Name rounds from {after} on.")
        return cls(after, wanted[-1])

    def joined(self, other: _Walk) -> _Walk:
        """Return the walk that meets the rounds of both."""
        if self.last < 0 or other.last < 0:
            return other if self.last < 0 else self
        return _Walk(min(self.after, other.after), max(self.last, other.last))

    def seconds(self, run: Replayable) -> float:
        """Return how long the recorded run took for these rounds."""
        if self.last < 0:
            return 0.0
        return sum(line.get("wall_seconds") or 0.0 for line in run.lines if self.after < line["round"] <= self.last)


def _require_time(plan: _Walk, run: Replayable, seconds: float, rounds: Sequence[int]) -> None:
    """Refuse to play rounds again that take longer than is allowed.

    Raises:
        UserError: they do.
    """
    if (needed := plan.seconds(run)) > seconds:
        what = f"{len(rounds)} states were" if len(rounds) > 1 else f"the state of round {rounds[0]} was"
        problem = f"is {seconds:g}, and {what} not kept: playing the run again takes about {needed:.0f} s"
        fix = f"Allow it: seconds={math.ceil(needed * 1.5)}; or set run.keep_parameters_every for the next run."
        raise UserError("seconds", problem, fix=fix)


def _path_rounds(
    session: Session, run: Replayable, kept: list[int], last: int, wanted: Wanted
) -> tuple[tuple[int, ...], str]:
    """Return the rounds of the path, evenly spaced, and a sentence where they are few.

    They are the kept ones where these are enough, or where others take too long and the plane does not need them.
    """
    model = session.start.params.nbytes + session.start.buffers.nbytes
    most = max(2, min(MOST_STATES, PATH_BYTES // max(1, model)))
    first, note = max(run.first, 0), ""
    enough = len(kept) >= min(ENOUGH, last - first + 1) and kept[0] <= first and kept[-1] == last
    rounds = kept if enough else list(range(first, last + 1))
    few = bool(kept) and (len(kept) >= ENOUGH or not wanted.path_needed)
    if not enough and few and (needed := _Walk.of(run, rounds).seconds(run)) > wanted.seconds:
        rounds = kept
        note = (
            f"The path has the {len(kept)} kept states alone: playing the run again takes about {needed:.0f} s, and "
            f"{wanted.seconds:g} s are allowed."
        )
    return tuple(rounds[k] for k in evenly_spaced(len(rounds), most)), note


def _checked(round_index: int, last: int) -> int:
    if not 0 <= round_index <= last:
        raise UserError("round", f"must be from 0 to {last}, the last recorded round, got {round_index}")
    return round_index


def _kept_model(task: LearningTask, folder: RunFolder, round_index: int) -> Model:
    """Return the kept model of a round: of its parameters, or of its checkpoint."""
    if round_index in folder.parameters.rounds():
        return model_of(folder.parameters.read(round_index), task, _round_name(round_index))
    tensors = checkpoint_of(folder, round_index).tensors
    return Model(_round_name(round_index), tensors["parameters"], tensors["buffers"])


def model_of(tensors: Mapping[str, Tensor], task: LearningTask, name: str) -> Model:
    """Return a state dict as a model.

    Raises:
        UserError: it lacks a tensor of the model, or has one of another shape.
    """

    def vector(layout: Layout) -> Tensor:
        for key, shape in zip(layout.names, layout.shapes, strict=True):
            if key not in tensors or tuple(tensors[key].shape) != shape:
                there = f"{tuple(tensors[key].shape)}" if key in tensors else "none"
                raise UserError("states", f"{name} has {there} for {key!r}, where the run's model has {shape}")
        if not layout.names:
            return torch.zeros(0, dtype=task.dtype)
        return layout.flatten({key: tensors[key].detach().cpu().to(task.dtype) for key in layout.names})

    return Model(name, vector(task.parameters), vector(task.buffers))


def round_of(state: State, last: int) -> int | None:
    """Return the round of the run that a state is, None for any other state.

    Example:
        >>> round_of("40", 100), round_of("last", 100), round_of("runs/B", 100)
        (40, 100, None)
    """
    if isinstance(state, str):
        known = {"first": 0, "last": last}
        return known.get(state, int(state) if state.isdigit() else None)
    return state if isinstance(state, int) and not isinstance(state, bool) else None


def other_model(state: State, session: Session, folder: RunFolder) -> Model:
    """Return a state that is no round of the run as a model.

    Raises:
        UserError: it is none, or of another model.
        RunFolderError: its file cannot be read.
    """
    task = session.task
    if isinstance(state, str) and state == "best":
        file = folder.path / "model.best.safetensors"
        if not file.is_file():
            raise RunFolderError(str(file), "does not exist", fix="Name a round, or 'last'.")
        return model_of(model_tensors(file), task, "the best model")
    if isinstance(state, nn.Module):
        return model_of(state.state_dict(), task, type(state).__name__)
    if isinstance(state, Tensor):
        if tuple(state.shape) != (task.parameters.size,):
            problem = f"must be parameters ({task.parameters.size},), got a tensor {tuple(state.shape)}"
            raise UserError("states", problem)
        return Model("given parameters", state.detach().to(task.dtype), session.start.buffers)
    if isinstance(state, Mapping):
        return model_of(state, task, "the given state dict")
    if isinstance(state, str | PathLike):
        other = RunFolder.open(Path(state))
        if not other.model.is_file():
            raise RunFolderError(str(other.model), "does not exist", fix="The run is not over: resume it first.")
        return model_of(model_tensors(other.model), task, other.path.resolve().name)
    allowed = "a round, 'first', 'best', 'last', a run's folder, a module, a state dict or a tensor"
    raise UserError("states", f"must be {allowed}, got {state!r:.60}")


def _round_name(round_index: int) -> str:
    return f"round {round_index}"
