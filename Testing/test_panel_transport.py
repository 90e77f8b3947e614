"""The transport by QProcess, with small programs at the other end: what comes, in which order, and how it ends."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest
from host.fixtures import _started_host, slicer_host  # noqa: F401

UNIX_ONLY = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals")


class Heard:
    """A transport, and all that it delivered."""

    def __init__(self, code: str, *arguments: str, program: str = sys.executable, environment=None):
        from MedMapAIQt.process_transport import ProcessTransport

        self.output, self.errors, self.ends = b"", b"", []
        self.transport = ProcessTransport()
        environment = {**os.environ, **(environment or {})}
        self.transport.start(
            program, ["-c", code, *arguments], environment, self.on_output, self.on_error, self.on_exit
        )

    def on_output(self, data):
        assert not self.ends, "nothing comes after the end"
        self.output += data

    def on_error(self, data):
        assert not self.ends, "nothing comes after the end"
        self.errors += data

    def on_exit(self, code, number):
        self.ends.append((code, number))


def wait(host, heard):
    host.process_events(lambda: heard.ends, timeout_s=60)
    host.process_events()
    host.check()
    assert len(heard.ends) == 1 and heard.transport.pid is None


def test_lines_go_there_and_back_while_the_event_loop_turns(slicer_host):  # noqa: F811
    heard = Heard("import sys\nfor line in sys.stdin.buffer: sys.stdout.buffer.write(line.upper()); sys.stdout.flush()")
    assert heard.transport.pid not in (None, os.getpid())
    heard.transport.write("größe\n".encode())
    slicer_host.process_events(lambda: heard.output.endswith(b"\n"), timeout_s=60)
    assert heard.output == b"GR\xc3\xb6\xc3\x9fE\n" and not heard.ends
    heard.transport.write(b"more\n")
    heard.transport.close_input()
    wait(slicer_host, heard)
    assert heard.output.endswith(b"MORE\n") and heard.ends == [(0, None)]
    # Nobody is there any more, and nothing happens.
    heard.transport.write(b"late\n")
    heard.transport.close_input()
    heard.transport.kill()
    heard.transport.poll()


def test_all_output_comes_before_the_end(slicer_host):  # noqa: F811
    heard = Heard("import sys; sys.stderr.write('e' * 300000); sys.stdout.write('o' * 3000000); sys.exit(7)")
    wait(slicer_host, heard)
    assert (len(heard.output), len(heard.errors)) == (3000000, 300000) and heard.ends == [(7, None)]


def test_polling_delivers_without_the_event_loop(slicer_host):  # noqa: F811
    heard = Heard("print(input())")
    heard.transport.write(b"hello\n")
    end = time.monotonic() + 60
    while not heard.ends and time.monotonic() < end:
        heard.transport.poll()
    assert heard.output.split() == [b"hello"] and heard.ends == [(0, None)]


@UNIX_ONLY
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_signal_is_told_by_its_number(slicer_host, number):  # noqa: F811
    heard = Heard(f"import os; print('there', flush=True); os.kill(os.getpid(), {int(number)})")
    wait(slicer_host, heard)
    assert heard.output == b"there\n" and heard.ends == [(None, int(number))]


@UNIX_ONLY
def test_kill_ends_it_also_when_nobody_holds_the_transport(slicer_host):  # noqa: F811
    heard = Heard("import time; time.sleep(600)")
    heard.transport.kill()
    ends = heard.ends
    heard.transport = None
    slicer_host.process_events(lambda: ends, timeout_s=10)
    assert ends == [(None, int(signal.SIGKILL))]


def test_a_program_that_is_not_there_is_told_at_once(slicer_host, tmp_path):  # noqa: F811
    with pytest.raises(OSError, match="no-program"):
        Heard("", program=str(tmp_path / "no-program"))


def test_environment_and_arguments_arrive_whole(slicer_host, tmp_path):  # noqa: F811
    code = "import os, sys; sys.stdout.buffer.write(ascii([os.environ.get('MEDMAPAI_X'), sys.argv[1:]]).encode())"
    arguments = ["with space", "größe", 'quote " and \\', ""]
    heard = Heard(code, *arguments, environment={"MEDMAPAI_X": "Ünï cödé = 1", "PYTHONUTF8": "1"})
    wait(slicer_host, heard)
    assert heard.output.decode() == ascii(["Ünï cödé = 1", arguments])


def test_the_worker_client_speaks_through_it(slicer_host, tmp_path):  # noqa: F811
    from MedMapAILib.inference.worker_client import WorkerClient
    from MedMapAIQt.process_transport import ProcessTransport

    client = WorkerClient(ProcessTransport)
    failures, finished = [], []
    client.train({}, tmp_path / "output", on_finished=finished.append, on_failure=failures.append)
    slicer_host.process_events(lambda: failures or finished, timeout_s=240)
    assert [failure.kind for failure in failures] == ["input"], (failures, finished)
    client.shut_down()
