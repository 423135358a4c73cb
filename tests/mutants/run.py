"""Change the mathematics one line at a time, and list the changes that no test notices.

`make mutants` runs mutmut over the modules of `[tool.mutmut]` in pyproject.toml: each change is one operator, number or
argument of a function, and the tests that reach the function run against it. A change that all of them accept is a
survivor. `survivors.txt` lists the known ones, each with the reason why it stays: most compute the same numbers in
another way. The command fails on a survivor that is not in the list, and on an entry that has none.

To kill a survivor, write a test of the right value; `mutmut show NAME` prints the change. To keep one, add the block
that this command prints, with a reason.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).with_name("survivors.txt")
_MUTMUT = (sys.executable, "-m", "mutmut")


@dataclass(frozen=True, order=True)
class Mutant:
    """A change of one function.

    Attributes:
        place: module and function; line numbers would move with each edit.
        lines: the lines taken away and added, each with its sign.
    """

    place: str
    lines: tuple[str, ...]

    def block(self, reason: str) -> str:
        """Return its entry of the list."""
        return "\n".join((self.place, *self.lines, f"why: {reason}")) + "\n"


def survivors() -> Iterator[Mutant]:
    """Yield the mutants of the last run that no test noticed."""
    results = subprocess.run([*_MUTMUT, "results"], check=True, capture_output=True, text=True).stdout
    for name, status in re.findall(r"^\s*(\S+__mutmut_\d+): (.+)$", results, flags=re.MULTILINE):
        if status in ("survived", "no tests"):
            diff = subprocess.run([*_MUTMUT, "show", name], check=True, capture_output=True, text=True).stdout
            changed = [line for line in diff.splitlines() if re.match(r"[-+](?!--|\+\+)", line)]
            yield Mutant(_place(name), tuple(line[0] + " " + line[1:].strip() for line in changed))


def _place(name: str) -> str:
    """Return 'module.function' or 'module.Class.method' of mutmut's name, which marks functions by x and ǁ."""
    module, _, function = name.rpartition("__mutmut_")[0].rpartition(".")
    return f"{module}.{function.removeprefix('x_').removeprefix('xǁ').replace('ǁ', '.')}"


def known() -> list[Mutant]:
    """Read the list: blocks with an empty line between them, and comments that begin with #."""
    found = []
    text = "\n".join(line for line in LIST.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    for block in filter(None, map(str.strip, text.split("\n\n"))):
        place, *lines = block.splitlines()
        reason = lines.pop()
        if not re.fullmatch(r"why: \S.*", reason):
            raise SystemExit(
                f"{LIST.name}: the entry of {place} ends in {reason!r}; its last line must be 'why: REASON'"
            )
        found.append(Mutant(place, tuple(lines)))
    return found


def _print(title: str, mutants: Iterable[Mutant], reason: str) -> None:
    listed = list(mutants)
    if listed:
        print(f"\n{title}: {len(listed)}\n")
        for mutant in sorted(listed):
            print(mutant.block(reason))


def main(names: list[str]) -> int:
    """Run mutmut, on the mutants whose names match `names` if there are any, and compare with the list."""
    if subprocess.run([*_MUTMUT, "run", *names], check=False).returncode:
        return 1
    alive, listed = Counter(survivors()), Counter(known())
    fresh, gone = alive - listed, listed - alive
    _print("survivors that are not in the list", fresh.elements(), "...")
    if not names:
        _print("entries of the list that a test kills now, or whose code has changed", gone.elements(), "delete this")
    print(f"{alive.total()} survivors, {fresh.total()} of them not in the list")
    return 1 if fresh or (gone and not names) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
