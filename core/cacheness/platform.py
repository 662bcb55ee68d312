"""Hide differences between operating systems: locks, syncs, mounts, and running processes.

Linux provides most of it in /proc. Elsewhere psutil is used, which does not know containers. Tests
use the portable code on Linux too, with CACHENESS_TEST_PORTABLE=1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from cacheness import forks

try:
    import fcntl
except ImportError as error:  # Windows
    raise ImportError(
        "cacheness needs locks of whole files that end with their process (flock), which Windows does not have."
        " Use it in WSL 2, or in a Linux container"
    ) from error

#: Whether /proc is not used.
IS_PORTABLE: Final = not sys.platform.startswith("linux") or os.environ.get("CACHENESS_TEST_PORTABLE", "") == "1"
#: Seconds by which two readings of a process's start may differ if it is computed from an adjustable clock.
_START_TOLERANCE: Final = 2.0
_MOUNTS: Final = Path("/proc/mounts")
_FALLOC_FL_KEEP_SIZE: Final = 1
_SYNC_FILE_RANGE_WRITE: Final = 2
_FULL_SYNC: Final[int | None] = getattr(fcntl, "F_FULLFSYNC", None)
#: Whether a plain sync leaves bytes in the disk's cache, which a power cut clears (macOS).
SYNCS_IN_TWO_STEPS: Final = _FULL_SYNC is not None


def lock(descriptor: int, *, waits: bool = False) -> bool:
    """Lock an open file for this process alone. The system frees the lock when the process ends.

    A record lock (`fcntl.lockf`) would not do: any close of the file by the same process frees it.

    Returns:
        False if another process has it.

    Raises:
        OSError: the file cannot be locked, by any process.
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
    """Sync an open file, or directory, to the disk, so that it survives a power cut."""
    if _FULL_SYNC is None:
        os.fsync(descriptor)
    else:
        fcntl.fcntl(descriptor, _FULL_SYNC)


def expect(descriptor: int, size: int) -> None:
    """Let the file system allocate a new file of this size at once, if it can: writing it then takes less time."""
    call = _libc("fallocate", "iill")
    if call is not None:
        call(descriptor, _FALLOC_FL_KEEP_SIZE, 0, size)  # without space, the write raises the error


def begin_sync(descriptor: int, start: int) -> None:
    """Start writing a file to the disk, from this byte on, and do not wait. Only after `sync` is it durable."""
    call = _libc("sync_file_range", "illi")
    if call is not None:
        call(descriptor, start, 0, _SYNC_FILE_RANGE_WRITE)  # `sync` raises the error of a disk, as it always did


def _libc(name: str, arguments: str) -> Any:
    """Return a function of Linux that Python has no name for; None on other systems, and on those of 32 bits.

    Args:
        name: of the function in C.
        arguments: a letter for each: i for an int, l for 64 bits.
    """
    return None if IS_PORTABLE or sys.maxsize < 1 << 32 else _function(name, arguments)


@cache
def _function(name: str, arguments: str) -> Any:
    with forks.no_fork():  # a child forked during a thread's import could never import that module
        import ctypes

    call = getattr(ctypes.CDLL(None), name, None)
    if call is not None:
        call.argtypes = [{"i": ctypes.c_int, "l": ctypes.c_int64}[letter] for letter in arguments]
    return call


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Sync the names in a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def reserve(descriptor: int, size: int) -> None:
    """Reserve this many bytes of the disk for a new file. Raises OSError if there is no space."""
    if IS_PORTABLE or not hasattr(os, "posix_fallocate"):
        with open(descriptor, "wb", closefd=False) as file:
            file.write(bytes(size))
    else:
        os.posix_fallocate(descriptor, 0, size)


def boot() -> str:
    """Return what changes at every boot of this kernel; "" if it is unknown."""
    if IS_PORTABLE:
        try:
            return f"{_psutil().boot_time():.0f}"
        except OSError:
            return ""
    return _read("/proc/sys/kernel/random/boot_id")


def namespace() -> str:
    """Return the pid namespace, in which a pid means one process: on Linux a container has its own; "" if unknown."""
    if IS_PORTABLE:
        return "all"
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""


def start_of(pid: int) -> str | None:
    """Return when a process of this namespace started, in a format of this system.

    Returns:
        "" if it has ended and its parent has not waited for it; None if that cannot be read.
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
    # The command name, in parentheses, may itself contain spaces and parentheses (man 5 proc).
    after_name = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if not after_name:
        return None
    return "" if after_name[0] in ("Z", "X") else after_name[19]


def has_ended(pid: int, start: str) -> bool:
    """Return True when no process of this namespace has this pid and start. Unreadable data prove nothing."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it runs, as another user
    found = start_of(pid)
    if found is None:
        return False
    if IS_PORTABLE and found and start:
        return abs(float(found) - float(start)) > _START_TOLERANCE
    return found != start


def mounts() -> Iterator[tuple[str, str]]:
    """Return where file systems are mounted, and their types; nothing if the system does not provide it."""
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
        yield point.encode().decode("unicode_escape") if "\\" in point else point, kind


def devices() -> Iterator[tuple[int, str]]:
    """Return the numbers of mounted devices, and the types of their file systems; may call a server that hangs."""
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
