"""Runs a command that the system ends if the process that started it is killed. Linux only.

    python -I -S tether.py <pid of the starter> <signal> <command> [<argument>...]

The command replaces this process. This is a program rather than a `preexec_fn`, which is unsafe if there are
threads. It runs after `setpriv`, because a change of the user removes the setting.
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
        os.execvp(command[0], command)
    except OSError as exc:
        sys.exit(f"{command[0]}: {exc.strerror}")


if __name__ == "__main__":
    main()
