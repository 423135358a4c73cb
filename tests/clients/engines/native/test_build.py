"""Kernels are compiled once, checked before they are loaded, and left out with a reason where that is impossible."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from needs import C_COMPILER

from clients.engines.native import build

SOURCE = '#include "seven.h"\nint answer(void) { return SEVEN; }\n'


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Return a folder of sources with one kernel; kernels are cached under the test's own folder."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "seven.c").write_text(SOURCE)
    (folder / "seven.h").write_text("#define SEVEN 7\n")
    monkeypatch.setattr(build, "_SOURCES", folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(build.tempfile, "tempdir", None)
    build.load.cache_clear()
    yield folder
    build.load.cache_clear()


def again(*arguments, **named):
    """Load as a new process would."""
    build.load.cache_clear()
    return build.load("seven.c", *arguments, **named)


def entries(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache" / "fedscape").iterdir())


def the_library(tmp_path):
    (entry,) = (tmp_path / "cache" / "fedscape").iterdir()
    return entry / "kernel.so"


def fake_compiler(tmp_path, body):
    path = tmp_path / "fake-cc"
    path.write_text(f"#!{sys.executable}\nimport sys, pathlib, time\n{body}\n")
    path.chmod(0o755)
    return str(path)


def full_disk(where):
    """Return the body of a compiler whose disk is full where a condition holds."""
    return (
        "import os\n"
        f"if {where}:\n"
        "    print('ld: final link failed: No space left on device\\nerror: ld returned 1 exit status')\n"
        "    sys.exit(1)\n"
        "os.execvp('cc', ['cc', *sys.argv[1:]])"
    )


@C_COMPILER.mark
class TestCompiling:
    def test_kernel_is_compiled_once_and_then_comes_from_the_cache(self, sources, tmp_path):
        first, second = again(), again()
        assert first.functions.answer() == second.functions.answer() == 7
        assert first.seconds > 0
        assert second.seconds == 0
        assert len(entries(tmp_path)) == 1

    def test_folder_is_closed_to_others(self, sources, tmp_path):
        again()
        assert stat.S_IMODE((tmp_path / "cache" / "fedscape").stat().st_mode) == 0o700

    def test_changed_header_or_macro_compiles_anew(self, sources, tmp_path):
        again()
        (sources / "seven.h").write_text("#define SEVEN 8\n")
        assert again().functions.answer() == 8
        again(("UNUSED=1",))
        assert len(entries(tmp_path)) == 3

    @pytest.mark.parametrize("kept", [0, 100, -1])
    def test_truncated_library_is_compiled_anew_and_never_loaded(self, sources, tmp_path, kept):
        again()
        path = the_library(tmp_path)
        content = path.read_bytes()
        path.unlink()  # this process has the file mapped
        path.write_bytes(content[:kept])
        mended = again()
        assert mended.seconds > 0
        assert mended.functions.answer() == 7
        assert the_library(tmp_path).read_bytes() == content

    @pytest.mark.parametrize("facts", ["", "[]", json.dumps({"size": 3, "sha256": "0"})])
    def test_library_without_its_facts_is_compiled_anew(self, sources, tmp_path, facts):
        again()
        (the_library(tmp_path).parent / "kernel.json").write_text(facts)
        assert again().seconds > 0
        assert again().seconds == 0

    def test_two_processes_may_compile_at_once(self, sources, tmp_path):
        code = (
            "import sys; from pathlib import Path; from clients.engines.native import build\n"
            f"build._SOURCES = Path({str(sources)!r}); sys.exit(build.load('seven.c').functions.answer())"
        )
        racing = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
        assert [child.wait(60) for child in racing] == [7, 7, 7]
        assert len(entries(tmp_path)) == 1

    @pytest.mark.parametrize("spoil", ["others may write", "a file", "a link", "not writable"])
    def test_unsafe_cache_is_left_alone_and_the_kernel_compiled_elsewhere(self, sources, tmp_path, spoil):
        if spoil == "not writable" and os.getuid() == 0:
            pytest.skip("root may write anywhere")
        folder = tmp_path / "cache" / "fedscape"
        folder.parent.mkdir()
        if spoil == "a file":
            folder.write_text("")
        elif spoil == "a link":
            (tmp_path / "target").mkdir(mode=0o700)
            folder.symlink_to(tmp_path / "target")
        else:
            folder.mkdir()
            folder.chmod(0o777 if spoil == "others may write" else 0o500)
        found = again()
        assert found.functions.answer() == 7
        assert found.seconds > 0
        assert not folder.is_dir() or not list(folder.iterdir())
        assert not list(tmp_path.glob("fedscape-*"))

    def test_failed_self_check_leaves_the_kernel_out(self, sources):
        found = again((), lambda functions: f"7 is {functions.answer()}")
        assert found.functions is None
        assert found.reason == "the kernel's self-check failed: 7 is 7"

    def test_error_in_the_source_is_the_reason(self, sources, tmp_path):
        (sources / "seven.c").write_text("int answer(void) { return nothing; }\n")
        found = again()
        assert found.functions is None
        assert "compiling failed: seven.c:1" in found.reason
        assert "nothing" in found.reason
        assert entries(tmp_path) == []

    def test_compiler_without_a_native_target_compiles_without_it(self, sources, tmp_path, monkeypatch):
        body = (
            "import os\nif '-march=native' in sys.argv: sys.exit(\"error: unknown target '-march=native'\")\n"
            "os.execvp('cc', ['cc', *sys.argv[1:]])"
        )
        monkeypatch.setenv("CC", fake_compiler(tmp_path, body))
        assert again().functions.answer() == 7

    def test_full_disk_of_the_cache_leaves_a_kernel_without_an_entry(self, sources, tmp_path, monkeypatch):
        monkeypatch.setenv("CC", fake_compiler(tmp_path, full_disk("'/cache/' in os.environ.get('TMPDIR', '')")))
        for _ in range(2):
            found = again()
            assert found.functions.answer() == 7
            assert found.seconds > 0
            assert entries(tmp_path) == []


class TestWithoutACompiler:
    def test_full_disk_is_the_reason(self, sources, tmp_path, monkeypatch):
        monkeypatch.setenv("CC", fake_compiler(tmp_path, full_disk("'-o' in sys.argv")))
        assert again() == build.Library(None, f"no space is left to compile it in {tmp_path}")
        assert entries(tmp_path) == []

    def test_missing_compiler_is_the_reason(self, sources, tmp_path, monkeypatch):
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert again() == build.Library(None, "no C compiler (cc, gcc or clang) is installed")

    def test_missing_compiler_of_the_environment_is_named(self, sources, monkeypatch):
        monkeypatch.setenv("CC", "no-such-cc -O1")
        assert again().reason == "no C compiler: $CC names 'no-such-cc', which is not installed"

    def test_compiler_that_does_not_end_is_stopped_with_its_children(self, sources, tmp_path, monkeypatch):
        body = (
            "import subprocess\nif '--version' in sys.argv: sys.exit()\n"
            "child = subprocess.Popen(['sleep', '60'])\n"
            f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\ntime.sleep(60)"
        )
        monkeypatch.setenv("CC", fake_compiler(tmp_path, body))
        monkeypatch.setattr(build._run, "__defaults__", (3.0,))
        assert "did not end within 3 s" in again().reason
        child = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
        assert not child.exists() or child.read_text().rsplit(")", 1)[1].split()[0] == "Z"
        assert entries(tmp_path) == []

    def test_compiler_that_does_not_run_is_the_reason(self, sources, tmp_path, monkeypatch):
        monkeypatch.setenv("CC", fake_compiler(tmp_path, "sys.exit('broken \\x1b[2J install')"))
        reason = again().reason
        assert "does not run: broken" in reason
        assert "\x1b" not in reason
