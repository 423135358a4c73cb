"""The processes of torchrun, on one machine and as two machines on the loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fedscape as fs

SETS = ("run.rounds=5", "engine.kind=stacked", "engine.tile=10", "engine.compile=never", "algorithm.kind=scaffold",
        "evaluation.gradient_every=2", "evaluation.federated_every=2", "convergence.stop=never")  # fmt: skip
RUN = ["run", "digits-label-skew", *(f"--set={s}" for s in SETS)]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def torchrun(*arguments: str, nodes: int = 1, each: int = 1) -> list[str]:
    """Start torchrun once for each node, wait for all, and return what each printed."""
    port = free_port()
    started = []
    for node in range(nodes):
        options = [f"--nnodes={nodes}", f"--nproc-per-node={each}", f"--node-rank={node}",
                   "--master-addr=127.0.0.1", f"--master-port={port}"]  # fmt: skip
        command = [sys.executable, "-m", "torch.distributed.run", *options, *arguments]
        started.append(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        )
    printed = [process.communicate(timeout=180)[0] for process in started]
    assert [process.returncode for process in started] == [0] * nodes, "\n".join(printed)
    return printed


def numbers_of(path: Path) -> tuple[torch.Tensor, list[dict[str, float]]]:
    run = fs.open_run(path)
    params = torch.cat([value.flatten() for value in run.model().state_dict().values()])
    keys = ("validation_loss", "train_loss", "update_dispersion", "gradient_norm", "federated_loss")
    return params, [{key: line[key] for key in keys if line.get(key) is not None} for line in run.rounds.lines]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "run"
    fs.simulate(fs.load_scenario("digits-label-skew", sets=[*SETS, "engine.workers=1"]), out=out)
    return numbers_of(out)


@pytest.mark.parametrize(("nodes", "each"), [(1, 3), (2, 1)])
def test_torchrun_gives_the_numbers_of_one_process(tmp_path, one_process, nodes, each):
    printed = torchrun("-m", "simulator.cli", *RUN, "--out", str(tmp_path / "run"), nodes=nodes, each=each)
    params, lines = numbers_of(tmp_path / "run")
    assert (params - one_process[0]).abs().max() < 1e-6
    for found, expected in zip(lines, one_process[1], strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    assert sum(text.count("fedscape 0.") for text in printed) == 1, "rank 0 alone prints"
    assert fs.open_run(tmp_path / "run").rounds.lines[1]["workers"]["count"] == nodes * each


def test_script_under_torchrun_has_the_run_of_rank_0_in_every_process(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, torch, fedscape as fs\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.Linear(64, 10)\n"
        "    def forward(self, x):\n"
        "        return self.layer(x)\n"
        "for seed in (1, 2):\n"
        f"    scenario = fs.load_scenario('digits-label-skew', sets={list(SETS)!r})\n"
        "    run = fs.simulate(scenario, seed=seed, model=Net, record=False)\n"
        "    print('rank', os.environ['RANK'], seed, run.verdict.headline, len(run.rounds.lines),\n"
        "          f'{run.params.sum():.9f}', flush=True)\n"
    )
    (printed,) = torchrun(str(script), each=2)
    said = sorted(line.partition("rank ")[2] for line in printed.splitlines() if "rank " in line and "Stopped" in line)
    assert len(said) == 4
    assert [line[2:] for line in said[:2]] == [line[2:] for line in said[2:]]
    assert said[0] != said[1]


def test_run_of_torchrun_resumes_under_torchrun(tmp_path, one_process):
    out = str(tmp_path / "run")
    script = tmp_path / "script.py"
    script.write_text(
        "import fedscape as fs\n"
        "seen = []\n"
        f"scenario = fs.load_scenario('digits-label-skew', sets={[*SETS, 'run.checkpoint_rounds=1']!r})\n"
        "class Count:\n"
        "    def round_finished(self, line):\n"
        "        seen.append(line['round'])\n"
        f"run = fs.simulate(scenario, out={out!r}, observers=[Count()], stop_asked=lambda: len(seen) > 3)\n"
        "assert run.verdict.outcome == 'interrupted', run.verdict\n"
    )
    torchrun(str(script), each=2)
    torchrun("-m", "simulator.cli", "resume", out, each=2)
    params, lines = numbers_of(Path(out))
    assert (params - one_process[0]).abs().max() < 1e-6
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("more", "says"),
    [("--set=engine.workers=3", "engine.workers: is 3, and torchrun has started 2 processes"),
     ("--set=local.local_lr=nan", "local.local_lr")],
)  # fmt: skip
def test_mistake_ends_all_processes_of_torchrun(tmp_path, more, says):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}",
               "-m", "simulator.cli", *RUN, more, "--out", str(tmp_path / "run")]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode != 0
    assert says in ended.stderr + ended.stdout


def test_ranks_with_other_data_in_a_file_of_the_same_name_are_refused(tmp_path):
    for rank, word in enumerate("ab"):
        (tmp_path / str(rank)).mkdir()
        (tmp_path / str(rank) / "rows.csv").write_text("x,y\n" + "".join(f"{k},{word}\n{k},c\n" for k in range(40)))
    script = tmp_path / "script.py"
    script.write_text(
        "import os, fedscape as fs\n"
        f"os.chdir(os.path.join({str(tmp_path)!r}, os.environ['RANK']))\n"
        "table = {'data': {'kind': 'table', 'path': 'rows.csv', 'task': 'classification', 'target': 'y'},\n"
        "         'partition': {'kind': 'iid', 'clients': 4}, 'model': {'kind': 'softmax'},\n"
        "         'engine': {'kind': 'stacked', 'tile': 4, 'compile': 'never'}, 'run': {'rounds': 2}}\n"
        "try:\n"
        "    fs.simulate(table, record=False)\n"
        "except Exception as error:\n"
        "    print('refused:', error, flush=True)\n"
    )
    (printed,) = torchrun(str(script), each=2)
    assert "refused: data.path: rows.csv holds other data on rank 1 of torchrun than on rank 0" in printed
