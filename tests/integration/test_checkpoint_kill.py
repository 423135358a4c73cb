"""A process that records and checkpoints in a loop is killed at random moments; its checkpoint is always whole.

Run as a script, this file is that process. It imports everything once and forks a worker for each line it reads, so a
kill costs milliseconds instead of an import of torch.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from clients.training.kept.lazy_rows import LazyRows
from server.record.checked.line_files import read_rounds
from server.record.checkpoint import Checkpoint, CheckpointStore
from server.record.client_table import read_clients
from server.record.recorder import Recorder
from server.record.records import RunFolder

KILLS, MOST_KILLS, CLIENTS, PIECES = 25, 250, 20, 3


def changed_in(round_index: int) -> np.ndarray:
    return np.random.default_rng(round_index).permutation(CLIENTS)[:5]


def state_of(client: int, round_index: int) -> torch.Tensor:
    return torch.arange(500) + 1e3 * client + 1e5 * round_index


def play(folder: RunFolder) -> None:
    """Continue from the checkpoint, as `fedscape resume` does, until this process is killed."""
    store = CheckpointStore(folder.checkpoint, most_pieces=PIECES)
    checkpoint = store.load()
    index = checkpoint.round_index if checkpoint else 0
    folder.truncate(index)
    recorder = Recorder(folder)
    while True:
        index += 1
        clients = changed_in(index)
        recorder.clients.add(index, {"client": clients, "weight": clients * 1.0 * index})
        recorder.round_finished({"round": index, "loss": 1.0 / index})
        recorder.event({"round": index, "kind": "played", "message": "a round"})
        recorder.sync()
        rows = torch.stack([state_of(client, index) for client in clients])
        states = {"control": (clients, LazyRows.of(rows))}
        tensors = {"parameters": torch.full((5000,), float(index)), "momentum": torch.full((3, 7), -float(index))}
        store.save(index, tensors, {"rounds": index, "words": "x" * index}, states)


def main(path: Path) -> None:
    torch.set_num_threads(1)
    folder = RunFolder(path)
    for _ in sys.stdin:
        worker = os.fork()
        if worker == 0:
            play(folder)
        print(worker, flush=True)
        _, status = os.waitpid(worker, 0)
        print("killed" if os.WIFSIGNALED(status) else "failed", flush=True)


def assert_whole(checkpoint: Checkpoint) -> None:
    """Assert that everything in the checkpoint belongs to its round."""
    index = checkpoint.round_index
    assert checkpoint.note == ""
    assert checkpoint.facts == {"rounds": index, "words": "x" * index}
    assert torch.equal(checkpoint.tensors["parameters"], torch.full((5000,), float(index)))
    assert torch.equal(checkpoint.tensors["momentum"], torch.full((3, 7), -float(index)))
    last = {int(client): past for past in range(1, index + 1) for client in changed_in(past)}
    clients, values = checkpoint.client_states["control"]
    assert clients.tolist() == sorted(last)
    assert torch.equal(values.tensor(), torch.stack([state_of(client, last[client]) for client in sorted(last)]))


def assert_record_reaches(folder: RunFolder, index: int) -> None:
    """Assert that the record, once truncated, has exactly the rounds up to the checkpoint."""
    assert folder.truncate(index) == (index or None)
    lines, truncated = read_rounds(folder.rounds)
    assert not truncated
    assert lines == [{"round": past, "loss": 1.0 / past} for past in range(1, index + 1)]
    assert [event["round"] for event in read_rounds(folder.events)[0]] == list(range(1, index + 1))
    if index == 0:
        assert read_clients(folder.clients).num_rows == 0
        return
    table = read_clients(folder.clients)
    assert table["round"].to_pylist() == [past for past in range(1, index + 1) for _ in range(5)]
    expected = [changed_in(past) * 1.0 * past for past in range(1, index + 1)]
    np.testing.assert_array_equal(table["weight"], np.concatenate(expected))


def wait_for_commits(folder: RunFolder, commits: int) -> None:
    """Wait until the manifest was replaced `commits` times."""
    manifest, seen, patience = folder.checkpoint / "manifest.json", set[int](), time.monotonic() + 60
    while len(seen) <= commits:
        assert time.monotonic() < patience, "the worker commits nothing"
        seen.add(manifest.stat().st_mtime_ns if manifest.exists() else 0)
        time.sleep(0.0005)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_process_killed_at_random_moments_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder.create_at(tmp_path / "run")
    folder.write_scenario("seed = 7\n")
    delays = random.Random(7)
    reached = [0]
    left_behind = 0  # kills that left a temporary file: they hit while a file was written, or before it was renamed
    command = [sys.executable, __file__, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for kill in range(MOST_KILLS):
            if kill >= KILLS and left_behind:  # a busy machine needs more kills until one interrupts a write
                break
            process.stdin.write("go\n")
            process.stdin.flush()
            worker = int(process.stdout.readline())
            if kill % 3 == 0:  # every third kill comes after two more checkpoints, the others often before the first
                wait_for_commits(folder, 2)
            time.sleep(delays.uniform(0.0, 0.015))
            os.kill(worker, signal.SIGKILL)
            assert process.stdout.readline() == "killed\n"
            left_behind += bool(list(folder.path.rglob(".*.tmp")))
            checkpoint = CheckpointStore(folder.checkpoint).load()
            index = checkpoint.round_index if checkpoint else 0
            assert index >= reached[-1]
            if checkpoint:
                assert_whole(checkpoint)
            assert_record_reaches(folder, index)
            reached.append(index)
        process.stdin.close()
    assert process.returncode == 0
    assert reached[-1] >= 2 * (KILLS // 3)
    assert left_behind >= 1, f"none of {MOST_KILLS} kills interrupted a write"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
