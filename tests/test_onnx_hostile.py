"""ONNX files that mean harm: each is refused with a typed error, at the cost of little memory."""

import resource
import struct
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from akidb_mlx import EmbeddingService
from akidb_mlx.backends.onnx import model as model_module
from akidb_mlx.backends.onnx.inspection import inspect
from akidb_mlx.errors import ModelLoadError
from tests.onnx_models import TABLE, exported, table_model, with_model
from tests.support import run_python


def write(tmp_path, model) -> str:
    file = tmp_path / "model.onnx"
    file.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return file


def refused(tmp_path, model) -> str:
    with pytest.raises(ModelLoadError) as caught:
        inspect(write(tmp_path, model))
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def changed(change) -> onnx.ModelProto:
    model = table_model()
    change(model)
    return model


def test_a_good_file_is_described(tmp_path):
    found = inspect(write(tmp_path, table_model()))
    assert (found.precision, found.external) == ("float32", set())
    assert TABLE.nbytes <= found.weight_bytes <= TABLE.nbytes + 100


def test_every_truncation_is_refused(tmp_path):
    whole = table_model(table=TABLE[:2]).SerializeToString()
    good = 0
    for size in range(0, len(whole), 3):
        (tmp_path / "model.onnx").write_bytes(whole[:size])
        try:
            inspect(tmp_path / "model.onnx")
            good += 1  # cut between fields, of which none that is left is wrong
        except ModelLoadError:
            pass
    assert good <= 3


def test_random_changes_never_end_in_another_error(tmp_path):
    random = np.random.default_rng(5)
    whole = bytearray(table_model(table=TABLE[:2]).SerializeToString())
    for _ in range(500):
        copy = bytearray(whole)
        for place in random.integers(0, len(copy), 3):
            copy[place] = random.integers(0, 256)
        (tmp_path / "model.onnx").write_bytes(copy)
        try:
            inspect(tmp_path / "model.onnx")
        except ModelLoadError as error:
            assert len(str(error)) < 1000


def test_a_million_nodes_are_refused_soon(tmp_path):
    node = helper.make_node("Neg", ["x"], ["x"]).SerializeToString()
    graph = (b"\x0a" + bytes([len(node)]) + node) * 1_000_000
    size, length = len(graph), b""
    while size:
        length += bytes([(size & 0x7F) | (0x80 if size > 0x7F else 0)])
        size >>= 7
    began = time.process_time()
    assert "more than 100000 nodes" in refused(tmp_path, b"\x3a" + length + graph)
    assert time.process_time() - began < 20


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "", "a/../../secret"])
def test_data_outside_of_the_folder_is_refused(tmp_path, location):
    (tmp_path / "m").mkdir()
    (tmp_path / "secret").write_bytes(bytes(TABLE.nbytes))

    def point(model):
        tensor = next(one for one in model.graph.initializer if one.name == "table")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    assert "outside of its folder" in refused(tmp_path / "m", changed(point))


def test_a_link_that_leaves_the_folder_is_refused(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "secret").write_bytes(bytes(TABLE.nbytes))
    (tmp_path / "m" / "data").symlink_to(tmp_path / "secret")
    assert "outside of its folder" in refused(tmp_path / "m", external("data"))


def external(location, **entries) -> onnx.ModelProto:
    def point(model):
        tensor = next(one for one in model.graph.initializer if one.name == "table")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **entries}.items():
            tensor.external_data.add(key=key, value=value)

    return changed(point)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({}, None),
        ({"offset": "-8"}, "not all in"),
        ({"offset": "9"}, "not all in"),
        ({"length": "9999999999999"}, "not all in"),
        ({"offset": "x"}, "cannot be found"),
    ],
)
def test_data_beside_a_file_must_be_whole(tmp_path, entries, reason):
    (tmp_path / "data").write_bytes(TABLE.tobytes())
    model = external("data", **entries)
    if reason is None:
        assert inspect(write(tmp_path, model)).external == {"data"}
    else:
        assert reason in refused(tmp_path, model)


def test_missing_data_is_named(tmp_path):
    assert "'data' with the data of its tensors is missing" in refused(tmp_path, external("data"))


def set_shape(*shape):
    def change(model):
        tensor = model.graph.initializer[0]
        del tensor.dims[:]
        tensor.dims.extend(shape)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_shape(-2000, -32), "has the shape [-2000, -32]"),
        (set_shape(1 << 40, 1 << 40), "its shape"),
        (set_shape(*[1] * 17), "more than 16 axes"),
        (lambda m: m.graph.node[0].__setattr__("domain", "evil.ops"), "needs operators of 'evil.ops' (Gather)"),
        (lambda m: m.opset_import.append(helper.make_opsetid("evil.ops", 1)), "needs operators of 'evil.ops'"),
        (lambda m: m.graph.input[0].type.tensor_type.shape.dim[0].__setattr__("dim_value", -3), "holds the size -3"),
        (lambda m: m.functions.add(name="f"), "functions or training steps"),
        (lambda m: m.training_info.add(), "functions or training steps"),
        (lambda m: m.graph.sparse_initializer.add(), "sparse tensors"),
        (lambda m: m.graph.initializer[0].__setattr__("data_type", TensorProto.STRING), "is of the type 8"),
        (lambda m: m.ClearField("graph"), "holds 0 graphs"),
        (
            lambda m: m.graph.node[0].attribute.append(
                helper.make_attribute("body", helper.make_graph([], "g", [], []))
            ),
            "its operator Gather holds a graph of its own",
        ),
        (
            lambda m: m.graph.initializer.append(TensorProto(name="z", dims=[1 << 50], data_type=1, float_data=[1.0])),
            "fewer numbers than its shape",
        ),
    ],
)
def test_what_an_embedding_model_does_not_need_is_refused(tmp_path, change, reason):
    assert reason in refused(tmp_path, changed(change))


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"not onnx at all", struct.pack("<Q", 2**63) * 50])
def test_other_files_are_refused(tmp_path, content):
    refused(tmp_path, content)


def test_a_service_refuses_before_onnx_runtime_is_asked(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(model_module, "open_session", lambda *_, **__: asked.append(1))
    directory = with_model(tmp_path, changed(lambda m: m.graph.node[0].__setattr__("domain", "evil")))
    with pytest.raises(ModelLoadError, match="evil"):
        EmbeddingService(str(directory), device="cpu", backend="onnx")
    assert not asked


def test_a_computed_size_beyond_memory_is_an_error(tmp_path):
    """The file is small, and asks for arrays of 64 TB when it runs."""
    nodes = (
        helper.make_node("ConstantOfShape", ["huge"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"]),
    )
    model = table_model(nodes=nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1 << 44]), "huge"))
    model.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, None))
    directory = with_model(tmp_path, model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelLoadError):
        EmbeddingService(str(directory), device="cpu", backend="onnx")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_inspection_does_not_read_weights(tmp_path):
    """The file's weights are a hole of 8 GB."""
    directory = exported("tiny-bert", tmp_path)
    model = onnx.load(directory / "onnx/model.onnx")
    weights = 1 << 33
    model.graph.initializer.append(
        TensorProto(name="hole", dims=[weights // 4], data_type=1, data_location=TensorProto.EXTERNAL)
    )
    model.graph.initializer[-1].external_data.add(key="location", value="hole")
    file = directory / "onnx/model.onnx"
    file.write_bytes(model.SerializeToString())
    with (directory / "onnx/hole").open("wb") as hole:
        hole.truncate(weights)
    done = run_python(
        "import resource, sys\nfrom pathlib import Path\nfrom akidb_mlx.backends.onnx.inspection import inspect\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"  # on Linux it counts the process that started this one
        "print(inspect(Path(sys.argv[1])).weight_bytes, peak() - before)",
        60,
        str(file),
    )
    found, growth = map(int, done.stdout.split())
    assert found > weights
    assert growth < 100_000
