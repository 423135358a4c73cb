"""The error surface as a result: arrays, a file in the run's folder, an archive of arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clients.core.arrays import F64, I64
from clients.core.errors import UserError
from clients.core.shown.text import presentable
from dashboards.report.report import write_report
from server.record.files import place_for, whole_file
from server.record.recorder import sole_writer
from server.record.records import RunFolder
from simulator.surface.curvature import Eigenvalues
from simulator.surface.lines import Line
from simulator.surface.planes import Plane

LAYOUT = 1
"""The version of surface.json."""


@dataclass(frozen=True)
class Points:
    """States beside a surface: their places in its plane, and their own losses.

    Attributes:
        names: what each one is.
        numbers: the round or the client of each, int64 (n,); empty where they have none.
        places: x and y of the nearest points of the plane, float64 (n, 2).
        away: distances from these points, float64 (n,).
        loss: at the states themselves, not at the nearest points, float64 (n,).
    """

    names: tuple[str, ...]
    numbers: I64
    places: F64
    away: F64
    loss: F64

    def to_dict(self) -> dict[str, Any]:
        """Return the points as JSON values."""
        return {
            "names": list(self.names),
            "numbers": self.numbers.tolist(),
            "x": self.places[:, 0].tolist(),
            "y": self.places[:, 1].tolist(),
            "away": self.away.tolist(),
            "loss": _finite(self.loss),
        }


@dataclass(frozen=True)
class Surface:
    """The loss over a plane of parameters, with the server's path and the clients' ends beside it.

    Attributes:
        path: the run's folder.
        plane: "path", "clients", "random" or "states".
        of: "objective" or "validation".
        round_index: the round whose data the loss is of, and whose clients' ends are shown.
        x: places along the first axis, float64 (size,): distances between parameters, but for a random plane.
        y: places along the second axis.
        loss: float64 [size, size]: `loss[j, i]` is at x[i], y[j].
        directions: the origin and the two axes in the space of parameters.
        server: the server's path, by round.
        share: the share of the path's variance that lies along the plane's directions; None where it does not move.
        ends: the clients' ends; None where they are left out.
        start: the place of the state from which those clients start, float64 (2,); None without ends.
        states: the states that define a plane through states; None for other planes.
        line: the loss along a line; None where none is wanted.
        curvature: round -> the largest eigenvalues of the Hessian; empty where they are not wanted.
        examples: how many examples the loss is over, and of how many they were drawn.
        program: how models were computed, in words.
        seconds: what it took.
        notes: what is left out or was done, a sentence each.
    """

    path: Path
    plane: str
    of: str
    round_index: int
    x: F64
    y: F64
    loss: F64
    directions: Plane
    server: Points
    share: float | None
    ends: Points | None
    start: F64 | None
    states: Points | None
    line: Line | None
    curvature: Mapping[int, Eigenvalues]
    examples: tuple[int, int]
    program: str
    seconds: float
    notes: Sequence[str] = ()

    def __repr__(self) -> str:
        """Return the folder, the plane and the size."""
        return f"<Surface of {self.path}: {self.plane} plane, {len(self.x)} x {len(self.y)}, {self.of}>"

    def __str__(self) -> str:
        """Return what was measured, a line each."""
        known = self.loss[np.isfinite(self.loss)]
        spread = f"from {known.min():.4g} to {known.max():.4g}" if known.size else "not finite"
        used, there = self.examples
        count = f"{used:,} examples" if used == there else f"{used:,} of {there:,} examples"
        lines = [
            f"{self.of} over {self.loss.size:,} models of the {self.plane} plane, on {count}: {spread}"
            f" ({self.seconds:.1f} s, {self.program})"
        ]
        if self.share is not None:
            lines.append(f"the plane holds {100 * self.share:.1f}% of the variance of the server's path")
        if self.line is not None:
            lines.append(str(self.line))
        lines += [
            f"largest eigenvalues in round {r}: {', '.join(f'{v:.4g}' for v in found.values)}"
            for r, found in self.curvature.items()
        ]
        return "\n".join(map(presentable, [*lines, *self.notes]))

    def to_dict(self) -> dict[str, Any]:
        """Return the surface as JSON values, without the directions; what is not finite is null."""
        line = self.line
        return {
            "layout": LAYOUT,
            "plane": self.plane,
            "of": self.of,
            "round": self.round_index,
            "x": self.x.tolist(),
            "y": self.y.tolist(),
            "loss": [_finite(row) for row in self.loss],
            "server": self.server.to_dict(),
            "share": self.share,
            "ends": self.ends.to_dict() if self.ends is not None else None,
            "start": self.start.tolist() if self.start is not None else None,
            "states": self.states.to_dict() if self.states is not None else None,
            "line": None
            if line is None
            else {
                "ends": list(line.ends),
                "t": line.t.tolist(),
                "loss": _finite(line.loss),
                "barrier": line.barrier if math.isfinite(line.barrier) else None,
                "distance": line.distance,
            },
            "curvature": [
                {"round": r, "values": found.values.tolist(), "errors": found.errors.tolist(),
                 "smallest": found.smallest}
                for r, found in self.curvature.items()
            ],
            "examples": list(self.examples),
            "program": self.program,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }  # fmt: skip

    def write(self) -> Path:
        """Write surface.json into the run's folder, and its report anew; return the report.

        Raises:
            RunFolderError: the run still goes on, or a file cannot be written.
        """
        folder = RunFolder.open(self.path)
        with sole_writer(folder.path):
            folder.write_surface(self.to_dict())
            return write_report([folder.path])

    def to_npz(self, file: Path | str) -> Path:
        """Write all arrays, with the directions, to an archive for `numpy.load`; return the file.

        Raises:
            UserError: `file` is a folder, or does not end in .npz.
        """
        file = Path(file)
        place_for(file, "surface.npz")
        if file.suffix != ".npz":
            raise UserError("file", f"must end in .npz, got {file.name!r}")
        arrays: dict[str, Any] = {"x": self.x, "y": self.y, "loss": self.loss}
        arrays |= {"origin": self.directions.origin.numpy(), "axes": self.directions.axes.numpy()}
        for name, points in (("server", self.server), ("ends", self.ends), ("states", self.states)):
            if points is not None:
                arrays |= {f"{name}_{key}": getattr(points, key) for key in ("numbers", "places", "away", "loss")}
        if self.line is not None:
            arrays |= {"line_t": self.line.t, "line_loss": self.line.loss}
        with whole_file(file) as handle:
            np.savez(handle, **arrays)
        return file


def _finite(values: F64) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]
