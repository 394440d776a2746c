"""Launchers: commands that survive any shell, secrets that stay hidden, processes that are looked after."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushlight.errors import ConfigError, LauncherError, LaunchError
from rushlight.launchers import (
    Handle,
    HandleState,
    Launcher,
    LocalLauncher,
    WorkerCommand,
    get_launcher,
    read_environment,
)

SHOW = "import json, sys; print(json.dumps(sys.argv[1:]))"
NASTY = "$HOME ' \" \\ ` $(id) ; & | * ~ ! # \n\t\u20ac"
TEXT = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"))


class Elsewhere:
    """A launcher of a third party: the least there can be."""

    name = "elsewhere"

    def launch(self, command: WorkerCommand, n: int) -> list[Handle]:
        return [Handle(self.name, "1")]

    def poll(self, handles: Sequence[Handle]) -> list[HandleState]:
        return [HandleState("pending") for _ in handles]

    def terminate(self, handles: Sequence[Handle]) -> None:
        pass

    def log_tail(self, handle: Handle) -> str:
        return ""


@pytest.fixture
def local() -> Iterator[LocalLauncher]:
    """A launcher that is closed in the end."""
    launcher = LocalLauncher()
    yield launcher
    launcher.close()


def python(code: str, **settings_: object) -> WorkerCommand:
    """A command that runs code instead of a supervisor."""
    return WorkerCommand((sys.executable, "-c", code), **settings_)  # type: ignore[arg-type]


# --- the command --------------------------------------------------------------------------------


def test_the_command_is_an_argument_list_of_python() -> None:
    """What is started is this Python with the worker command, its values glued to their options."""
    command = WorkerCommand.build("net", "spec1", worker_ids=["a", "-b"], options={"grace": "3"})
    assert [
        sys.executable, "-P", "-m", "rushlight", "worker",
        "--network=net", "--spec=spec1", "--grace=3", "--worker-id=a", "--worker-id=-b",
    ] == command.for_workers(2)  # fmt: skip


def test_workers_may_name_themselves() -> None:
    """Without ids the command says how many; outliving is said too."""
    command = WorkerCommand.build("net", "s", outlive=True)
    assert ["--workers=3", "--outlive"] == command.for_workers(3)[-2:]


@given(st.lists(TEXT, min_size=1, max_size=5))
@settings(max_examples=20, deadline=None)
def test_a_shell_gives_back_every_value(values: list[str]) -> None:
    """The line for a shell means the argument list, whatever the values contain."""
    command = WorkerCommand((sys.executable, "-c", SHOW, *values, NASTY))
    line = command.shell_line(2)
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=True)
    assert [*values, NASTY, "--workers=2"] == json.loads(done.stdout)
    assert shlex.split(line) == command.for_workers(2)


def test_secrets_stay_off_the_command_line() -> None:
    """Neither repr nor a rendered line shows the environment; a secret on the command line is refused."""
    url = "redis://:hush@host/0"
    command = WorkerCommand.build("n", "s", environment={"RUSHLIGHT_URL": url})
    assert "hush" not in repr(command) + command.shell_line() + " ".join(command.for_workers(1))
    with pytest.raises(ConfigError, match="RUSHLIGHT_URL") as caught:
        WorkerCommand.build("n", "s", environment={"RUSHLIGHT_URL": url}, options={"url": url})
    assert "hush" not in str(caught.value)


def test_the_environment_file_is_the_users_alone(tmp_path: Path) -> None:
    """It holds any value, in mode 0600, is never overwritten, and comes back as it was."""
    wanted = {"RUSHLIGHT_SECRET": NASTY, "RUSHLIGHT_URL": "x"}
    command = WorkerCommand.build("n", "s", environment=wanted)
    path = command.write_environment(tmp_path / "env it's")
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert wanted == read_environment(path)
    assert f"--env-file={path}" == shlex.split(command.shell_line(environment_file=str(path)))[-1]
    with pytest.raises(ConfigError, match="File exists"):
        command.write_environment(path)


def test_an_environment_file_open_to_others_is_refused(tmp_path: Path) -> None:
    """Who else could have read or changed it cannot be known."""
    path = WorkerCommand.build("n", "s", environment={"A": "b"}).write_environment(tmp_path / "env")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_environment(path)


@pytest.mark.parametrize("content", ["", "[1]", '{"A": 1}', "\xff"])
def test_an_environment_file_of_another_kind_is_refused(tmp_path: Path, content: str) -> None:
    """Anything but an object of texts is named as such."""
    path = tmp_path / "env"
    path.write_bytes(content.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="environment file"):
        read_environment(path)


@pytest.mark.parametrize(
    ("argv", "environment"),
    [
        ((), {}),
        (("a\0b",), {}),
        (("a",), {"A": "\0"}),
        (("a",), {"A=B": "c"}),
        (("a",), {"": "c"}),
        ((1,), {}),
    ],
)
def test_commands_no_system_can_run_are_refused(argv: tuple[str, ...], environment: dict[str, str]) -> None:
    """NUL characters and impossible names are found before anything is launched."""
    with pytest.raises(ConfigError):
        WorkerCommand(argv, environment)


@pytest.mark.parametrize("n", [0, -1, True, 1.0, "2"])
def test_counts_that_are_none_are_refused(n: object) -> None:
    """At least one worker is launched."""
    with pytest.raises(ConfigError, match="n="):
        WorkerCommand(("a",)).for_workers(n)  # type: ignore[arg-type]


def test_as_many_ids_as_workers() -> None:
    """A count that does not match the ids is a mistake."""
    with pytest.raises(ConfigError, match="n=3 does not match the 2"):
        WorkerCommand(("a",), worker_ids=("x", "y")).for_workers(3)


# --- names of launchers -------------------------------------------------------------------------


def test_launchers_by_name_class_and_object() -> None:
    """None is local; names, classes and objects all give a launcher."""
    assert isinstance(get_launcher(None), LocalLauncher)
    assert isinstance(get_launcher("local"), LocalLauncher)
    assert isinstance(get_launcher(Elsewhere), Elsewhere)
    mine = Elsewhere()
    assert mine is get_launcher(mine)
    assert isinstance(mine, Launcher)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution that registers launchers, one of which cannot be imported."""
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[rushlight.launchers]\nmoon = theirs_launcher:Moon\nbroken = theirs_launcher:Nothing\n"
    )
    (tmp_path / "theirs_launcher.py").write_text(
        "class Moon:\n    name = 'moon'\n    launch = poll = terminate = log_tail = lambda self, *a: []\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("plugins")
def test_third_parties_register_by_entry_point() -> None:
    """A name from the group ``rushlight.launchers`` works like one in the box."""
    assert "moon" == get_launcher("moon").name


@pytest.mark.usefixtures("plugins")
def test_a_plugin_that_cannot_be_imported_is_named() -> None:
    """The error says which registration is broken."""
    with pytest.raises(LauncherError, match="theirs_launcher:Nothing"):
        get_launcher("broken")


def test_unknown_names_and_things_are_refused() -> None:
    """The error lists what there is, or what is missing."""
    with pytest.raises(ConfigError, match=r"'slrum' is not known; there are .*local"):
        get_launcher("slrum")
    with pytest.raises(ConfigError, match="launch, poll, terminate, log_tail"):
        get_launcher(object())  # type: ignore[arg-type]


# --- local processes ----------------------------------------------------------------------------


def test_one_process_for_all_workers(local: LocalLauncher, wait_until: Callable[..., None]) -> None:
    """One handle stands for all workers; it is running, then exited with its code and last words."""
    code = "import sys; sys.stdin.read(0); print('hello'); sys.exit(3)"
    command = python(code, worker_ids=("a", "b"))
    (handle,) = local.launch(command, 2)
    assert ("local", ("a", "b")) == (handle.launcher, handle.worker_ids)
    wait_until(lambda: local.poll([handle])[0].phase == "exited")
    assert [HandleState("exited", 3, "exited with code 3")] * 2 == local.poll([handle, handle])
    assert "hello\n" == local.log_tail(handle)


def test_it_gets_the_environment_and_its_own_session(
    local: LocalLauncher, wait_until: Callable[..., None]
) -> None:
    """Secrets arrive; the terminal's Ctrl-C will not."""
    code = "import os; print(os.environ['RUSHLIGHT_SECRET'], os.getsid(0) == os.getpid())"
    (handle,) = local.launch(python(code, environment={"RUSHLIGHT_SECRET": NASTY}), 1)
    wait_until(lambda: local.poll([handle])[0].phase == "exited")
    assert f"{NASTY} True\n" == local.log_tail(handle)


def test_what_it_prints_cannot_block_it(local: LocalLauncher, wait_until: Callable[..., None]) -> None:
    """A megabyte of complaints is written to the end; the tail is what is kept."""
    (handle,) = local.launch(python("print('x' * (1 << 20)); print('end')"), 1)
    wait_until(lambda: local.poll([handle])[0].phase == "exited")
    assert local.log_tail(handle).endswith("xx\nend\n")


def test_a_signal_is_told_by_name(local: LocalLauncher, wait_until: Callable[..., None]) -> None:
    """A crash is not an exit code."""
    (handle,) = local.launch(python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"), 1)
    wait_until(lambda: local.poll([handle])[0].phase == "exited")
    assert [HandleState("exited", -signal.SIGSEGV, "killed by SIGSEGV")] == local.poll([handle])


def test_terminate_ends_what_runs_and_leaves_the_rest(
    local: LocalLauncher, wait_until: Callable[..., None]
) -> None:
    """It is asked to end its workers by SIGQUIT; twice, and after the end, is no error."""
    code = "import signal; signal.signal(signal.SIGQUIT, lambda *_: exit(4)); "
    (handle,) = local.launch(python(code + "print('up', flush=True); signal.pause()"), 1)
    wait_until(lambda: local.log_tail(handle) == "up\n")
    local.terminate([handle])
    local.terminate([handle])
    assert 4 == local.poll([handle])[0].code


@pytest.mark.slow
def test_terminate_kills_what_does_not_listen(local: LocalLauncher, wait_until: Callable[..., None]) -> None:
    """A supervisor that hangs does not hold up its launcher for ever."""
    code = "import signal; signal.signal(signal.SIGQUIT, signal.SIG_IGN); "
    (handle,) = local.launch(python(code + "print('up', flush=True); signal.pause()"), 1)
    wait_until(lambda: local.log_tail(handle) == "up\n")
    local.terminate([handle])
    assert -signal.SIGKILL == local.poll([handle])[0].code


def test_the_pipe_tells_of_this_process(local: LocalLauncher, wait_until: Callable[..., None]) -> None:
    """The launched process has a stdin that stays open while its launcher lives, and is told its pid."""
    code = "import sys; print(sys.argv[1:], flush=True); print(repr(sys.stdin.read()), flush=True)"
    (handle,) = local.launch(python(code), 1)
    wait_until(lambda: f"--parent={os.getpid()}" in local.log_tail(handle))
    assert "running" == local.poll([handle])[0].phase
    local.close()
    assert not psutil.pid_exists(int(handle.id))


def test_what_outlives_is_left_alone(local: LocalLauncher) -> None:
    """A command that outlives has no pipe and no parent, and closing the launcher does not end it."""
    (handle,) = local.launch(python("import signal; signal.pause()", outlive=True), 1)
    process = psutil.Process(int(handle.id))
    try:
        assert not any("--parent" in word for word in process.cmdline())
        local.close()
        local.close()
        assert process.is_running()
        other = LocalLauncher()
        assert "running" == other.poll([handle])[0].phase
        other.terminate([handle])
        assert "exited" == other.poll([handle])[0].phase
    finally:
        process.kill()
        process.wait()


def test_handles_travel(local: LocalLauncher) -> None:
    """A handle survives pickling; another process's launcher knows alive and gone by it."""
    (handle,) = local.launch(python("import signal; signal.pause()"), 1)
    copied = pickle.loads(pickle.dumps(handle))
    assert handle == copied
    other = LocalLauncher()
    assert ["running", "exited"] == [
        state.phase for state in other.poll([copied, Handle("local", handle.id, (), {"start": "1"})])
    ]
    assert "" == other.log_tail(copied)


def test_a_handle_of_another_host_is_unknown_here(local: LocalLauncher) -> None:
    """Its number means another process here, or none: it is neither gone nor ended, nor waited for."""
    (handle,) = local.launch(WorkerCommand((sys.executable, "-c", "input()"), outlive=False), 1)
    assert socket.gethostname() == handle.details["host"]
    far = replace(handle, details={**handle.details, "host": "another-host"})
    gone = replace(far, id=str(2**22 + 1))
    assert ["running", "running"] == [state.phase for state in local.poll([far, gone])]
    assert "another-host" in local.poll([gone])[0].reason
    local.terminate([far, gone])
    assert local.wait([far, gone], 0.0)
    assert "running" == local.poll([handle])[0].phase
    assert "" == local.log_tail(far)


def test_a_program_that_is_not_there_is_a_launch_error(local: LocalLauncher) -> None:
    """Nothing was started, and the error names the program."""
    with pytest.raises(LaunchError, match="/no/such/python") as caught:
        local.launch(WorkerCommand(("/no/such/python",)), 1)
    assert "/no/such/python" == caught.value.fields["command"][0]


def test_ended_processes_keep_no_descriptors(local: LocalLauncher, wait_until: Callable[..., None]) -> None:
    """A launcher that starts workers all day does not run out of files."""
    before = psutil.Process().num_fds()
    handles = [handle for _ in range(5) for handle in local.launch(python("print('x')"), 1)]
    wait_until(lambda: all(state.phase == "exited" for state in local.poll(handles)))
    assert before == psutil.Process().num_fds()
    assert ["x\n"] * 5 == [local.log_tail(handle) for handle in handles]


def test_a_launch_lets_go_of_those_that_ended_before(
    local: LocalLauncher, wait_until: Callable[..., None]
) -> None:
    """Also where nobody ever asks what became of them: neither descriptors nor dead processes add up."""
    others = psutil.Process().children()
    before = psutil.Process().num_fds()
    for _ in range(3):
        (handle,) = local.launch(python("pass"), 1)
        ended = psutil.Process(int(handle.id))
        wait_until(lambda ended=ended: ended.status() == psutil.STATUS_ZOMBIE)
    assert before + 2 == psutil.Process().num_fds()
    assert [handle.id] == [str(one.pid) for one in psutil.Process().children() if one not in others]
