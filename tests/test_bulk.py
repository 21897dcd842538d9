"""Files into vectors: formats, shards, going on after an end, and rows that cannot be embedded."""

import errno
import gzip
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow", reason="pip install 'akidb-mlx[bulk]'")
pytest.importorskip("fsspec")
import pyarrow.csv
import pyarrow.parquet as pq

from akidb_mlx.bulk import embed_files, writer
from akidb_mlx.bulk import lines as bulk_lines
from akidb_mlx.errors import ConfigurationError, InvalidInputError
from tests.support import GOLDENS

ROOT = Path(__file__).parent.parent
WORDS = ["the", "ledger", "of", "a", "small", "harbour", "town", "holds", "names", "debts", "ships", "and", "weather"]
ROWS = 300
BODIES = [" ".join(WORDS[: 1 + row % 12]) + f" {row % 250}" for row in range(ROWS)]
TABLE = {"key": [f"k{row}" for row in range(ROWS)], "body": BODIES, "year": [1800 + row % 90 for row in range(ROWS)]}
OPTIONS = {"column": "body", "id_column": "key", "keep": ["year"], "shard_rows": 64}


@pytest.fixture
def model(service):
    return service("tiny-bert")


def write(path: Path, table=TABLE) -> Path:
    """A file of the kind that its name says."""
    kind, data = path.name.split(".", 1)[1], pa.table(table)
    if kind == "parquet":
        pq.write_table(data, path, row_group_size=50)
    elif kind in ("arrow", "arrows.arrow"):
        make = pa.ipc.new_stream if kind != "arrow" else pa.ipc.new_file
        with make(str(path), data.schema) as sink:
            sink.write_table(data, max_chunksize=70)
    else:
        if kind.startswith("jsonl"):
            content = "".join(json.dumps(row) + "\n" for row in data.to_pylist()).encode()
        elif kind.startswith("txt"):
            content = "\n".join(table["body"]).encode()  # the last line has no end
        else:
            sink = pa.BufferOutputStream()
            delimiter = "\t" if kind.startswith("tsv") else ","
            pyarrow.csv.write_csv(data, sink, pyarrow.csv.WriteOptions(delimiter=delimiter))
            content = sink.getvalue().to_pybytes()
        if kind.endswith(".gz"):
            content = gzip.compress(content[:1000]) + gzip.compress(content[1000:])
        elif kind.endswith(".zst"):
            content = pa.compress(content, "zstd", asbytes=True)
        path.write_bytes(content)
    return path


def shards(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("shard-*.parquet"))])


def vectors(table: pa.Table) -> np.ndarray:
    return np.array(table["embedding"].to_pylist())


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of all files, but for the times in the manifest."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    manifest = json.loads(found["manifest.json"])
    for one in (manifest, *manifest["shards"]):
        for name in ("created", "finished", "seconds"):
            one.pop(name, None)
    assert not (folder / ".work").exists()
    return found | {"manifest.json": json.dumps(manifest).encode()}


@pytest.mark.parametrize(
    "name",
    ["a.parquet", "a.arrow", "a.arrows.arrow", "a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.csv", "a.csv.gz", "a.tsv"],
)
def test_every_format_gives_the_vectors_of_embed_array(name, model, tmp_path):
    summary = embed_files([write(tmp_path / name)], output=tmp_path / "out", model=model, **OPTIONS)
    assert (summary.rows, summary.embedded, summary.shards, summary.rejected) == (ROWS, ROWS, 5, 0)
    table = shards(tmp_path / "out")
    assert table["key"].to_pylist() == TABLE["key"]
    assert [int(year) for year in table["year"].to_pylist()] == TABLE["year"]
    batch = model.embed_detailed(BODIES)
    assert np.abs(vectors(table) - batch.vectors).max() < 1e-6
    assert table["token_count"].to_pylist() == batch.token_counts
    assert table["truncated"].to_pylist() == batch.truncated
    assert table.schema.field("embedding").type.list_size == model.dimension
    assert [len(pq.read_table(path)) for path in sorted((tmp_path / "out").glob("*.parquet"))] == [64] * 4 + [44]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.zst"])
def test_lines_of_text_are_numbered(name, model, tmp_path):
    embed_files([write(tmp_path / name)], output=tmp_path / "out", model=model, shard_rows=128)
    table = shards(tmp_path / "out")
    assert table["id"].to_pylist() == list(range(ROWS))
    assert np.abs(vectors(table) - model.embed_array(BODIES)).max() < 1e-6


def test_a_folder_a_pattern_and_a_url_stand_for_files(model, tmp_path):
    import fsspec

    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "b.parquet", {name: values[100:] for name, values in TABLE.items()})
    write(folder / "a.jsonl", {name: values[:100] for name, values in TABLE.items()})
    (folder / "notes.md").write_text("no rows")
    memory = fsspec.filesystem("memory")
    for path in sorted(folder.glob("*.*")):
        memory.pipe(f"/bulk/{path.name}", path.read_bytes())
    for inputs in (
        [folder],
        [f"{folder}/*.jsonl", f"{folder}/b.*"],
        ["memory://bulk/a.jsonl", "memory://bulk/*.parquet"],
    ):
        # The output lies in the folder that is read, and a second run does not read it.
        output = folder / "out"
        for _ in range(2):
            embed_files(inputs, output=output, model=model, fresh=True, **OPTIONS)
            assert shards(output)["key"].to_pylist() == TABLE["key"]
    manifest = json.loads((output / "manifest.json").read_text())
    assert [one["rows"] for one in manifest["inputs"]] == [100, 200]
    assert (manifest["format"], manifest["version"], manifest["state"]) == ("akidb-mlx-bulk", 1, "complete")


def test_rows_that_span_lines_and_blocks_are_whole(model, tmp_path, monkeypatch):
    """Lines are cut where a read ends, and quoted cells hold line feeds; shards begin in the middle of it all."""
    monkeypatch.setattr(bulk_lines, "_READ_BYTES", 37)
    monkeypatch.setattr(bulk_lines, "_BLOCK_ROWS", 7)
    table = {**TABLE, "body": [f'{body}\nsaid "{row}", and\r\nleft' for row, body in enumerate(BODIES)]}
    for name in ("a.csv", "a.jsonl", "a.tsv"):
        output = tmp_path / name.replace(".", "-")
        embed_files([write(tmp_path / name, table)], output=output, model=model, **OPTIONS)
        read = shards(output)
        assert read["key"].to_pylist() == TABLE["key"]
        assert read["token_count"].to_pylist() == model.embed_detailed(table["body"]).token_counts


@pytest.mark.parametrize("dtype", ["float16", "int8", "binary"])
def test_smaller_types(dtype, model, tmp_path):
    embed_files([write(tmp_path / "a.parquet")], output=tmp_path / "out", model=model, dtype=dtype, **OPTIONS)
    ranges = json.loads((tmp_path / "out" / "manifest.json").read_text())["ranges"]
    assert (ranges is not None) == (dtype == "int8")
    expected = model.embed_array(BODIES, output_dtype=dtype, ranges=ranges)
    found = vectors(shards(tmp_path / "out"))
    assert found.shape == expected.shape
    # The last bits of a vector may take a value over a step.
    assert (np.abs(found.astype(float) - expected.astype(float)) > (1e-3 if dtype == "float16" else 0)).mean() < 0.01


def test_npy_holds_the_vectors_beside_the_rows(model, tmp_path):
    embed_files([write(tmp_path / "a.parquet")], output=tmp_path / "out", model=model, format="npy", **OPTIONS)
    arrays = [np.load(path, mmap_mode="r") for path in sorted((tmp_path / "out").glob("*.npy"))]
    assert np.abs(np.concatenate(arrays) - model.embed_array(BODIES)).max() < 1e-6
    table = shards(tmp_path / "out")
    assert table.column_names == ["key", "year", "token_count", "truncated"]
    assert [len(array) for array in arrays] == [64] * 4 + [44]


class EndedError(Exception):
    pass


def end_after(chunks):
    """A listener that ends the job after so many chunks."""
    left = [chunks]

    def listen(event):
        left[0] -= event["event"] == "progress"
        if left[0] < 0:
            raise EndedError

    return listen


def run_in_pieces(path, output, model, **options):
    """Run a job that is ended once and again, each time a chunk later."""
    for chunks in range(20):
        try:
            return embed_files([path], output=output, model=model, listener=end_after(chunks), **options)
        except EndedError:
            assert not list(output.glob("**/*.partial"))
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("options", [{}, {"format": "npy"}, {"dtype": "int8"}])
def test_a_job_that_is_ended_again_and_again_leaves_the_same_bytes(options, model, tmp_path, monkeypatch):
    monkeypatch.setattr("akidb_mlx.bulk.chunks.CHUNK_ROWS", 20)
    table = {**TABLE, "body": [None if row % 41 == 0 else body for row, body in enumerate(BODIES)]}
    path = write(tmp_path / "a.parquet", table)
    options = {**OPTIONS, **options, "shard_rows": 40}
    whole = embed_files([path], output=tmp_path / "whole", model=model, **options)
    pieces = run_in_pieces(path, tmp_path / "pieces", model, **options)
    assert content(tmp_path / "pieces") == content(tmp_path / "whole")
    assert (whole.computed, pieces.embedded) == (whole.embedded, whole.embedded)
    assert pieces.computed < whole.computed
    again = embed_files([path], output=tmp_path / "pieces", model=model, **options)
    assert (again.computed, again.embedded) == (0, whole.embedded)


def test_a_shard_that_is_gone_or_cut_is_made_again(model, tmp_path):
    path, output = write(tmp_path / "a.parquet"), tmp_path / "out"
    embed_files([path], output=output, model=model, **OPTIONS)
    before = content(output)
    (output / "shard-000001.parquet").unlink()
    os.truncate(output / "shard-000003.parquet", 100)
    assert embed_files([path], output=output, model=model, **OPTIONS).computed == 128
    assert content(output) == before


def test_another_model_option_or_input_is_refused_by_name(model, service, tmp_path):
    path, output = write(tmp_path / "a.parquet"), tmp_path / "out"
    with pytest.raises(EndedError):
        embed_files([path], output=output, model=model, listener=end_after(1), **OPTIONS)
    for change, message in (
        ({"model": service("tiny-roberta")}, "the model changed.*architecture was 'bert'"),
        ({"dtype": "float16"}, "the options changed.*dtype was 'float32' and is 'float16'"),
        ({"shard_rows": 65}, "the options changed.*shard_rows was 64 and is 65"),
        ({"keep": []}, "the options changed.*keep"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            embed_files([path], **{"output": output, "model": model, **OPTIONS, **change})
    moved = path.rename(tmp_path / "b.parquet")
    assert embed_files([moved], output=output, model=model, **OPTIONS).embedded == ROWS
    write(moved, {**TABLE, "body": [*BODIES[:-1], "another end"]})
    with pytest.raises(InvalidInputError, match=r"the input changed.*b\.parquet is not what it was"):
        embed_files([moved], output=output, model=model, **OPTIONS)
    with pytest.raises(InvalidInputError, match="there were 1 files, and there are 2"):
        embed_files([write(moved), write(tmp_path / "c.parquet")], output=output, model=model, **OPTIONS)
    assert embed_files([moved], output=output, model=model, fresh=True, **OPTIONS).computed == ROWS


def test_a_dry_run_counts_and_writes_nothing(model, tmp_path):
    summary = embed_files([write(tmp_path / "a.csv")], output=tmp_path / "out", model=model, dry_run=True, **OPTIONS)
    assert (summary.dry, summary.rows, summary.shards, summary.bytes) == (True, ROWS, 5, ROWS * model.dimension * 4)
    assert 0.5 < summary.tokens / sum(model.embed_detailed(BODIES).token_counts) < 2
    assert summary.seconds > 0
    assert not (tmp_path / "out").exists()


# Rows that cannot be embedded.


def refused(output):
    return [json.loads(line) for line in (output / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]


def test_bad_rows_go_to_the_rejected_and_the_job_goes_on(model, tmp_path, monkeypatch):
    monkeypatch.setattr("akidb_mlx.bulk.chunks.LONGEST_TEXT", 5000)
    path = tmp_path / "a.jsonl"
    lines = [
        '{"key": "a", "body": "good"}',
        '{"key": "b", "body": 7}',
        "not JSON",
        "",
        '{"key": "c", "body": null}',
        '{"key": "d"}',
        '{"key": 4, "body": "a number for a key"}',
        '{"key": null, "body": "no key"}',
        '{"key": "e", "body": "half a pair: \\ud800"}',
        '["a list"]',
        json.dumps({"key": "f", "body": "x" * 5001}),
        '{"key": "g", "body": ""}',
        '{"key": "h", "body": "good too"}',
    ]
    path.write_bytes("\n".join(lines).encode() + b'\n{"key": "i", "body": "caf\xe9"}\n')
    output, options = tmp_path / "out", {"column": "body", "id_column": "key", "shard_rows": 5}
    summary = embed_files([path], output=output, model=model, **options)
    assert shards(output)["key"].to_pylist() == ["a", "g", "h"]
    assert [(one["shard"], one["row"]) for one in refused(output)] == [
        *((0, 2), (0, 3), (1, 7), (1, 8), (1, 9), (1, 10), (2, 11), (2, 14)),
    ]
    assert all(one["file"] == str(path) for one in refused(output))
    reasons = [one["reason"] for one in refused(output)]
    for reason, expected in zip(
        reasons,
        ("no string: 7", "not JSON", "no string", "null", "surrogate", "object", "5001 char", "UTF-8"),
        strict=True,
    ):
        assert expected in reason
    assert (summary.rows, summary.embedded, summary.skipped, summary.rejected) == (14, 3, 2, 8)
    assert np.abs(vectors(shards(output)) - model.embed_array(["good", "", "good too"])).max() < 1e-6
    before = content(output)
    run_in_pieces(path, tmp_path / "pieces", model, **options)
    assert content(tmp_path / "pieces") == before
    with pytest.raises(InvalidInputError, match=r"8 rows were refused, and max_rejected is 7; the last: .*row 14"):
        embed_files([path], output=tmp_path / "few", model=model, max_rejected=7, **options)
    assert len(refused(tmp_path / "few")) == 8
    embed_files([path], output=tmp_path / "few", model=model, max_rejected=8, **options)
    assert content(tmp_path / "few") == before
    with pytest.raises(InvalidInputError, match=r"a\.jsonl, row 5: no text"):
        embed_files([path], output=tmp_path / "strict", model=model, on_null="error", **options)


def test_bytes_that_are_not_utf8_refuse_their_row_only(model, tmp_path):
    csv = tmp_path / "a.csv"
    csv.write_bytes(b"\xef\xbb\xbfkey,body\r\n1,good\r\n2,caf\xe9\r\n\r\n3,caf\xc3\xa9\r\n4\r\n5,end\r\n")
    summary = embed_files([csv], output=tmp_path / "out", model=model, column="body", id_column="key")
    assert shards(tmp_path / "out")["key"].to_pylist() == ["1", "3", "5"]
    assert [one["row"] for one in refused(tmp_path / "out")] == [2, 4]
    assert summary.rejected == 2
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 2, 4], np.int32)), pa.py_buffer(b"ok\xff\xfe")]
    )
    pq.write_table(pa.table({"body": broken}), tmp_path / "b.parquet")
    embed_files([tmp_path / "b.parquet"], output=tmp_path / "b", model=model, column="body")
    assert [one["reason"] for one in refused(tmp_path / "b")] == ["its text is not UTF-8"]
    assert shards(tmp_path / "b")["id"].to_pylist() == [0]


def test_quotation_marks_that_are_not_in_order_refuse_their_row(model, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text\none\n"two" and more\n"three, and ""more"""\n"never closed\nand on\n')
    embed_files([path], output=tmp_path / "out", model=model)
    assert shards(tmp_path / "out")["id"].to_pylist() == [0, 2]
    assert [(one["row"], one["reason"][:30]) for one in refused(tmp_path / "out")] == [
        (2, "its quotation marks are not in"),
        (4, "its quotation marks are not in"),
    ]


def test_a_text_that_is_too_long_is_refused_where_errors_are_asked_for(model, tmp_path):
    table = {"body": ["short", "long " * 400, "short again", "longer " * 500]}
    embed_files(
        [write(tmp_path / "a.parquet", table)], output=tmp_path / "out", model=model, column="body", on_overflow="error"
    )
    assert [one["row"] for one in refused(tmp_path / "out")] == [2, 4]
    assert "its text has" in refused(tmp_path / "out")[0]["reason"]
    found = shards(tmp_path / "out")
    assert found["id"].to_pylist() == [0, 2]
    assert np.abs(vectors(found) - model.embed_array(["short", "short again"])).max() < 1e-6


def test_a_line_that_is_too_long_is_passed_over(model, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk_lines, "LONGEST_LINE", 100)
    monkeypatch.setattr(bulk_lines, "_READ_BYTES", 64)
    for name, head in (("a.txt", ""), ("a.csv", "text\n"), ("a.jsonl", "")):
        lines = ["one", "x" * 1000, "two", "y" * 101, "three"]
        lines = [json.dumps({"text": line}) for line in lines] if name == "a.jsonl" else lines
        (tmp_path / name).write_text(head + "\n".join(lines))
        output = tmp_path / name.replace(".", "-")
        embed_files([tmp_path / name], output=output, model=model, shard_rows=2)
        assert shards(output)["id"].to_pylist() == [0, 2, 4], name
        assert ["longer than" in one["reason"] for one in refused(output)] == [True, True]


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.parquet", None, {}, r"a\.parquet cannot be read: .*Parquet"),
        ("a.arrow", b"ARROW1\0\0 and no more", {}, r"a\.arrow cannot be read"),
        ("a.jsonl.gz", b"not gzip", {}, r"a\.jsonl\.gz cannot be read"),
        ("a.csv", b"", {}, "does not begin with a row of names"),
        ("a.csv", b"name,body\n", {}, "no column 'text'; it has 'name', 'body'"),
        ("a.csv", b"text\n", {}, "no rows in .*a.csv"),
        ("a.jsonl", b'{"name": 1}\n', {}, "no column 'text'; it has 'name'"),
        ("a.txt", b"a\n", {"column": "body"}, "no column 'body'; it has 'text'; the lines of a text file"),
        ("a.txt", b"", {}, "no rows"),
        ("a.dat", b"a\n", {}, "does not say how it holds rows; known are .parquet"),
        (
            "a.jsonl",
            b'{"text": "a", "n": 1}\n{"text": "b", "n": 2}\n{"text": "c", "n": 1}\n',
            {"id_column": "n"},
            r"two rows have the n 1: .*a\.jsonl, row 1, and .*a\.jsonl, row 3",
        ),
        ("a.txt", b"a\n", {"keep": ["embedding"]}, "a column 'embedding' of its own"),
        ("a.txt", b"a\n", {"keep": ["id"]}, "would be called 'id'"),
        ("a.txt", b"a\n", {"dtype": "int4"}, "dtype must be one of"),
        ("a.txt", b"a\n", {"shard_rows": 0}, "shard_rows must be an integer of 1 or more"),
        ("a.txt", b"a\n", {"dimensions": 1000}, "dimensions must be an integer from 1"),
        ("a.txt", b"a\n", {"input_type": "nothing"}, "nothing"),
    ],
)
def test_what_cannot_be_read_or_done_is_refused_by_name(name, content, options, message, model, tmp_path):
    path = tmp_path / name
    if content is None:
        content = write(tmp_path / "whole.parquet").read_bytes()[:-200]
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=message):
        embed_files([path], output=tmp_path / "out", model=model, **options)
    assert not list(tmp_path.glob("out/shard-*"))


# An output that cannot be written, and a process that dies.


def test_an_output_that_cannot_be_written_is_refused_by_name(model, tmp_path):
    path = write(tmp_path / "a.parquet")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigurationError, match=r"output .*file cannot be written"):
        embed_files([path], output=tmp_path / "file", model=model, **OPTIONS)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "shard-000000.parquet").write_text("of somebody else")
    for fresh in (False, True):
        with pytest.raises(ConfigurationError, match="holds shards and no manifest"):
            embed_files([path], output=foreign, model=model, fresh=fresh, **OPTIONS)
    assert (foreign / "shard-000000.parquet").read_text() == "of somebody else"
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"manifest\.json cannot be read"):
        embed_files([path], output=tmp_path / "damaged", model=model, **OPTIONS)

    def again(event):
        if event["event"] == "begin":
            with pytest.raises(ConfigurationError, match="another job is writing it"):
                embed_files([path], output=tmp_path / "out", model=model, **OPTIONS)

    embed_files([path], output=tmp_path / "out", model=model, listener=again, **OPTIONS)


def test_a_full_disk_ends_the_job_and_publishes_nothing_half(model, tmp_path, monkeypatch):
    """A limit on the size of files stands for a full disk: the system itself refuses to write on."""
    path, output = write(tmp_path / "a.parquet"), tmp_path / "out"
    embed_files([path], output=tmp_path / "whole", model=model, **OPTIONS)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, hard))
        with pytest.raises(ConfigurationError, match=r"output .*out cannot be written: .*what is done is kept"):
            embed_files([path], output=output, model=model, **OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert not list(output.glob("shard-*"))
    assert not list(output.glob("**/*.partial"))

    def fail_sync(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(writer, "sync", fail_sync)
        with pytest.raises(ConfigurationError, match="No space left on device"):
            embed_files([path], output=output, model=model, **OPTIONS)
    assert not list(output.glob("shard-*"))
    embed_files([path], output=output, model=model, **OPTIONS)
    assert content(output) == content(tmp_path / "whole")


JOB = """
import sys
from akidb_mlx import EmbeddingService
from akidb_mlx.bulk import chunks, embed_files
chunks.CHUNK_ROWS = 20
with EmbeddingService(sys.argv[3], device="cpu") as model:
    print("begun", flush=True)
    options = dict(column="body", id_column="key", keep=["year"], shard_rows=40)
    embed_files([sys.argv[1]], output=sys.argv[2], model=model, **options)
"""


def run_until_killed(path, output, seconds):
    """Run the job in a process that is killed after some seconds, counted from its begin; return whether it was."""
    arguments = [sys.executable, "-c", JOB, str(path), str(output), str(GOLDENS / "tiny-bert")]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as job:
        assert job.stdout.readline() == "begun\n"
        try:
            assert job.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            job.kill()
            return True
    return False


@pytest.mark.parametrize("kills", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_a_process_that_is_killed_leaves_whole_shards_and_in_the_end_the_same_bytes(
    kills, model, tmp_path, monkeypatch
):
    monkeypatch.setattr("akidb_mlx.bulk.chunks.CHUNK_ROWS", 20)
    table = {**TABLE, "body": [None if row % 41 == 0 else body for row, body in enumerate(BODIES)]}
    path = write(tmp_path / "a.parquet", table)
    options = {**OPTIONS, "shard_rows": 40}
    embed_files([path], output=tmp_path / "whole", model=model, **options)
    whole = content(tmp_path / "whole")
    random = np.random.default_rng(22)
    killed = jobs = 0
    while killed < kills:
        output = tmp_path / f"job-{jobs}"
        jobs += 1
        while killed < kills and run_until_killed(path, output, random.uniform(0, 0.2)):
            killed += 1
            for shard in output.glob("shard-*"):
                assert shard.read_bytes() == whole[shard.name]
        embed_files([path], output=output, model=model, **options)
        assert content(output) == whole
