"""A process that is killed while it writes: the file is the old one or the new one, and nothing else stays."""

import json
import os
import signal
import tempfile
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fuzzing import examples
from glimpse.files import write_json

OLD, NEW = {"old": "x" * 200_000}, {"new": "y" * 400_000}


@examples(20)
@given(wait=st.floats(0, 0.02), again=st.booleans())
def test_a_write_is_whole_or_not_there(wait: float, again: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "summary.json")
        write_json(path, OLD)
        child = os.fork()
        if child == 0:
            try:
                while True:
                    write_json(path, NEW)
                    write_json(path, OLD)
            finally:
                os._exit(1)
        time.sleep(wait)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert json.loads(path.read_text()) in (OLD, NEW)
        if again:  # the next write clears up what the killed one has left
            write_json(path, NEW)
            assert os.listdir(folder) == ["summary.json"]
