"""A study as a table for LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dashboards.report.compared_measures import Measure
from dashboards.report.formats import is_number
from dashboards.statistics.comparing import Comparison

if TYPE_CHECKING:
    import pandas as pd

_ESCAPED = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "≥": r"$\geq$", "≤": r"$\leq$", "×": r"$\times$",
})  # fmt: skip


def latex(ranking: pd.DataFrame, comparisons: Sequence[Comparison], measure: Measure) -> str:
    r"""Return a table of the ranking, with the comparisons as notes below it.

    Args:
        ranking: the arms, the best first, as `Study.ranking` returns them.
        comparisons: of the study's question.
        measure: what is compared.
    """
    lines = [
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        rf"arm & median {escaped(measure.name)} & mean & runs \\",
        r"\midrule",
    ]
    for row in ranking.to_dict("records"):
        runs = str(row["runs"]) + (f" ({row['missed']} missed)" if row["missed"] else "")
        lines.append(
            rf"{escaped(row['arm'])} & {_shown(measure, row['median'])} & {_shown(measure, row['mean'])} & {runs} \\"
        )
    lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join([*lines, *(f"% {one.sentence}" for one in comparisons), ""])


def escaped(text: str) -> str:
    r"""Return a text for LaTeX.

    Example:
        >>> print(escaped("local_lr 5%"))
        local\_lr 5\%
    """
    return text.translate(_ESCAPED)


def _shown(measure: Measure, value: object) -> str:
    return escaped(measure.shown(float(value))) if is_number(value) else "--"
