import os
import signal
import sys
import threading
import time

import pytest
import torch

from clients.processes.forking import exit_of, fork, kill, wait_for_exit

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")


def test_forked_process_returns_what_it_computed_through_a_pipe():
    reads, writes = os.pipe()
    pid = fork(lambda: os.write(writes, b"done"))
    os.close(writes)
    assert os.read(reads, 10) == b"done"
    assert wait_for_exit(pid, 10) == "ended"
    os.close(reads)


def test_forked_process_computes_with_several_threads_after_its_parent_has():
    """GNU OpenMP hangs in a forked process whose forking thread has had a parallel region."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        a = torch.ones(700, 700)
        assert (a @ a == 700).all()
        pid = fork(lambda: float((a @ a).exp().sum()))
        assert wait_for_exit(pid, 20) == "ended"
    finally:
        torch.set_num_threads(before)


def test_error_in_a_forked_process_is_its_exit_code(capfd):
    def fails():
        raise ValueError("in the child")

    pid = fork(fails)
    assert wait_for_exit(pid, 10) == "ended with code 1"
    assert "in the child" in capfd.readouterr().err


def test_killed_process_is_named_by_its_signal():
    pid = fork(lambda: time.sleep(60))
    kill(pid)
    assert wait_for_exit(pid, 10) == "was killed by SIGKILL (out of memory?)"
    assert exit_of(pid) == "is gone"


def test_forked_process_ignores_ctrl_c():
    pid = fork(lambda: time.sleep(60))
    time.sleep(0.1)
    os.kill(pid, signal.SIGINT)
    assert wait_for_exit(pid, 0.3) is None
    kill(pid)
    wait_for_exit(pid, 10)


def test_forked_process_starts_beside_other_threads():
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    try:
        assert wait_for_exit(fork(lambda: None), 10) == "ended"
    finally:
        stop.set()
        other.join()
