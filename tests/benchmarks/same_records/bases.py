"""The base scenarios of the cases of `same_records`, written out so that they do not depend on files of a tree."""

from __future__ import annotations

_TAIL = """
[evaluation]
federated_every = 2
gradient_every = 2
[convergence]
stop = "never"
[run]
rounds = 5
seed = 5
"""
_TRAINED = (
    """
[local]
local_lr = 0.1
batch_size = 16
local_epochs = 1
[algorithm]
kind = "fedavg"
cohort = 5
"""
    + _TAIL
)


def _base(data: str, model: str) -> str:
    return f"[data]\n{data}\n[model]\n{model}\n{_TRAINED}"


_WORLD = "\n[world]\ndistricts = 4\ndays = 14\nstorms_per_month = 8.0\n"
_DIGITS = "kind = 'digits'\n[partition]\nkind = 'dirichlet'\nclients = 8\nconcentration = 0.5"
_QUADRATIC = """
[data]
kind = "quadratic"
clients = 6
dimension = 3
noise = 0.1
weights = [3, 4, 5, 6, 7, 8]
[model]
kind = "quadratic"
[local]
optimizer = "gd"
local_lr = 0.05
local_steps = 4
[algorithm]
kind = "fedavg"
cohort = 4
"""
_MLP = "kind = 'mlp'\nhidden = [12]"
BASES = {
    "digits": _base(_DIGITS, _MLP),
    "synthetic": _base("kind = 'synthetic'\nalpha = 1.0\nbeta = 1.0\nclients = 8\nsizes = 40", "kind = 'softmax'"),
    "quadratic": _QUADRATIC + _TAIL,
    "traffic": _base("kind = 'traffic'\nclients = 8\nstep_minutes = 60" + _WORLD, _MLP),
    "meters": _base("kind = 'meters'\nclients = 8\nstride = 12" + _WORLD.replace("14", "35"), _MLP),
    "air": _base("kind = 'air'\nclients = 8\npollutant = 'o3'" + _WORLD, _MLP),
    "bridge": _base("kind = 'bridge'\nclients = 8\nwindows = 30\ndamage = 3.0" + _WORLD, _MLP),
    "intrusion": _base("kind = 'intrusion'\nclients = 10\nwindows = 40\ncampaigns_per_month = 8.0" + _WORLD, _MLP),
    "activity": _base("kind = 'activity'\nclients = 8\nwindows = 30" + _WORLD, _MLP),
    "wide": _base("kind = 'table'\npath = 'wide.csv'\nwindow = 6\nhorizon = 2", _MLP),
    "long": _base(
        "kind = 'table'\npath = 'long.csv'\nlayout = 'long'\nid_column = 'site'\ntarget = 'level'\n"
        "features = ['warmth']\nwindow = 6\ngaps = 'interpolate'",
        _MLP,
    ),
    "labelled": _base(
        "kind = 'table'\ntask = 'classification'\npath = 'labelled.csv'\nid_column = 'site'\ntarget = 'state'\n"
        "gaps = 'mean'",
        _MLP,
    ),
    "images": _base("kind = 'images'\npath = 'images.npz'\n[partition]\nkind = 'iid'\nclients = 6", "kind = '2nn'"),
    "python": _TRAINED,
}
"""Scenarios by name. Those of tables and images read files that `parts.write_files` makes."""
