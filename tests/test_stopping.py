"""How the command ends that is asked to, at moments at which that is easily lost."""

import signal
import subprocess
import sys

import pytest

# Whoever started the tests may ignore signals, as nohup does.
HEEDING = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
"""

# The command, with a step in its place that a signal comes to; a library makes another error of it.
DURING_A_COMMAND = """
from audioset import cli

def step(**options):
    try:
        os.kill(os.getpid(), signal.{name})
        time.sleep(10)
    except KeyboardInterrupt:
        {then}

cli.cli.main = step
cli.main()
"""
AFTERWARDS = {
    "goes on": "raise",
    "an import fails": "raise ImportError('initialization failed') from None",
    "ours is raised": "from audioset.errors import EngineError; raise EngineError('none', code='engine') from None",
}

DURING_IMPORT = """
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "audioset.cli":
            os.kill(os.getpid(), signal.{name})
            time.sleep(10)

sys.meta_path.insert(0, Finder())
from audioset.__main__ import main
main()
"""


def _run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", HEEDING + script], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("then", AFTERWARDS)
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_stop_is_called_that_whatever_a_library_makes_of_it(name: str, then: str) -> None:
    done = _run(DURING_A_COMMAND.format(name=name, then=AFTERWARDS[then]))
    assert (done.returncode, done.stderr) == (128 + signal.Signals[name], "audioset: stopped\n")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_stop_while_the_command_is_imported_ends_it_without_a_traceback(name: str) -> None:
    done = _run(DURING_IMPORT.format(name=name))
    assert (done.returncode, done.stderr) == (-signal.Signals[name], "")
