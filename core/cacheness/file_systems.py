"""Detect the type of a path's file system, and mark directories as caches."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cacheness.platform import mounts

#: On these, several machines see the same files; locks and shared memory between their processes do not work, or hang.
NETWORK_FILE_SYSTEMS: Final = (
    *("9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "gfs2"),
    *("glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb2", "smb3", "smbfs"),
    *("afpfs", "webdav"),
)
#: Backup programs recognise a cache by this file: https://bford.info/cachedir/
CACHE_TAG: Final = "CACHEDIR.TAG"
_SIGNATURE: Final = "Signature: 8a477f597d28d172789f06886806bc55\n"


def file_system_of(path: str | os.PathLike[str]) -> str:
    """Return the type of the file system that holds a path, "" if the system does not provide it."""
    resolved, best, kind = os.path.join(os.path.realpath(path), ""), "", ""
    for point, fstype in mounts():
        if resolved.startswith(os.path.join(point, "")) and len(point) >= len(best):
            best, kind = point, fstype
    return kind


def is_local(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is on a local disk, and not served by another process."""
    kind = file_system_of(path)
    return kind not in NETWORK_FILE_SYSTEMS and not kind.startswith("fuse")


def tag_cache(directory: str | os.PathLike[str], about: str) -> None:
    """Mark a directory as a cache. `about` is a sentence for people who read the file.

    Raises:
        OSError: the file cannot be written.
    """
    Path(directory, CACHE_TAG).write_text(f"{_SIGNATURE}# {about}\n", encoding="utf-8")
