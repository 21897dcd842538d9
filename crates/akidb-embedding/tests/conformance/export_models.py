"""Exports tiny models into a folder, and writes what Python computes with them to calls.json; damaged copies beside.

    python export_models.py FOLDER [MODEL DIRECTORY]

With a model's name, only that one is exported, into the directory MODEL of the folder.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import onnx

ROOT = Path(__file__).resolve().parents[4]
sys.path.insert(0, str(ROOT))

from akidb_mlx import EmbeddingService  # noqa: E402
from akidb_mlx.backends.onnx import export as exporting  # noqa: E402
from akidb_mlx.checkpoint.checkpoint import read_checkpoint  # noqa: E402

GOLDENS = ROOT / "tests" / "goldens"
TINY = ("tiny-bert", "tiny-roberta", "tiny-qwen3", "tiny-gemma3", "tiny-modernbert")
PROMPTS = {"query": "search: ", "passage": "passage: "}
_SIZES = ("dimension", "default_dimension")
OPTIONS = (
    {},
    {"input_type": "query"},
    {"input_type": "document"},
    {"prompt": "in short: "},
    {"dimensions": 8},  # left out for models that were not trained for it
    {"on_overflow": "chunk"},
    {"on_overflow": "chunk", "prompt": "in short: ", "normalize": False},
    {"normalize": False},
)


def export(name: str, folder: Path, prompts: dict[str, str]) -> Path:
    """Export the model of a directory into a folder."""
    file = folder / "onnx" / "exported.onnx"
    exporting.export_model(read_checkpoint(Path(name)), prompts, file)
    return file


def calls(directory: str, model: str, prompts: dict[str, str], texts: list[str], options: tuple) -> list[dict]:
    """Return what Python computes for texts, with each of the options in turn."""
    found = []
    with EmbeddingService(directory, device="cpu", backend="mlx") as service:
        for chosen in options:
            if "dimensions" in chosen and not service.get_model_info()["matryoshka"]:
                continue
            # The prompts of an export are its caller's; the service knows those of the files.
            given = dict(chosen)
            if "input_type" in given:
                given["prompt"] = prompts["query" if given.pop("input_type") == "query" else "passage"]
            batch = service.embed_detailed(texts, **given)
            found.append(
                {
                    "model": model,
                    "options": chosen,
                    "texts": texts,
                    "vectors": batch.vectors.tolist(),
                    "token_counts": batch.token_counts,
                    "truncated": batch.truncated,
                }
            )
    return found


def damage(good: Path, folder: Path) -> None:
    """Write files that must be refused, each as the model of a directory of its own."""

    def write(name: str, change: Callable[[onnx.ModelProto], object]) -> None:
        model = onnx.load(good)
        content = change(model)
        file = folder / name / "onnx" / "exported.onnx"
        file.parent.mkdir(parents=True)
        file.write_bytes(content if isinstance(content, bytes) else model.SerializeToString())

    def set_entry(model: onnx.ModelProto, key: str, value: str) -> None:
        next(entry for entry in model.metadata_props if entry.key == key).value = value

    def move_weights(model: onnx.ModelProto, place: str) -> None:
        tensor = max(model.graph.initializer, key=lambda one: one.ByteSize())
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=place)

    def negative(model: onnx.ModelProto) -> None:
        max(model.graph.initializer, key=lambda one: one.ByteSize()).dims[0] = -1

    (folder / "secret.bin").write_bytes(bytes(1 << 20))
    (folder / "linked" / "onnx").mkdir(parents=True)
    (folder / "linked" / "onnx" / "weights").symlink_to(folder / "secret.bin")
    write("truncated", lambda _: good.read_bytes()[: good.stat().st_size // 2])
    write("empty", lambda _: b"")
    write("random", lambda _: bytes(range(256)) * 40)
    write("outside", lambda model: move_weights(model, "../../secret.bin"))
    write("absolute", lambda model: move_weights(model, str(folder / "secret.bin")))
    write("missing", lambda model: move_weights(model, "nowhere.bin"))
    write("no-metadata", lambda model: model.ClearField("metadata_props"))
    write("wrong-dimension", lambda model: [set_entry(model, f"akidb.{key}", "33") for key in _SIZES])
    write("no-default", lambda model: set_entry(model, "akidb.default_dimension", "0"))
    write("wrong-tokenizer", lambda model: set_entry(model, "akidb.tokenizer", '{"model": 1}'))
    write("no-room", lambda model: set_entry(model, "akidb.max_tokens", "2"))
    write("negative", negative)
    write("domain", lambda model: model.opset_import.append(onnx.helper.make_opsetid("com.example", 1)))
    write("two-outputs", lambda model: model.graph.output.append(model.graph.output[0]))
    move_weights(model := onnx.load(good), "weights")
    (folder / "linked" / "onnx" / "exported.onnx").write_bytes(model.SerializeToString())
    branch = onnx.helper.make_node("If", ["c"], ["x"], then_branch=model.graph, else_branch=model.graph)
    write("branch", lambda model: model.graph.node.append(branch))


def main() -> None:
    """Write all of it."""
    folder = Path(sys.argv[1])
    texts = json.loads((GOLDENS / "texts.json").read_text(encoding="utf-8"))["texts"]
    texts += ["word " * 900, "", "[SEP] <s> </s> <|endoftext|> <bos>"]
    if len(sys.argv) > 2:
        model, directory = sys.argv[2:]
        export(directory, folder / model, {})
        found = calls(directory, model, {}, texts, OPTIONS[:1])
    else:
        found = []
        for model in TINY:
            export(str(GOLDENS / model), folder / model, PROMPTS)
            found += calls(str(GOLDENS / model), model, PROMPTS, texts, OPTIONS)
        exporting._MAX_INLINE = 1000
        export(str(GOLDENS / "tiny-bert"), folder / "apart", {})
        checkpoint = read_checkpoint(GOLDENS / "tiny-bert")
        exporting._MAX_INLINE = 1 << 30
        file = folder / "unpooled" / "onnx" / "exported.onnx"
        exporting.export_model(checkpoint, {}, file, pooled=False)
        file = folder / "normalized" / "onnx" / "model.onnx"
        exporting.export_model(checkpoint, {}, file, normalized=True)
        damage(folder / "tiny-bert" / "onnx" / "exported.onnx", folder)
    (folder / "calls.json").write_text(json.dumps(found), encoding="utf-8")


main()
