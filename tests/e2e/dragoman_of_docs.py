"""The `dragoman` of the documents while they are tested: `dragoman serve` takes free ports and is ended by SIGTERM as soon as it listens.

Every other command is the real one. A script of its own, which workspace.py puts on the PATH; it imports nothing of the tests.
"""

import signal
import subprocess
import sys
import threading

_LONGEST_S = 90.0


def serve_until_it_listens(arguments: list[str]) -> int:
    """`dragoman serve ARGUMENTS` on free ports, ended by SIGTERM once it listens. Returns its exit code; what it printed is printed."""
    chosen: list[str] = []
    ports = 0
    rest = iter(arguments)
    for argument in rest:
        if argument in ("-p", "--port"):
            next(rest)
            ports += 1
        else:
            chosen.append(argument)
    command = [sys.executable, "-m", "dragoman", *chosen, *["--port", "0"] * max(1, ports)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(_LONGEST_S, process.kill)
        watchdog.start()
        assert process.stderr is not None
        listened = False
        for line in process.stderr:
            print(line, end="", file=sys.stderr)
            if "is listening on" in line:
                listened = True
                process.send_signal(signal.SIGTERM)
        watchdog.cancel()
        return process.wait() if listened else 1


def main(arguments: list[str]) -> int:
    """The `dragoman` of the documents."""
    if arguments[:1] == ["serve"] and not {"--help", "--print-config"} & set(arguments):
        return serve_until_it_listens(arguments)
    return subprocess.run([sys.executable, "-m", "dragoman", *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
