"""Turns into the command it is given, which the kernel then kills when our process dies.

Run as a script between the gateway and an engine: what has to happen after a fork and before the
command must not be Python of a process with many threads. Linux only; elsewhere a gateway that
is killed with SIGKILL leaves its engines running.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """``child_launcher.py PARENT COMMAND ...``: PARENT is the process id that we die with."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):  # it died before the kernel knew
        sys.exit(1)
    os.umask(0o077)
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
