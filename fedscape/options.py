"""The option classes of a scenario, one for each section and each kind, to build a scenario in Python.

    import fedscape as fs
    from fedscape.options import DigitsOptions, FedProxOptions, IidOptions, MlpOptions

    scenario = fs.load_scenario(
        {
            "data": DigitsOptions(),
            "partition": IidOptions(clients=20),
            "model": MlpOptions(hidden=(32,)),
            "algorithm": FedProxOptions(mu=0.1, cohort=5),
            "run": {"rounds": 10},  # a section may also be a plain table
        }
    )

`fs.Scenario(data=DigitsOptions(), ...)` takes the same objects. `dir(fedscape.options)` lists the classes; their
docstrings describe the keys, as the page of scenario keys does.
"""

from difflib import get_close_matches
from functools import cache
from typing import Any


@cache
def _classes() -> dict[str, type]:
    """Return the option classes by name, found from the sections of a scenario."""
    from simulator.scenario.kinds import classes_of, hints_of
    from simulator.scenario.sections import Scenario

    found: dict[str, type] = {}
    waiting = [cls for hint in hints_of(Scenario).values() for cls in classes_of(hint)]
    while waiting:
        cls = waiting.pop()
        if found.setdefault(cls.__name__, cls) is cls:
            waiting += [c for h in hints_of(cls).values() for c in classes_of(h) if c.__name__ not in found]
    return found


def __getattr__(name: str) -> Any:
    """Return an option class by name (PEP 562)."""
    if name.startswith("__"):
        raise AttributeError(name)
    classes = _classes()
    if name not in classes:
        near = get_close_matches(name.lower(), [known.lower() for known in classes], n=1, cutoff=0.4)
        nearest = [known for known in classes if known.lower() in near]
        more = f" Nearest: {nearest[0]}." if nearest else ""
        raise AttributeError(f"module 'fedscape.options' has no class {name!r}.{more} dir(fedscape.options) lists all")
    return classes[name]


def __dir__() -> list[str]:
    """Return the names of the option classes."""
    return sorted(_classes())
