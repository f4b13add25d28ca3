"""Google's own tool for Colab, loaded once for all calls of the tests: loading it takes a second of a processor each
time, and a job's walk calls it dozens of times.

Run as a script by the tool's own Python, it forks for each call that comes over its socket (`warm_call`). What runs
then is the vendor's code, with the caller's arguments, folder, environment and open files, in a process of its own.
"""

import atexit
import contextlib
import gc
import os
import select
import selectors
import signal
import socket
import sys
from typing import NoReturn


class Server:
    """One process without threads, so that it can be forked at any time."""

    def __init__(self, path: str) -> None:
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(path)
        self.listening.listen(64)
        self.calls: dict[int, tuple[socket.socket, int]] = {}
        """The caller and the process id of each running call, by a descriptor that tells its end."""

    def serve(self) -> list[str] | None:
        """Answer until standard input ends, and give None then; in the process of a call, give its arguments."""
        while True:
            callers = {caller.fileno(): end for end, (caller, _) in self.calls.items()}
            ready, _, _ = select.select([0, self.listening.fileno(), *self.calls, *callers], [], [])
            if 0 in ready:
                for _, process in self.calls.values():  # nobody would see any more that its caller is killed
                    os.kill(process, signal.SIGKILL)
                return None
            for each in ready:
                if each in self.calls:
                    self.ended(each)
                elif (end := callers.get(each)) in self.calls:  # the caller was killed: the tool would be dead with it
                    os.kill(self.calls[end][1], signal.SIGKILL)
                    self.ended(end)
            if self.listening.fileno() in ready and (arguments := self.begin()) is not None:
                return arguments

    def ended(self, end: int) -> None:
        """Tell a caller how its call ended."""
        caller, process = self.calls.pop(end)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        with caller, contextlib.suppress(OSError):
            caller.sendall((status if status >= 0 else 128 - status).to_bytes(4, "big"))
        os.close(end)

    def begin(self) -> list[str] | None:
        """Take a call and start its process; gives the arguments there, and None here."""
        caller, _ = self.listening.accept()
        size, files, _, _ = socket.recv_fds(caller, 8, 64)
        with caller.makefile("rb") as sent:
            whole = sent.read(int.from_bytes(size, "big"))
        if len(files) < 3 or len(whole) < int.from_bytes(size, "big"):  # it was killed meanwhile
            caller.close()
        elif process := os.fork():
            self.calls[os.pidfd_open(process)] = (caller, process)
        else:
            caller.close()
            self.forget()
            return become(os.fsdecode(whole).split("\0"), files)
        for file in files:
            os.close(file)
        return None

    def forget(self) -> None:
        """Close what is the server's alone."""
        self.listening.close()
        for end, (caller, _) in self.calls.items():
            os.close(end)
            caller.close()


def become(told: list[str], files: list[int]) -> list[str]:
    """Take over the caller's streams, folder and environment; gives its arguments. Other files stay open, as locks."""
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
        os.close(file)
    os.chdir(told[0])
    count = int(told[1])
    os.environ.clear()
    os.environ.update(each.partition("=")[::2] for each in told[2 + count :])
    return told[2 : 2 + count]


def main(tool: str, path: str) -> NoReturn:
    """Load the tool and serve; a call's process goes on here, and ends as the tool's own script does."""
    status: list[int] = [1]  # of an exception that nobody catches
    # Known before the tool is loaded, and so called behind all that is to happen at the end of a process.
    atexit.register(lambda: leave(status[-1]))
    from colab_cli import cli  # type: ignore[import-not-found]  # it is in the tool's environment alone
    from filelock import ReadWriteLock  # noqa: F401  # loaded only when it is asked for, which each call does

    # The tool's thread that listens to a machine sleeps on for ten seconds where another thread closes the connection,
    # by a race that only epoll, the default, can lose: the file is forgotten before its end is told.
    selectors.DefaultSelector = selectors.PollSelector  # type: ignore[assignment,misc]
    server = Server(path)
    gc.freeze()
    print("ready", end="", flush=True)
    arguments = server.serve()
    try:
        if arguments is None:
            sys.exit(0)
        sys.argv = [tool, *arguments[1:]]
        sys.exit(cli.main())
    except SystemExit as end:
        status.append(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise


def leave(status: int) -> NoReturn:
    """End without taking a thousand modules apart, each page of which would be copied for that."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
