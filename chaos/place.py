"""Where a run happens: server, proxy, managers, machines with workers, and every process of theirs."""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import psutil

from chaos import work
from chaos.ledger import Ledger
from chaos.proxy import FaultProxy
from chaos.server import ChaosServer
from rushlight import Rush
from rushlight.errors import RushlightError

ROOT = Path(__file__).resolve().parents[1]
#: Marks every process of a run, however it was started.
MARK = "RUSHLIGHT_CHAOS_RUN"


class Site:
    """Everything that runs, and everything of it that can be hurt."""

    def __init__(
        self,
        seed: int,
        managers: int,
        machines: int,
        controllers: int,
        old: Path | None,
        binary: str | None,
        fsync: str,
    ) -> None:
        self.seed = seed
        self.name = f"chaos-{uuid.uuid4().hex[:10]}"
        #: The network of the controllers' calls.
        self.calls = f"{self.name}-calls"
        self.folder = Path(tempfile.mkdtemp(prefix="rlc-", dir="/tmp")).resolve()
        self.ledgers = self.folder / "ledgers"
        for part in ("ledgers", "tmp", "home"):
            (self.folder / part).mkdir(mode=0o700)
        self.old = old
        self.clock = self.folder / "clients.clock"
        self.clock.write_text("+0.0\n")
        # The driver's own, and before anything signs with the user's key.
        os.environ["RUSHLIGHT_HOME"] = str(self.folder / "home")
        self.ledger = Ledger(str(self.ledgers), "driver")
        self.server = ChaosServer(self.folder, binary, fsync)
        self.proxy = FaultProxy(str(self.server.socket))
        self._wanted = [(f"m{n}", n == managers - 1 and old is not None) for n in range(managers)]
        self._n_machines = machines
        self._n_controllers = controllers
        self._managers: dict[str, subprocess.Popen[bytes]] = {}
        self._controllers: dict[str, subprocess.Popen[bytes]] = {}
        self._machines: list[subprocess.Popen[bytes]] = []
        self._generation = 0
        self._script = ""
        self._closing = False

    @property
    def direct(self) -> str:
        """The server without the proxy."""
        return self.server.url

    def _environment(self, *, old: bool = False) -> dict[str, str]:
        sources = [str(self.old if old else ROOT / "src"), str(ROOT), str(ROOT / "chaos" / "clock")]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sources),
            "RUSHLIGHT_CHAOS_CLOCK": str(self.clock),
            "TMPDIR": str(self.folder / "tmp"),
            work.FOLDER: str(self.ledgers),
            MARK: self.name,
        }

    # --- keeping it up ------------------------------------------------------------------------------

    def keep_up(self) -> None:
        """Starts programs and machines that are not there, as whoever runs a site does."""
        if self._closing:
            return
        for name, old in self._wanted:
            process = self._managers.get(name)
            if process is None or process.poll() is not None:
                self._managers[name] = self._program("chaos.work", name, self.name, old=old)
        for n in range(self._n_controllers):
            process = self._controllers.get(f"c{n}")
            if process is None or process.poll() is not None:
                self._note_end(f"c{n}", process)
                self._controllers[f"c{n}"] = self._program("chaos.calls", f"c{n}", self.calls)
        self._machines = [machine for machine in self._machines if machine.poll() is None]
        while len(self._machines) < self._n_machines:
            self._machines.append(self._machine())

    def _program(self, module: str, name: str, network: str, *, old: bool = False) -> subprocess.Popen[bytes]:
        self._generation += 1
        seed = f"{self.seed}-{name}-{self._generation}"
        command = [sys.executable, "-m", module, name, network, self.proxy.url, seed]
        return subprocess.Popen(
            command, env=self._environment(old=old), cwd=self.folder, start_new_session=True
        )

    def _note_end(self, name: str, process: subprocess.Popen[bytes] | None) -> None:
        """A program with a controller ends where it is killed, and never else."""
        if process is not None and process.returncode not in (0, -signal.SIGKILL):
            self.ledger.write("died", name=f"{name}: exit code {process.returncode}")

    def _machine(self) -> subprocess.Popen[bytes]:
        """A supervisor that no manager of the run has started."""
        if not self._script:
            with Rush(self.name, self.proxy.url) as rush:
                self._script = rush.worker_script(
                    work.serve, 2, lease=work.LEASE, on_lost="requeue", max_restarts=1000
                )
        return subprocess.Popen(
            shlex.split(self._script), env=self._environment(), cwd=self.folder, start_new_session=True
        )

    # --- who is there -------------------------------------------------------------------------------

    def processes(self) -> list[psutil.Process]:
        """All processes of the run but the server and this one."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self.name and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def managers(self) -> list[psutil.Process]:
        return self._alive([process.pid for process in self._managers.values() if process.poll() is None])

    def controllers(self) -> list[psutil.Process]:
        return self._alive([process.pid for process in self._controllers.values() if process.poll() is None])

    def supervisors(self) -> list[psutil.Process]:
        """Processes of the worker command whose parents are none."""
        chosen = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                parent = process.parent()
                if _is_worker(process) and (parent is None or not _is_worker(parent)):
                    chosen.append(process)
        return chosen

    def workers(self) -> list[psutil.Process]:
        """Worker processes that have written something down."""
        pids = [int(path.name.split(".")[1]) for path in self.ledgers.glob("worker.*.jsonl")]
        return [process for process in self._alive(pids) if _is_worker(process)]

    def _alive(self, pids: list[int]) -> list[psutil.Process]:
        found = []
        for pid in pids:
            with contextlib.suppress(psutil.Error, OSError):
                process = psutil.Process(pid)
                if process.environ().get(MARK) == self.name and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def pick(self, role: str, rng: random.Random) -> psutil.Process | None:
        found = sorted(getattr(self, role)(), key=lambda process: process.pid)
        return rng.choice(found) if found else None

    # --- the end ------------------------------------------------------------------------------------

    def heal(self) -> None:
        """Everything works again."""
        orders = self.proxy.orders
        orders.lose_replies = orders.lose_requests = orders.twice = orders.hold = 0
        orders.delay = 0.0
        self.proxy.thaw()
        self.proxy.release()
        self.server.go_on()
        self.server.disk.clear()
        if not self.server.answers():
            self.server.kill()
            self.server.start()
        self.server.limit_memory(spare=0)
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if process.status() == psutil.STATUS_STOPPED:
                    process.resume()

    def rest(self) -> None:
        """Managers only read from now on, controllers only collect, and nobody is started any more."""
        self._closing = True
        self._signal(self._managers, signal.SIGUSR1)
        self._signal(self._controllers, signal.SIGUSR1)

    def kill_controllers(self, seconds: float = 90.0) -> None:
        """Kills them once they have collected all there was, and have made some calls more."""
        self._await_line("drained", seconds)
        self._signal(self._controllers, signal.SIGTERM)
        self._await_line("left behind", seconds)
        for process in self._controllers.values():
            if process.poll() is None:
                self.ledger.write("kill", role="controllers", pid=process.pid)
                process.kill()
            process.wait()

    def _await_line(self, what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        waiting = {name: process.pid for name, process in self._controllers.items()}
        while waiting and time.monotonic() < deadline:
            for name, pid in list(waiting.items()):
                text = (self.ledgers / f"{name}.{pid}.jsonl").read_text()
                if f'"what": "{what}"' in text or self._controllers[name].poll() is not None:
                    del waiting[name]
            threading.Event().wait(0.1)
        for name in waiting:
            self.ledger.write("died", name=f"{name}: it did not get as far as {what!r}")

    def collect_the_rest(self, seconds: float = 120.0) -> None:
        """A new controller collects what the killed ones have left, and ends their workers."""
        if not self._n_controllers:
            return
        self._controllers["last"] = process = self._program("chaos.calls", "last", self.calls)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            self.ledger.write("died", name="last: it did not end")
        self._note_end("last", process)

    def stop_workers(self, seconds: float = 40.0) -> None:
        """Workers finish what they have and leave, also those that come late; who does not is killed. Ends
        with the last supervisor."""
        with Rush(self.name, self.direct) as rush:
            for how in ("terminate", "kill"):
                deadline = time.monotonic() + seconds
                self.ledger.write("stop", worker_id="all", how=how)
                while self.supervisors() and time.monotonic() < deadline:
                    with contextlib.suppress(RushlightError):
                        rush.stop_workers(how)
                    threading.Event().wait(0.2)

    def stop_managers(self, seconds: float = 60.0) -> None:
        self._signal(self._managers, signal.SIGTERM)
        for process in self._managers.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)

    def _signal(self, programs: dict[str, subprocess.Popen[bytes]], number: int) -> None:
        for process in programs.values():
            if process.poll() is None:
                process.send_signal(number)

    def left_over(self, seconds: float = 15.0) -> list[str]:
        """Processes and files nobody took away, some time after the end."""
        deadline = time.monotonic() + seconds
        while (processes := self.processes()) and time.monotonic() < deadline:
            threading.Event().wait(0.1)
        left = []
        for process in processes:
            with contextlib.suppress(psutil.Error):
                left.append(f"process {process.pid}: {' '.join(process.cmdline())[:120]}")
        for part in ("tmp", "home"):
            found = [path for path in (self.folder / part).rglob("*") if path.name != "key"]
            # The cache of blocks is the host's, bounded, and outlasts everybody.
            left += [
                f"file {path}" for path in found if self.folder / "home" / "cache" not in (path, path.parent)
            ]
        return left

    def close(self, *, keep: bool = False) -> None:
        """Ends whatever is left, and takes the folder away unless it is to be looked at."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        for child in (*self._managers.values(), *self._controllers.values(), *self._machines):
            child.wait()
        self.proxy.close()
        self.server.close(keep=keep)
        self.ledger.close()
        if not keep:
            shutil.rmtree(self.folder)


def _is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()
        return "rushlight" in words and "worker" in words
    return False
