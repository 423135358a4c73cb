"""Measures the error surface of a recorded run: `fs.surface(run)`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from flwr.clientapp import ClientApp
from torch import Tensor

from clients.core.arrays import F64, I64
from clients.core.errors import StrategyError, UserError
from clients.core.numbers.spacing import evenly_spaced
from clients.engines.many.examples import ExampleSet, objective_examples, validation_examples
from clients.engines.many.losses import ManyModels
from clients.engines.native.threads import threads_restored
from clients.flower.shim import quiet
from server.algorithms.algorithm import Algorithm
from simulator.engines.devices import device_restored
from simulator.replay.replaying import open_again
from simulator.replay.verify import opened
from simulator.runs.arguments.checks import check_parts
from simulator.runs.building import DataLike, ModelLike, Overrides
from simulator.runs.experiment import objective_shares
from simulator.runs.record import Record
from simulator.runs.run import Run
from simulator.runs.session import Session
from simulator.runs.strategies import StrategyChoice
from simulator.surface.curvature import Eigenvalues, top_eigenvalues
from simulator.surface.grids import PlaneGrid, grid_around, unit_grid
from simulator.surface.lines import line_between
from simulator.surface.planes import Plane, plane_through, principal_plane, random_plane, share_of_variance
from simulator.surface.request import EXAMPLES, SECONDS, SurfaceRequest, path_of, request_of
from simulator.surface.result import Points, Surface
from simulator.surface.states import Model, ServerStates, State, Wanted, other_model, round_of, states_of
from simulator.surface.walking import ClientEnds

LINE_MODELS = 51
EIGENVALUES = 5


@threads_restored()
@device_restored()
def surface(
    run: Run | Record | Path | str,
    plane: str | Sequence[State] = "path",
    *,
    size: int = 41,
    of: str = "objective",
    round: int | None = None,
    line: Sequence[State] = (),
    hessian: int = 0,
    seconds: float = SECONDS,
    examples: int = EXAMPLES,
    model: ModelLike | None = None,
    data: DataLike | None = None,
    algorithm: Algorithm | None = None,
    strategy: StrategyChoice | None = None,
    client_app: ClientApp | None = None,
) -> Surface:
    """Measure the loss of a recorded run over a plane of parameters. The folder does not change; `write()` adds it.

    All models of the grid are measured on the same examples, a block of models in one tensor program. States that the
    run kept (`run.keep_parameters_every`, `run.keep_checkpoints_every`) are read; the others are played again, with
    their bits.

    Args:
        run: the run, or its folder.
        plane: "path", the principal plane of the server's path about its last state; "clients", that of the clients'
            ends in a round about the state they start from; "random", two directions with the norms of the last
            state's filters (Li et al. 2018); or three states, as in `line`.
        size: models along each axis, 3 to 201.
        of: "objective", sum p_k F_k over the clients' training data with the run's penalties; or "validation", the
            loss on the central validation examples.
        round: the round whose data count, and whose clients' ends are shown; the last one by default.
        line: two states, between which the loss is measured too: a round, "first", "best", "last", the folder of
            another run (its final model), a module, a state dict, or a tensor of parameters [P].
        hessian: in how many rounds of the path the five largest eigenvalues of the Hessian are found.
        seconds: how long rounds of the run may be played again, by the recorded time.
        examples: so many examples are drawn where the loss has more.
        model: the one passed to `simulate`, if any.
        data: likewise.
        algorithm: likewise.
        strategy: likewise.
        client_app: likewise.

    Raises:
        UserError: an argument is not valid; a state was not kept, and playing the rounds again takes longer than
            `seconds`; or the plane has no directions.
        RunFolderError: the folder cannot be read, or parts from Python are missing.
    """
    quiet()
    started = time.perf_counter()
    check_parts(model=model, data=data, algorithm=algorithm, strategy=strategy, client_app=client_app)
    found = opened(path_of(run), Overrides(model, data, algorithm, strategy, client_app))
    request = request_of(found, plane, size, of, round, line, hessian, seconds, examples)
    session, reasons = open_again(found, request.last)
    with closing(session):
        return _Measurement(session, request).surface(started, reasons)


class _Measurement:
    """Measures one surface in an open session."""

    def __init__(self, session: Session, request: SurfaceRequest) -> None:
        self.session, self.request = session, request
        self.many = ManyModels(session.task)
        self.examples = self._examples()

    def _examples(self) -> ExampleSet:
        task, request = self.session.task, self.request
        if request.of == "validation":
            return validation_examples(task, request.round_index, request.examples)
        try:
            shares = objective_shares(self.session)
        except StrategyError as error:
            problem = f"is 'objective', which {error.problem}"
            raise UserError("of", problem, fix="Use of='validation'.") from error
        return objective_examples(task, shares, request.round_index, request.examples)

    def surface(self, started: float, reasons: Sequence[str]) -> Surface:
        """Find the states, lay the plane, and measure."""
        request = self.request
        named = [*request.through, *request.line]
        rounds = [r for r in (round_of(state, request.last) for state in named) if r is not None]
        wanted = Wanted(
            rounds=rounds,
            path_needed=request.plane == "path",
            ends=request.round_index or None,
            ends_needed=request.plane == "clients",
            seconds=request.seconds,
        )
        states = states_of(self.session, request.run, wanted)
        models = [self._model(state, states) for state in named]
        through, pair = models[: len(request.through)], models[len(request.through) :]
        server = [states.models[r] for r in states.path]
        server = [one for one in server if torch.isfinite(one.params).all()]
        if not server:
            raise UserError("run", "has no state with finite parameters", fix="Lower local.local_lr.")
        rounds_of = np.array([r for r in states.path if torch.isfinite(states.models[r].params).all()], np.int64)
        plane, origin = self._plane(server, states.ends, through)
        track, ends, marks = self._around(plane, server, rounds_of, states.ends, through)
        grid = self._grid(plane, [one for one in (track, ends, marks) if one is not None])
        loss = self._over(plane, grid, origin)
        line = line_between(self.many, (pair[0], pair[1]), self.examples, LINE_MODELS) if pair else None
        return Surface(
            path=request.run.folder.path,
            plane=request.plane,
            of=request.of,
            round_index=request.round_index,
            x=grid.x,
            y=grid.y,
            loss=loss,
            directions=plane,
            server=track,
            share=share_of_variance(plane, _stacked(server)[0]),
            ends=ends,
            start=plane.project(states.ends.start.params[None])[0][0] if states.ends is not None else None,
            states=marks,
            line=line,
            curvature=self._curvature(server, rounds_of),
            examples=(self.examples.used, len(self.examples)),
            program=self._program(),
            seconds=time.perf_counter() - started,
            notes=self._notes(states, plane, origin, reasons),
        )

    def _model(self, state: State, states: ServerStates) -> Model:
        round_index = round_of(state, self.request.last)
        if round_index is not None:
            return states.models[round_index]
        return other_model(state, self.session, self.request.run.folder)

    def _plane(self, server: list[Model], ends: ClientEnds | None, through: list[Model]) -> tuple[Plane, Model]:
        """Return the plane, and the model whose buffers all of its points have."""
        layout, seed = self.session.task.parameters, self.session.task.seed
        last = server[-1]
        if self.request.plane == "states":
            return plane_through(torch.stack([one.params for one in through])), through[0]
        if self.request.plane == "random":
            return random_plane(last.params, layout, seed=seed), last
        if self.request.plane == "clients":
            assert ends is not None, "they are needed"
            start = ends.start
            plane = principal_plane(ends.params, start.params, start.params, layout, seed=seed)
            return plane, Model(f"round {start.round_index}", start.params, start.buffers)
        path = _stacked(server)[0]
        return principal_plane(path, path.double().mean(0), last.params, layout, seed=seed), last

    def _around(
        self, plane: Plane, server: list[Model], rounds: I64, ends: ClientEnds | None, through: list[Model]
    ) -> tuple[Points, Points | None, Points | None]:
        """Return the server's path, the clients' ends and the three states, as points beside the plane."""
        track = self._points(plane, [one.name for one in server], rounds, _stacked(server))
        found, marks = None, None
        if ends is not None:
            known = [self.session.population.federation.client_name(k) for k in ends.clients.tolist()]
            found = self._points(plane, known, ends.clients, (ends.params, ends.buffers))
        if through:
            none = np.zeros(0, np.int64)
            marks = self._points(plane, [one.name for one in through], none, _stacked(through))
        return track, found, marks

    def _points(self, plane: Plane, names: Sequence[str], numbers: I64, stack: tuple[Tensor, Tensor]) -> Points:
        params, buffers = stack
        places, away = plane.project(params)
        loss = self.many.losses(
            len(params), lambda start, end: (params[start:end], buffers[start:end]), self.examples
        ).numpy()
        return Points(tuple(names), numbers, places, away, loss)

    def _grid(self, plane: Plane, points: Sequence[Points]) -> PlaneGrid:
        if self.request.plane == "random":
            return unit_grid(self.request.size)
        return grid_around(np.concatenate([one.places for one in points]), self.request.size)

    def _over(self, plane: Plane, grid: PlaneGrid, origin: Model) -> F64:
        """Return the loss at all places of a grid, [size, size]."""
        size = self.request.size

        def models(start: int, end: int) -> tuple[Tensor, Tensor]:
            return plane.points(grid.places(start, end)), origin.buffers.expand(end - start, -1)

        found: F64 = self.many.losses(size * size, models, self.examples).numpy().reshape(size, size)
        return found

    def _curvature(self, server: list[Model], rounds: I64) -> dict[int, Eigenvalues]:
        count = min(self.request.hessian, len(server))
        chosen = evenly_spaced(len(server), count) if count != 1 else [-1]
        return {int(rounds[k]): top_eigenvalues(server[k], self.examples, EIGENVALUES) for k in chosen}

    def _program(self) -> str:
        if self.many.program == "one by one":
            return "one model after another"
        block = self.many.block(self.examples.used)
        return f"up to {min(block, self.request.size**2):,} models at once"

    def _notes(self, states: ServerStates, plane: Plane, origin: Model, reasons: Sequence[str]) -> tuple[str, ...]:
        found = [*states.notes, plane.note]
        used, there = self.examples.used, len(self.examples)
        if used < there:
            found.append(f"The loss is over {used:,} examples, drawn from {there:,}; all models are measured on these.")
        if states.ends is not None and states.ends.cohort > len(states.ends.clients):
            lost = f": the ends of {states.ends.lost} are not finite" if states.ends.lost else ""
            shown = f"{len(states.ends.clients)} of the {states.ends.cohort} clients of the round are shown"
            found.append(f"{shown}{lost}.")
        if self.session.task.buffers.size:
            found.append(f"All points of the plane have the buffers (such as batch statistics) of {origin.name}.")
        if self.many.reason:
            found.append(f"Models were measured one after another: {self.many.reason}.")
        if states.again and reasons:
            found.append(f"States that were played again may differ in their last bits: {'; '.join(reasons)}.")
        return tuple(filter(None, found))


def _stacked(models: Sequence[Model]) -> tuple[Tensor, Tensor]:
    return torch.stack([one.params for one in models]), torch.stack([one.buffers for one in models])
