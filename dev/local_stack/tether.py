"""Runs a command which the system ends, should the process that started it be killed. Linux only.

    python -I -S tether.py <pid of the starter> <signal> <command> [<argument>...]

The command replaces this process. A program of its own rather than a `preexec_fn`, which must not be
used where there are threads; and it comes after `setpriv`, as a change of user undoes the tie.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    starter, ending_signal, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(ending_signal), 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(starter):
        sys.exit("the process that started this one is gone")
    try:
        os.execvp(command[0], command)  # noqa: S606 - replacing this process is the point
    except OSError as exc:
        sys.exit(f"{command[0]}: {exc.strerror}")


if __name__ == "__main__":
    main()
