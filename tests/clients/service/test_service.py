"""The local service with plain processes: one for ten messages, its failures, its end, and who may ask."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from owners import owning
from service_answers import runs
from waiting import eventually

from clients.core.errors import FedscapeError, ServiceError
from clients.processes.forking import can_fork
from clients.service import asking, frames, serving
from clients.service.asking import Service
from clients.service.frames import Frame, FrameError, Kind
from clients.service.owner import Owner, find_owner, this_process
from clients.service.place import Place, place_of
from clients.service.serving import Server, listen

SUPPORT = Path(__file__).parents[2] / "support"
pytestmark = pytest.mark.skipif(not can_fork(), reason="the service runs on Linux only")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Return a service that belongs to a process which ends with the test."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")]))
    with owning() as (owner, folder):
        yield Service(place_of(owner, folder), owner, "service_answers:echo", idle_seconds=60.0)


def ask(service: Service, kind: str = "train", content: bytes = b"") -> dict[str, object]:
    answer: dict[str, object] = json.loads(service.ask(kind, {"clients": "3"}, content, 60.0))
    return answer


def test_ten_messages_have_one_process(service: Service) -> None:
    answers = [ask(service, content=b"x" * n) for n in range(10)]
    assert len({answer["pid"] for answer in answers}) == 1
    assert answers[0]["pid"] != os.getpid()
    assert [answer["size"] for answer in answers] == list(range(10))
    assert answers[0]["node"] == {"clients": "3"}
    assert not answers[0]["torch"]


def test_large_content_passes_whole(service: Service) -> None:
    assert ask(service, content=bytes(40_000_000))["size"] == 40_000_000


def test_socket_and_folder_belong_to_this_user_alone(service: Service) -> None:
    ask(service)
    assert stat.S_IMODE(service.place.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(service.place.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(service.place.log.stat().st_mode) == 0o600


def test_ten_messages_have_one_group_of_ranks(service: Service) -> None:
    service = replace(service, answer="service_answers:train")
    answers = [ask(service) for _ in range(10)]
    assert len({answer["pid"] for answer in answers}) == 1
    assert len({str(answer["ranks"]) for answer in answers}) == 1
    assert len({answer["sum"] for answer in answers}) == 1


def test_killed_rank_fails_one_message(service: Service) -> None:
    service = replace(service, answer="service_answers:train")
    before = ask(service)
    with pytest.raises(ServiceError, match="rank 1 of 2 was killed by SIGKILL"):
        ask(service, "kill")
    after = ask(service)
    assert after["pid"] == before["pid"]
    assert after["ranks"] != before["ranks"]
    assert after["sum"] == before["sum"]


def test_killed_service_fails_one_message(service: Service) -> None:
    before = ask(service)["pid"]
    with pytest.raises(ServiceError, match="ended while it worked"):
        ask(service, "crash")
    assert ask(service)["pid"] != before


def test_service_killed_between_messages_fails_none(service: Service) -> None:
    before = ask(service)["pid"]
    os.kill(int(str(before)), signal.SIGKILL)
    eventually(lambda: not runs(int(str(before))))
    assert ask(service)["pid"] != before


def test_error_of_an_answer_is_its_reason(service: Service) -> None:
    before = ask(service)["pid"]
    with pytest.raises(ServiceError, match=r"^ArithmeticError: no such number$"):
        ask(service, "fail")
    assert ask(service)["pid"] == before


def test_killed_owner_ends_service_and_ranks_in_an_answer_too(service: Service, tmp_path: Path) -> None:
    training = replace(service, answer="service_answers:train")
    found = ask(training)
    pids = [int(str(found["pid"])), *found["ranks"]]  # type: ignore[misc]
    assert all(runs(pid) for pid in pids)
    os.kill(service.owner.pid, signal.SIGKILL)
    eventually(lambda: not any(runs(pid) for pid in pids), seconds=10.0)


def test_owner_killed_in_mid_answer_ends_the_service(service: Service, tmp_path: Path) -> None:
    busy = tmp_path / "busy"
    failed: list[Exception] = []

    def message() -> None:
        try:
            ask(service, "wait", str(busy).encode())
        except ServiceError as error:
            failed.append(error)

    pid = int(str(ask(service)["pid"]))
    thread = threading.Thread(target=message)
    thread.start()
    eventually(busy.exists)
    os.kill(service.owner.pid, signal.SIGKILL)
    eventually(lambda: not runs(pid), seconds=10.0)
    thread.join(10.0)
    assert "ended while it worked" in str(failed[0])


def test_idle_service_ends_and_the_next_message_starts_another(service: Service) -> None:
    service = replace(service, idle_seconds=0.2)
    before = int(str(ask(service)["pid"]))
    eventually(lambda: not runs(before))
    assert not service.place.socket.exists()
    assert ask(service)["pid"] != before


def test_messages_that_come_as_the_service_ends_are_answered(service: Service) -> None:
    """The idle time is so short that the service ends between any two messages."""
    service = replace(service, idle_seconds=0.01)
    assert [ask(service, content=b"x" * n)["size"] for n in range(8)] == list(range(8))


def test_files_of_services_whose_owners_are_gone_are_removed(service: Service) -> None:
    pid, started = service.owner.pid, service.owner.started
    for name in (f"{pid}-{started + 1}.sock", f"{pid}-{started + 1}.log", f"{pid}-{started}.note", "other.txt"):
        (service.place.folder / name).touch()
    ask(service)
    left = {file.name for file in service.place.folder.iterdir()}
    assert {f"{pid}-{started}.sock", f"{pid}-{started}.note", "other.txt"} <= left
    assert not any(str(started + 1) in name for name in left)


def test_socket_of_a_service_killed_with_its_owner_is_removed_by_the_next_service(service: Service) -> None:
    """As the supervisor of a federation kills all of its processes."""
    pid = int(str(ask(service)["pid"]))
    os.kill(pid, signal.SIGKILL)
    os.kill(service.owner.pid, signal.SIGKILL)
    eventually(lambda: not runs(pid) and not service.owner.runs)
    assert service.place.socket.exists()
    me = this_process()
    ask(Service(place_of(me, service.place.folder), me, "service_answers:echo", idle_seconds=0.2))
    assert not list(service.place.folder.glob(f"{service.place.name}.*"))


def test_files_of_a_service_that_lives_stay_where_its_owner_is_not_seen(service: Service) -> None:
    """As a service of another container that shares the folder."""
    other = Place(service.place.folder, f"{service.owner.pid}-{service.owner.started + 1}")
    with other.locked("life", 1.0):
        other.socket.touch()
        ask(service)
        assert other.socket.exists()
    other.remove()


def test_two_messages_at_once_start_one_service(service: Service) -> None:
    program = (
        "import sys, pathlib\nfrom clients.service.asking import Service\nfrom clients.service.owner import Owner\n"
        "from clients.service.place import place_of\nowner = Owner.parse(sys.argv[1])\n"
        "one = Service(place_of(owner, pathlib.Path(sys.argv[2])), owner, 'service_answers:echo')\n"
        "print(one.ask('train', {}, b'', 60.0).decode())\n"
    )
    command = [sys.executable, "-c", program, str(service.owner), str(service.place.folder)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    told = [json.loads(process.communicate(timeout=60.0)[0]) for process in both]
    assert len({one["pid"] for one in told}) == 1


def test_messages_at_once_are_answered_one_after_another(service: Service, tmp_path: Path) -> None:
    busy = tmp_path / "busy"
    ask(service)
    first = threading.Thread(target=ask, args=(service, "wait", str(busy).encode()))
    first.start()
    eventually(busy.exists)
    found: list[object] = []
    second = threading.Thread(target=lambda: found.append(ask(service)["kind"]))
    second.start()
    second.join(0.3)
    assert not found
    busy.unlink()
    first.join(60.0)
    second.join(60.0)
    assert found == ["train"]


def test_service_that_cannot_import_its_answers_says_so(service: Service) -> None:
    with pytest.raises(ServiceError, match="ModuleNotFoundError: No module named 'no_such_answers'"):
        ask(replace(service, answer="no_such_answers:echo"))


def test_service_that_hangs_is_given_up(service: Service) -> None:
    pid = int(str(ask(service)["pid"]))
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(ServiceError, match=r"cannot be reached|has given no sign for 0\.3 s"):
            ask(replace(service, silent_seconds=0.3))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert ask(service)["pid"] == pid


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n" + bytes(64), b"\0" * 200, b"FSV1\x63" + bytes(40), b"FS"])
def test_garbage_on_the_socket_ends_its_connection_alone(sent: bytes, service: Service) -> None:
    before = ask(service)["pid"]
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(20.0)
        link.connect(str(service.place.socket))
        assert frames.receive(link, 20.0).kind == Kind.HELLO  # type: ignore[union-attr]
        link.sendall(sent)
        link.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            answer = frames.receive(link, 20.0)
            assert answer is None or answer.kind == Kind.FAILED
    assert ask(service)["pid"] == before


def served(place: Place, **options: object) -> threading.Thread:
    """Run a server in a thread of this process, whose owner is this process."""
    server = Server(place, listen(place), "service_answers:echo", **options)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve, args=(this_process(), 0.5, 0.5), daemon=True)
    thread.start()
    return thread


def test_another_user_is_not_greeted(service: Service) -> None:
    thread = served(service.place, user=lambda link: os.getuid() + 1)
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(service.place.socket))
        assert frames.receive(link, 20.0) is None
    thread.join(20.0)


def test_service_of_another_user_is_not_asked(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    thread = served(service.place)
    monkeypatch.setattr(asking, "peer_user", lambda link: os.getuid() + 1)
    with pytest.raises(ServiceError, match="belongs to another user"):
        ask(service)
    thread.join(20.0)


def test_message_above_the_limit_is_refused_before_it_is_read(service: Service) -> None:
    thread = served(service.place, most=1000)
    with pytest.raises(ServiceError, match=r"its body has 1,001 bytes, and at most 1,000 are allowed|ended while it"):
        ask(service, content=bytes(1001))
    assert ask(service, content=bytes(1000))["size"] == 1000
    thread.join(20.0)


def test_frame_with_a_vast_length_takes_no_memory() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(b"FSV1" + bytes([Kind.ASK]) + (2).to_bytes(4, "little") + (1 << 60).to_bytes(8, "little") + b"{}")
        with pytest.raises(FrameError, match="its body has 1,152,921,504,606,846,976 bytes"):
            frames.receive(other, 5.0)


@pytest.mark.parametrize(("head", "words"), [(b"no", "is no JSON"), (b"[]", "is no table")])
def test_header_that_is_no_table_is_refused(head: bytes, words: str) -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(b"FSV1" + bytes([Kind.ASK]) + (2).to_bytes(4, "little") + bytes(8) + head)
        with pytest.raises(FrameError, match=words):
            frames.receive(other, 5.0)


def test_frame_that_does_not_come_ends_in_time() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(b"FSV1")
        with pytest.raises(TimeoutError):
            frames.receive(other, 0.2)


def test_frame_round_trip_keeps_header_and_body() -> None:
    one, other = socket.socketpair()
    with one, other:
        frames.send(one, Frame(Kind.ASK, {"kind": "train"}, b"abc"), 5.0)
        found = frames.receive(other, 5.0)
        one.close()
        assert found == Frame(Kind.ASK, {"kind": "train"}, b"abc")
        assert frames.receive(other, 5.0) is None


def test_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(ServiceError, match="mode 0700"):
        place_of(this_process(), tmp_path)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(ServiceError, match="mode 0700"):
        place_of(this_process(), link)


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServiceError, match=r"cannot be made .*service=\"off\""):
        place_of(this_process(), tmp_path / "file" / "folder")
    with pytest.raises(ServiceError, match=r"cannot be made|mode 0700"):
        place_of(this_process(), tmp_path / "file")


def test_long_path_of_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FedscapeError, match="XDG_RUNTIME_DIR"):
        place_of(this_process(), tmp_path / ("x" * 90))


def test_owner_is_the_supernode_among_the_ancestors(tmp_path: Path) -> None:
    """A process named as Flower's program starts one that looks for its owner."""
    program = tmp_path / "flower-supernode"
    inner = "from clients.service.owner import find_owner; print(find_owner())"
    program.write_text(
        f"import subprocess, sys, os\nprint(os.getpid(), flush=True)\nsubprocess.run([sys.executable, '-c', {inner!r}])"
    )
    out = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=True, timeout=60).stdout
    pid, owner = out.split()
    assert owner.partition(":")[0] == pid
    assert find_owner() is None or find_owner() != Owner.parse(owner)


def test_owner_whose_id_is_used_again_counts_as_ended() -> None:
    me = this_process()
    assert me.runs
    assert not Owner(me.pid, me.started + 1).runs


def test_asking_imports_no_torch() -> None:
    program = "import sys, clients.service.asking; print(sorted({'torch', 'numpy', 'flwr'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60).stdout
    assert out.strip() == "[]"


def test_beats_are_more_frequent_than_patience() -> None:
    assert serving.BEAT_SECONDS * 4 < asking.SILENT_SECONDS
