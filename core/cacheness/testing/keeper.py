"""
Keep one server running as long as its owner needs it. Run as a program, by `servers.py`.

The keeper is a separate process in a separate session, so that Ctrl-C does not reach it and a
killed test run does not kill it: when its owner ends, it stops the server and removes the folder.
If the keeper itself is killed, the kernel stops the server.

If the server ends by itself, this is recorded in the file `ended`, so that the owner need not wait
for it. The module needs only the standard library, and reads its configuration from the JSON file
in its argument.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cacheness.lazy_dataclass import dataclass

STOP_SECONDS = 10.0
LOOK_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to run, for which owner, and where."""

    owner: int  #: pid; the server is stopped when this process ends
    folder: str  #: removed at the end, with all contents
    prepare: list[str]  #: a command to run first; may be empty
    command: list[str]
    environment: dict[str, str]
    user: str | None  #: run the server as this user
    stop: str  #: name of the signal that stops the server cleanly
    orders: bool  #: whether stdin carries orders, and its end means the end

    @property
    def log(self) -> Path:
        """The server's output."""
        return Path(self.folder, "server.log")

    @property
    def ended(self) -> Path:
        """Written when a command ended by itself: which, and how."""
        return Path(self.folder, "ended")


class Keeper:
    """One server process, and the reasons to start or stop it."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._server: subprocess.Popen[bytes] | None = None
        self._wanted = False

    def run(self) -> None:
        """Serve until the owner has ended, or until SIGTERM or a closed stdin."""
        try:
            if self._prepare():
                self.start()
            for order in _orders(self._task):
                if order:
                    self._obey(order)
                else:
                    self._note_end()
        finally:
            self.stop(self._task.stop)
            shutil.rmtree(self._task.folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # the last keeper also removes the folder around it
                os.rmdir(os.path.dirname(self._task.folder))

    def start(self) -> None:
        """Start the server, if it does not run."""
        if self._server is not None:
            if _is_dying(self._server.pid):
                self._server.wait()
            if self._server.poll() is None:
                return
        self._task.ended.unlink(missing_ok=True)
        self._server = self._run(self._task.command)
        self._wanted = self._server is not None

    def stop(self, how: str) -> None:
        """Stop the server with a signal, and with SIGKILL if it does not end."""
        self._wanted = False
        if self._server is None:
            return
        self._server.send_signal(signal.Signals[how])
        try:
            self._server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def _prepare(self) -> bool:
        if not self._task.prepare:
            return True
        process = self._run(self._task.prepare)
        if process is None:
            return False
        if process.wait():
            self._record(f"{self._task.prepare[0]} ended with exit code {process.returncode}")
        return not process.returncode

    def _note_end(self) -> None:
        if self._wanted and self._server is not None and self._server.poll() is not None:
            self._wanted = False
            self._record(f"{self._task.command[0]} ended with exit code {self._server.returncode}")

    def _record(self, what: str) -> None:
        aside = self._task.ended.with_suffix(".new")
        aside.write_text(what)
        aside.rename(self._task.ended)

    def _run(self, command: list[str]) -> subprocess.Popen[bytes] | None:
        with open(self._task.log, "ab") as log:
            try:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **self._task.environment},
                    cwd=self._task.folder,
                    preexec_fn=self._die_with_keeper,  # noqa: PLW1509 - the keeper has one thread
                    **as_user(self._task.user),
                )
            except (OSError, subprocess.SubprocessError) as error:  # not there, not ours to run
                self._record(f"{command[0]} could not be run: {error}")
                return None

    def _obey(self, order: str) -> None:
        verb, _, argument = order.partition(" ")
        if verb == "stop":
            self.stop(argument or self._task.stop)
        else:
            self.start()
        os.write(1, b"done\n")

    def _die_with_keeper(self) -> None:
        if self._libc is not None:
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.Signals[self._task.stop])


def as_user(user: str | None) -> dict[str, Any]:
    """Return the arguments for `subprocess` to run a command as a user."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _orders(task: Task) -> Iterator[str]:
    """Yield lines from stdin, until the owner or stdin ends; "" after each moment without one."""
    pidfd = os.pidfd_open(task.owner) if hasattr(os, "pidfd_open") else -1
    sources = [0] * task.orders + [pidfd] * (pidfd >= 0)
    pending = b""
    while _alive(task.owner):
        ready, _, _ = select.select(sources, [], [], LOOK_SECONDS)
        if pidfd in ready:
            return
        if 0 not in ready:
            yield ""
            continue
        data = os.read(0, 4096)
        if not data:
            return
        *lines, pending = (pending + data).split(b"\n")
        yield from (line.decode() for line in lines)


def _is_dying(pid: int) -> bool:
    """Return True when a process was killed, and its first thread is gone: `poll` waits for its last one."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _end(_number: int, _frame: object) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    Keeper(Task(**json.loads(Path(sys.argv[1]).read_text()))).run()
