"""The command line's standard streams: input that comes bit by bit, output that nobody reads, closed streams."""

import errno
import io
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from akidb_mlx.cli import inputs
from akidb_mlx.errors import InvalidInputError
from tests.support import TEXTS, golden
from tests.test_cli import MODEL, run

NOT_UTF8 = {"bytes": b"\xff\xfe", "latin-1": b"caf\xe9", "surrogate": b"\xed\xa0\x80"}


@pytest.fixture(params=["embed", "entities"])
def command(request):
    """A command that writes at least one line for each text `Alice`."""
    if request.param == "embed":
        return ["embed", "-m", MODEL]
    pytest.importorskip("spacy")
    return ["entities", "-m", str(request.getfixturevalue("tiny_ner")), "--label", "PERSON"]


@contextmanager
def started(*arguments):
    """Run the command line with pipes to it; a command that hangs is killed, which fails the test."""
    process = subprocess.Popen(
        [sys.executable, "-m", "akidb_mlx", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "AKIDB_DEVICE": "cpu"},
    )
    killer = threading.Timer(60, process.kill)
    killer.start()
    try:
        with process:
            yield process
    finally:
        killer.cancel()


def test_a_producer_that_waits_for_each_answer_gets_it(command):
    with started(*command) as process:
        for _ in range(3):
            process.stdin.write(b"Alice\n")
            assert process.stdout.readline()
        process.stdin.close()
        assert process.stdout.read() == b""
    assert process.returncode == 0


def test_lines_that_are_read_in_slices_have_their_own_results():
    with started("embed", "-m", MODEL) as process:
        rows = []
        for text in (TEXTS[0], TEXTS[7]):
            process.stdin.write(f"{text}\n".encode())
            rows.append(json.loads(process.stdout.readline()))
        process.stdin.close()
    assert np.abs(np.array(rows) - golden("tiny-qwen3")["none"][[0, 7]]).max() <= 2e-5


def test_entities_count_the_lines_of_all_slices(tiny_ner):
    with started("entities", "-m", str(tiny_ner), "--label", "GPE") as process:
        for number in range(2):
            process.stdin.write(b"Alice met Bob in Paris\n")
            assert process.stdout.readline() == b"%d\t17\t22\tGPE\tParis\n" % number
        process.stdin.close()


@pytest.mark.parametrize("bad", NOT_UTF8.values(), ids=NOT_UTF8)
def test_lines_before_one_that_is_not_utf8_are_written(command, bad):
    with started(*command) as process:
        written, errors = process.communicate(b"Alice\nAlice\n" + bad + b"\nAlice\n")
    assert written.count(b"\n") == 2
    assert errors.startswith(b"akidb-mlx: line 3 of standard input is not UTF-8: ")
    assert (process.returncode, errors.count(b"\n")) == (1, 1)


def test_a_byte_order_mark_before_the_texts_is_no_part_of_them(tmp_path):
    """It would change the vector of the first text; after it, the same character is part of a text."""
    texts = [TEXTS[0], "\ufeff" + TEXTS[1], TEXTS[2] + "\ufeff"]
    lines = "\ufeff" + "\n".join(texts)
    assert run("embed", "-m", MODEL, stdin=lines).stdout == run("embed", "-m", MODEL, "--", *texts).stdout
    for text in texts:
        (tmp_path / "text").write_text("\ufeff" + text, encoding="utf-8")
        assert inputs.read_content(tmp_path / "text") == text


def test_offsets_of_entities_are_those_without_a_byte_order_mark(request, tmp_path):
    pytest.importorskip("spacy")
    model = str(request.getfixturevalue("tiny_ner"))
    (tmp_path / "text").write_text("Alice met Bob in Paris", encoding="utf-8-sig")
    for arguments in (["-f", str(tmp_path / "text")], ["-f", "-"], []):
        done = run("entities", "-m", model, "--label", "GPE", *arguments, stdin="\ufeffAlice met Bob in Paris")
        assert done.stdout == "0\t17\t22\tGPE\tParis\n"


def test_lines_before_one_that_the_model_refuses_are_written():
    """The refused line is in the second slice."""
    lines = ["short"] * 1028 + ["word " * 600] + ["short"] * 5
    done = run("embed", "-m", MODEL, "--on-overflow", "error", stdin="\n".join(lines))
    assert done.stdout.count("\n") == 1028
    assert done.stderr.startswith("akidb-mlx: line 1029 of standard input has ")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_a_failure_leaves_no_half_of_a_json_object():
    done = run("embed", "-m", MODEL, "--on-overflow", "error", "--json", stdin="short\n" + "word " * 600)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_reader_that_leaves_ends_the_command_quietly(command):
    """The input never ends: it is not read ahead."""
    with started(*command) as process:

        def feed():
            with suppress(BrokenPipeError):
                while True:
                    process.stdin.write(b"Alice\n" * 1000)

        feeder = threading.Thread(target=feed)
        feeder.start()
        assert process.stdout.readline()
        process.stdout.close()
        feeder.join()
        assert process.stderr.read() == b""
    assert process.returncode == 141


WRITING = [
    ["embed", "-m", MODEL, "a"],
    ["embed", "-m", MODEL, "--json", "a"],
    ["list", "--json"],
    ["--help"],
    ["--version"],
]
writing = pytest.mark.parametrize("arguments", WRITING, ids=lambda arguments: "".join(arguments[:1] + arguments[3:]))
needs_full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")


@needs_full_disk
@writing
@pytest.mark.parametrize("buffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_output_on_a_full_disk(arguments, buffered):
    done = in_shell(">/dev/full", *arguments, PYTHONUNBUFFERED=buffered)
    assert done.stderr == "akidb-mlx: standard output cannot be written: No space left on device\n"
    assert done.returncode == 1


@writing
def test_closed_output(arguments):
    done = in_shell(">&-", *arguments)
    assert done.stderr == "akidb-mlx: standard output cannot be written: Bad file descriptor\n"
    assert done.returncode == 1


@writing
def test_a_reader_that_left_before(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "akidb_mlx", *arguments]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@needs_full_disk
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", ">/dev/full 2>/dev/full", ">&- 2>&-"])
@pytest.mark.parametrize(
    ("arguments", "status"), [(["embed", "-m", "none", "a"], 1), (["nonsense"], 2), (["list", "--json"], None)]
)
def test_messages_that_cannot_be_written(redirection, arguments, status):
    """The status tells still."""
    done = in_shell(redirection, *arguments)
    assert done.returncode == (int(">" in redirection[:1]) if status is None else status)
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [["embed", "-m", MODEL], ["summarize"]], ids=["embed", "summarize"])
def test_closed_input_is_reported(arguments):
    done = in_shell("<&-", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("akidb-mlx: standard input is closed: pass texts as arguments")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_arguments_are_embedded_with_streams_closed(closed):
    done = in_shell(closed, "embed", "-m", MODEL, "a")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def in_shell(redirections, *arguments, **environment):
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-m", "akidb_mlx", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "AKIDB_DEVICE": "cpu", **environment},
    )


class Pipe:
    """Stands for standard input; what is written into it comes out of `slices`."""

    def __init__(self, monkeypatch, slice_size=4):
        reading, writing = os.pipe()
        self.writer = io.FileIO(writing, "w")
        self.reader = io.TextIOWrapper(io.FileIO(reading))
        monkeypatch.setattr(sys, "stdin", self.reader)
        self.slices = inputs.open_texts(None, slice_size=slice_size).slices

    def close(self):
        self.writer.close()
        self.reader.close()


@pytest.fixture
def pipe(monkeypatch):
    pipe = Pipe(monkeypatch)
    yield pipe
    pipe.close()


def test_a_slice_is_full_or_has_waited(pipe):
    pipe.writer.write(b"1\n2\n3\n4\n5\n6\nunfin")
    assert next(pipe.slices) == ["1", "2", "3", "4"]
    assert next(pipe.slices) == ["5", "6"]
    pipe.writer.write(b"ished\r\nlast")
    assert next(pipe.slices) == ["unfinished"]
    pipe.writer.close()
    assert list(pipe.slices) == [["last"]]


def test_lines_that_are_there_fill_a_slice_whatever_the_time(pipe, monkeypatch):
    monkeypatch.setattr(inputs, "_MAX_WAIT_S", 0.0)
    monkeypatch.setattr(inputs, "_READ_BYTES", 1)
    pipe.writer.write(b"1\n2\n3\n4\n5\n")
    assert list(islice(pipe.slices, 2)) == [["1", "2", "3", "4"], ["5"]]


def test_few_long_lines_fill_a_slice(pipe, monkeypatch):
    monkeypatch.setattr(inputs, "_SLICE_BYTES", 10)
    pipe.writer.write(b"12345\n67890\nrest\n")
    assert list(islice(pipe.slices, 2)) == [["12345", "67890"], ["rest"]]


def test_a_line_without_end_is_refused(pipe, monkeypatch):
    monkeypatch.setattr(inputs, "_MAX_LINE_BYTES", 2 << 20)

    def feed():
        with suppress(BrokenPipeError):
            pipe.writer.write(b"first\n" + b"\0" * (3 << 20))

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert next(pipe.slices) == ["first"]
    with pytest.raises(InvalidInputError, match="line 2 of standard input is longer than 2 MB"):
        next(pipe.slices)
    pipe.reader.close()
    feeder.join()


def test_lines_before_a_failure_to_read_are_there(pipe, monkeypatch):
    pipe.writer.write(b"first\n")
    next_block = iter([b"first\n", OSError(errno.EIO, "Input/output error")])

    def read(*_):
        if isinstance(block := next(next_block), OSError):
            raise block
        return block

    monkeypatch.setattr(os, "read", read)
    assert next(pipe.slices) == ["first"]
    with pytest.raises(InvalidInputError, match="standard input cannot be read: Input/output error"):
        next(pipe.slices)


@pytest.mark.parametrize(
    ("content", "texts"),
    [(b"", []), (b"\n", [""]), (b"a", ["a"]), (b"a\n\n", ["a", ""]), (b"a\r\nb\rc\xe2\x80\xa8d", ["a", "b\rc\u2028d"])],
)
def test_only_a_line_feed_ends_a_line(pipe, content, texts):
    pipe.writer.write(content)
    pipe.writer.close()
    assert [text for part in pipe.slices for text in part] == texts
