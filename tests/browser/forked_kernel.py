"""Kernels for the browser tests, forked from one process that has already imported what their cells import.

A new kernel spends some 9 seconds of processor time on imports; the tests start about 25. Ordinary kernels run in the
tests of a hub and in `test_notebooks.py`.

    python forked_kernel.py serve SOCKET            the process that forks
    python forked_kernel.py SOCKET CONNECTION_FILE  what Jupyter starts, interrupts and ends instead of a kernel
"""

import gc
import json
import os
import signal
import socket
import sys
import threading


def serve(address: str) -> None:
    """Fork a kernel for each connection, which sends its folder and environment, until the process is terminated."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()  # connections from now on wait for the imports
        _import_what_cells_import()
        gc.collect()
        gc.freeze()  # so that a kernel's garbage collections do not touch the memory that it shares with this process
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            connection, _ = server.accept()
            with connection:
                if os.fork() == 0:
                    server.close()
                    _be_a_kernel(connection)


def _import_what_cells_import() -> None:
    import ipykernel.kernelapp  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import pandas  # noqa: F401
    import peft  # noqa: F401
    import transformers.trainer  # noqa: F401

    import gpt4roi_nb
    import gpt4roi_nb.widgets

    for module in (gpt4roi_nb, gpt4roi_nb.widgets):
        for name in module.__all__:
            getattr(module, name)


def _be_a_kernel(connection: socket.socket) -> None:
    """Run the kernel; never returns. Ends when the other side does."""
    with connection.makefile("r") as lines:
        told = json.loads(lines.readline())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    os.environ.pop("JPY_PARENT_PID", None)  # the kernel would look for a parent that it does not have
    connection.sendall(f"{os.getpid()}\n".encode())

    def end_with_the_other_side() -> None:
        connection.recv(1)
        os._exit(1)

    threading.Thread(target=end_with_the_other_side, daemon=True).start()
    sys.argv = ["ipykernel_launcher", "-f", told["file"]]
    sys.path.insert(0, "")
    from ipykernel.kernelapp import launch_new_instance

    try:
        launch_new_instance()
    finally:
        os._exit(0)


def stand_for_a_kernel(address: str, file: str) -> None:
    """Request a kernel, pass interrupts on to it, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # until there is a kernel
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        told = {"file": file, "folder": os.getcwd(), "environment": dict(os.environ)}
        connection.sendall(json.dumps(told).encode() + b"\n")
        with connection.makefile("r") as lines:
            kernel = int(lines.readline())
            signal.signal(signal.SIGINT, lambda *_: os.kill(kernel, signal.SIGINT))
            lines.read()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        stand_for_a_kernel(*sys.argv[1:])
