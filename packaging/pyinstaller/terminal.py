"""terminal.py EXECUTABLE ENDPOINT: Ctrl-C at a terminal ends `raftberry watch`, without a word."""

import os
import pty
import signal
import sys
import time

START_S = 10.0
END_S = 120.0

process, terminal = pty.fork()
if process == 0:
    # Ignored where the build runs in the background of a script, and inherited; at a terminal it is not.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execv(sys.argv[1], [sys.argv[1], "watch", "*", "--endpoint", sys.argv[2]])
time.sleep(START_S)
os.write(terminal, b"\x03")
end = time.monotonic() + END_S
while time.monotonic() < end:
    found, status = os.waitpid(process, os.WNOHANG)
    if found:
        said = os.read(terminal, 4096).decode().strip()
        code = os.waitstatus_to_exitcode(status)
        # Ended by the signal, or with the status that a shell gives to that.
        sys.exit(0 if code in (130, -2) and said == "^C" else f"terminal: status {code}, said {said!r}")
    time.sleep(0.1)
os.kill(process, 9)
sys.exit(f"terminal: Ctrl-C did not end it within {END_S} s")
