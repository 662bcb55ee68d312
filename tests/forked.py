"""A child by os.fork() that ends when its work ends: what other libraries would do at an exit is not run."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable


def fork(work: Callable[[], object]) -> int:
    """Run `work` in a child; its process id. The child dies by a signal when it hangs.

    Not multiprocessing: its children run what libraries registered with threading for the end of a process,
    and Prefect's and AnyIO's handlers fail there, because their threads are not in a child.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # pytest-timeout's handler does not run in a thread that hangs in C
    signal.alarm(30)
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Wait for a child; 0 when all went well there."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
