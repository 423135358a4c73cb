"""Programs of Flower that are forked: they are as if started, and end with their stand-ins."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flower_processes import processes_naming
from waiting import eventually

from simulator.federate.forked_programs import PROGRAMS, SOCKET, write_programs

PROGRAM = PROGRAMS[0]
ROOT = Path(__file__).parents[3]
SERVER = """
import os, sys, time
from pathlib import Path
from clients.service.owner import find_owner
from simulator.federate.forked_programs import serve

def run():
    print(sys.argv[1:], os.environ.get("OF_THE_TEST"), os.getcwd(), flush=True)
    print("to the errors", file=sys.stderr)
    if "owner" in sys.argv:
        print(find_owner(), flush=True)
    if "wait" in sys.argv:
        time.sleep(1000)
    if "fail" in sys.argv:
        raise ValueError("on purpose")
    sys.exit(int(sys.argv[1]))

serve(Path(sys.argv[1]), {"flwr-clientapp": run})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the program, whose path is too long for a socket."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    write_programs(folder)
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Serve the program of the folder."""
    with subprocess.Popen([sys.executable, "-c", SERVER, str(folder)], env=environment(folder)) as process:
        eventually(lambda: (folder / SOCKET).exists())
        try:
            yield process
        finally:
            process.kill()


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OF_THE_TEST": str(folder)}


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [folder / PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        env=environment(folder),
    )  # fmt: skip


def forks(folder: Path, server: subprocess.Popen[bytes]) -> list[int]:
    """Return the forks of a server: they have its command."""
    return [pid for pid, command in processes_naming(folder).items() if " -c " in command and pid != server.pid]


@pytest.mark.usefixtures("server")
def test_fork_has_arguments_environment_output_and_exit_code_of_the_program(folder: Path) -> None:
    with start(folder, "7", "", "a b") as program:
        printed, errors = program.communicate(timeout=60)
    words, variable, _ = printed.rstrip("\n").partition(f" {folder} ")
    assert words == "['7', '', 'a b']"
    assert variable
    assert errors == "to the errors\n"
    assert program.returncode == 7


@pytest.mark.usefixtures("server")
def test_fork_that_raises_prints_it_and_ends_with_code_one(folder: Path) -> None:
    with start(folder, "fail") as program:
        _, errors = program.communicate(timeout=60)
    assert "ValueError: on purpose" in errors
    assert program.returncode == 1


@pytest.mark.usefixtures("server")
def test_many_programs_at_once_get_their_own_answers(folder: Path) -> None:
    programs = [start(folder, str(number)) for number in range(30)]
    for number, program in enumerate(programs):
        printed, _ = program.communicate(timeout=60)
        assert printed.startswith(f"['{number}'] ")
        assert program.returncode == number


def test_killed_program_takes_its_fork_along(folder: Path, server: subprocess.Popen[bytes]) -> None:
    with start(folder, "wait") as program:
        assert program.stdout is not None
        program.stdout.readline()
        assert len(forks(folder, server)) == 1
        program.kill()
        eventually(lambda: not forks(folder, server))
    with start(folder, "3") as program:
        assert program.wait(60) == 3, "the server goes on"


def test_killed_server_takes_forks_along_and_ends_their_programs(folder: Path, server: subprocess.Popen[bytes]) -> None:
    with start(folder, "wait") as program:
        assert program.stdout is not None
        program.stdout.readline()
        server.kill()
        assert program.wait(60) == 1
        eventually(lambda: not forks(folder, server))


def test_killed_fork_ends_its_program_with_an_error(folder: Path, server: subprocess.Popen[bytes]) -> None:
    with start(folder, "wait") as program:
        assert program.stdout is not None
        program.stdout.readline()
        (fork,) = forks(folder, server)
        os.kill(fork, signal.SIGKILL)
        assert program.wait(60) == 1


@pytest.mark.usefixtures("server")
def test_owner_of_a_fork_is_the_supernode_that_started_the_program(folder: Path) -> None:
    supernode = folder / "flower-supernode"
    supernode.write_text(f"import subprocess\nsubprocess.run([{str(folder / PROGRAM)!r}, '0', 'owner'])")
    command = [sys.executable, str(supernode)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(folder)) as process:
        printed, _ = process.communicate(timeout=60)
    assert printed.splitlines()[1].partition(":")[0] == str(process.pid)


@pytest.mark.usefixtures("server")
def test_request_that_is_none_is_refused_and_the_next_is_answered(folder: Path) -> None:
    script = (
        "import os, socket, sys\nlink = socket.socket(socket.AF_UNIX)\n"
        "link.connect(f'/proc/self/fd/{os.open(sys.argv[1], os.O_PATH)}/{sys.argv[2]}')\n"
        "link.sendall(b'\\xff' * 8)\nprint(link.recv(1))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), SOCKET], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "b''\n"
    with start(folder, "5") as program:
        assert program.wait(60) == 5


@pytest.mark.parametrize(
    ("name", "words"), list(zip(PROGRAMS, ("ClientApp", "SuperExec", "--auth-supernode-private-key"), strict=True))
)
def test_without_a_server_the_program_is_flowers_own(folder: Path, name: str, words: str) -> None:
    command = [folder / name, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(folder), timeout=60, check=True)
    assert words in done.stdout


def test_server_of_federations_has_imported_flower_and_no_torch(folder: Path) -> None:
    """Its forks share what it has imported; a thread of its own would be gone in them."""
    script = (
        "import os, sys\nfrom simulator.federate import forked_programs\n"
        "def serve(folder, programs):\n"
        "    print(len(os.listdir('/proc/self/task')), 'torch' in sys.modules, *programs)\n"
        "forked_programs.serve = serve\n"
        "forked_programs.main(sys.argv[1], '0.25')"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "4"}
    command = [sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=True)
    assert done.stdout == "1 False flwr-clientapp flower-superexec flower-supernode\n"
