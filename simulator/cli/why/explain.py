"""The command that explains a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clients.core.errors import UserError, listed
from clients.core.shown.text import presentable
from simulator.cli.exit_codes import EXIT_INTERRUPTED
from simulator.cli.observing import TOKEN, grafana_token
from simulator.cli.study.interrupting import two_step_interrupt, without_collections

if TYPE_CHECKING:
    from server.diagnosis.finding import Finding
    from simulator.explaining.explain import Explanation


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.", show_default=False)],
    try_it: Annotated[
        bool, typer.Option("--try", help="Play the run again with the suggested change, and say whether it helped.")
    ] = False,
    cause: Annotated[
        str | None,
        typer.Option("--cause", metavar="KIND", help="The cause whose change --try plays.", show_default="the first"),
    ] = None,
    record_only: Annotated[
        bool, typer.Option("--record-only", help="Read the record alone: no data are made and nothing is trained.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="The folder of the run of --try.", show_default="RUN-CAUSE"),
    ] = None,
    grafana: Annotated[
        str | None,
        typer.Option(
            "--grafana",
            metavar="URL",
            help=f"Annotate the findings in this Grafana, with the token in {TOKEN}.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the explanation as JSON.")] = False,
) -> None:
    """Say why a run did not converge as it should: causes with evidence, the most likely first, and what to try.

    Looks at data and gradients of up to 50 clients and plays 13 to 25 rounds from the first and the last model.
    The run's report shows the result.

    Examples:
    $ fedscape explain runs/A
    $ fedscape explain runs/A --try
    $ fedscape explain runs/A --try --cause rate_too_high
    $ fedscape explain runs/A --grafana http://127.0.0.1:3000
    """
    token = _token_for(grafana)
    with without_collections():
        from dashboards.report.report import write_report
        from simulator.explaining.explain import as_table
        from simulator.explaining.explain import explain as find

    found = find(run, looks=not record_only)
    print(json.dumps(as_table(found), indent=2) if as_json else found)
    report = write_report([run])
    if not as_json:
        print(f"report: {report}")
    if grafana is not None and token is not None:
        _annotate(run, grafana, token, is_quiet=as_json)
    if try_it:
        _try(run, found, cause, out)


def _token_for(grafana: str | None) -> str | None:
    """Return the token of a Grafana, before anything takes time.

    Raises:
        UserError: there is none, or the URL is not valid.
    """
    if grafana is None:
        return None
    from dashboards.grafana.server import connect

    token = grafana_token()
    with connect(grafana, token, option="--grafana"):
        return token


def _annotate(run: Path, grafana: str, token: str, *, is_quiet: bool) -> None:
    """Annotate the findings in Grafana; a Grafana that refuses or is gone costs a line, not the explanation."""
    from dashboards.grafana.push import annotate, findings, run_id_of
    from dashboards.grafana.server import connect
    from server.record.records import RunFolder

    folder = RunFolder.open(run)
    run_id, found = run_id_of(folder), findings(folder)
    try:
        with connect(grafana, token) as server:
            for what, done in annotate(server, run_id, found):
                if not is_quiet:
                    print(f"{done:<10}{what}")
    except UserError as error:
        again = presentable(f"`fedscape dashboards push --url {error.field} --run {run}` annotates them later")
        print(f"fedscape: findings were not annotated: {error.field} {error.problem}. {again}.", file=sys.stderr)


def _try(run: Path, found: Explanation, cause: str | None, out: Path | None) -> None:
    from simulator.cli.console import ConsoleObserver
    from simulator.explaining.trying import try_change

    finding = _chosen(found, cause)
    if finding is None:
        print("Nothing to try.")
        return
    with two_step_interrupt() as stop_asked:
        stopped = False

        def asked() -> bool:
            nonlocal stopped
            stopped = stopped or stop_asked()
            return stopped

        tried = try_change(run, finding, out=out, observers=[ConsoleObserver()], stop_asked=asked)
    print(tried)
    print(f"run with the change: {tried.path}")
    if stopped:
        raise typer.Exit(EXIT_INTERRUPTED)


def _chosen(found: Explanation, cause: str | None) -> Finding | None:
    """Return the named finding, or the first that has a change of the scenario.

    Raises:
        UserError: no finding has this name.
    """
    able = [finding for finding in found.findings if finding.change is not None and finding.change.sets]
    if cause is None:
        return able[0] if able else None
    named = [finding for finding in able if finding.kind == cause]
    if not named:
        kinds = listed([finding.kind for finding in able])
        raise UserError(
            "cause", f"{cause!r} is no cause that was found and has a change to try", fix=f"Found: {kinds or 'none'}."
        )
    return named[0]
