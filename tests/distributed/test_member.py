"""A process that takes part in another's run: it ends with it, and may fork processes of its own."""

import subprocess
import sys

FORKS = """
import multiprocessing, threading, time
from glimpse.distributed.member import _end_with_it
threading.Thread(target=_end_with_it, daemon=True).start()
time.sleep(0.2)
decoder = multiprocessing.get_context("fork").Process(target=print, args=("decoded",))
decoder.start()
decoder.join(20)
print(decoder.exitcode, flush=True)
time.sleep(60)
"""


def test_a_member_that_watches_its_input_can_fork_and_ends_with_it() -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as member:
        assert member.stdin is not None
        assert member.stdout is not None
        assert [member.stdout.readline() for _ in range(2)] == [b"decoded\n", b"0\n"]
        member.stdin.close()
        assert member.wait(30) == 1
