"""What operating systems do differently: locks, syncs, mounts, and who still runs.

Linux has the most of it in /proc. Elsewhere psutil is used, which has no notion of containers. Tests take these
portable ways on Linux too, with CACHENESS_TEST_PORTABLE=1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

try:
    import fcntl
except ImportError as error:  # Windows
    raise ImportError(
        "cacheness needs locks of whole files that end with their process (flock), which Windows does not have."
        " Use it in WSL 2, or in a Linux container"
    ) from error

#: Whether /proc is left alone.
IS_PORTABLE: Final = not sys.platform.startswith("linux") or os.environ.get("CACHENESS_TEST_PORTABLE", "") == "1"
#: Seconds by which two readings of a process's start may differ where it is computed from a clock that is set.
_START_TOLERANCE: Final = 2.0
_MOUNTS: Final = Path("/proc/mounts")
_FULL_SYNC: Final[int | None] = getattr(fcntl, "F_FULLFSYNC", None)
#: Whether a plain sync leaves bytes in the disk's own memory, which a power cut empties (macOS).
SYNCS_IN_TWO_STEPS: Final = _FULL_SYNC is not None


def lock(descriptor: int, *, waits: bool = False) -> bool:
    """Lock an open file for this process alone. The system frees the lock when the process ends, however it ends.

    A record lock (`fcntl.lockf`) would not do: any close of the file by the same process frees it.

    Returns:
        False when somebody else has it.

    Raises:
        OSError: the file cannot be locked, by anybody.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    """Free a lock, also for children that have the file open."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def sync(descriptor: int) -> None:
    """Bring what was written to an open file, or directory, onto the disk: a power cut leaves it there."""
    if _FULL_SYNC is None:
        os.fsync(descriptor)
    else:
        fcntl.fcntl(descriptor, _FULL_SYNC)


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Bring the names in a directory onto the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def reserve(descriptor: int, size: int) -> None:
    """Let a new file take this many bytes of the disk. Raises OSError where there is no room."""
    if IS_PORTABLE or not hasattr(os, "posix_fallocate"):
        with open(descriptor, "wb", closefd=False) as file:
            file.write(bytes(size))
    else:
        os.posix_fallocate(descriptor, 0, size)


def boot() -> str:
    """What changes at every boot of this kernel; "" where it does not say."""
    if IS_PORTABLE:
        try:
            return f"{_psutil().boot_time():.0f}"
        except OSError:
            return ""
    return _read("/proc/sys/kernel/random/boot_id")


def namespace() -> str:
    """Within which pids mean one process each: on Linux a container has its own; "" where that is not known."""
    if IS_PORTABLE:
        return "all"
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""


def start_of(pid: int) -> str | None:
    """When a process of this namespace started, in words of this system.

    Returns:
        "" when it has ended and its parent has not asked how; None when that cannot be read.
    """
    if IS_PORTABLE:
        psutil = _psutil()
        try:
            process = psutil.Process(pid)
            return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
        except psutil.ZombieProcess:
            return ""
        except (psutil.Error, OSError):
            return None
    # The command name, in parentheses, may itself hold spaces and parentheses (man 5 proc).
    after_name = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if not after_name:
        return None
    return "" if after_name[0] in ("Z", "X") else after_name[19]


def has_ended(pid: int, start: str) -> bool:
    """Return True when no process of this namespace has this pid and start. What cannot be read proves nothing."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it runs, as somebody else
    found = start_of(pid)
    if found is None:
        return False
    if IS_PORTABLE and found and start:
        return abs(float(found) - float(start)) > _START_TOLERANCE
    return found != start


def mounts() -> Iterator[tuple[str, str]]:
    """Where file systems are mounted, and their types; nothing where the system does not say."""
    if IS_PORTABLE:
        for part in _psutil().disk_partitions(all=True):
            yield part.mountpoint, part.fstype
        return
    try:
        lines = _MOUNTS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, point, kind, *_ = line.split(" ")
        yield point.encode().decode("unicode_escape"), kind


def devices() -> Iterator[tuple[int, str]]:
    """The numbers of devices that are mounted, and the types of their file systems; may ask a server that hangs."""
    if IS_PORTABLE:
        for point, kind in mounts():
            try:
                yield os.stat(point).st_dev, kind
            except OSError:
                continue
        return
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                major, minor = line.split(maxsplit=3)[2].split(":")
                yield os.makedev(int(major), int(minor)), line.partition(" - ")[2].split(maxsplit=1)[0]
    except (OSError, ValueError, IndexError):
        return


def _psutil() -> Any:
    import psutil

    return psutil


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
