"""A look at an ONNX file before ONNX Runtime reads it: nothing is copied, nothing is executed.

The file is refused if it holds what an embedding model has no need of and what could run for ever, read other files or
call foreign code: graphs inside of nodes (loops and branches), functions, operators that are not ONNX's or ONNX
Runtime's own, data outside of its folder.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from akidb_mlx.backends.onnx.protobuf import MalformedError, fields, integers, message, signed, text
from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.errors import ModelLoadError

# A hundred times what an embedding model has.
_MAX_NODES, _MAX_TENSORS, _MAX_VALUES = 100_000, 20_000, 200_000
_MAX_RANK = 16
_LONGEST_METADATA, _LONGEST_TOKENIZER = 1 << 20, 1 << 26
# An entry of the metadata that is not kept: this package reads the tokenizer's own files.
_TOKENIZER = "akidb.tokenizer"
_DOMAINS = ("", "ai.onnx", "com.microsoft")
# The numbers of fields in onnx.proto.
_GRAPH, _OPSETS, _METADATA, _TRAINING, _FUNCTIONS = 7, 8, 14, 20, 25
_NODES, _TENSORS, _INPUTS, _OUTPUTS, _VALUE_INFO, _SPARSE = 1, 5, 11, 12, 13, 15
_OPERATOR, _ATTRIBUTES, _DOMAIN = 4, 5, 7
_TENSOR, _SUBGRAPH, _MORE_TENSORS, _MORE_SUBGRAPHS = 5, 6, 10, 11
_SPARSE_ATTRIBUTES = (22, 23)
_DIMENSIONS, _TYPE, _TENSOR_NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 8, 9, 13, 14
# The numbers of types in onnx.proto, with their bits.
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16}
_BITS |= dict.fromkeys((17, 18, 19, 20, 24), 8) | dict.fromkeys((21, 22, 23), 4)
_TYPE_NAMES = {1: "float32", 2: "uint8", 3: "int8", 10: "float16", 16: "bfloat16", 21: "uint4", 22: "int4"}
_STRINGS = 8


@dataclass
class Inspection:
    """The findings about a file.

    Attributes:
        file: the file.
        weight_bytes: bytes of all tensors.
        metadata: the texts that it carries, by name.
        external: the files that hold data of its tensors, by their names below its folder.
    """

    file: Path
    weight_bytes: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    external: set[str] = field(default_factory=set)
    _bytes_by_type: Counter[str] = field(default_factory=Counter)
    _nodes: int = 0
    _tensors: int = 0
    _values: int = 0

    @property
    def precision(self) -> str:
        """Return the type of most weights, as in "float32" or "int8"."""
        return self._bytes_by_type.most_common(1)[0][0] if self._bytes_by_type else "float32"

    def read(self, content: memoryview) -> None:
        """Take up the content of the file."""
        graphs = 0
        for number, value in fields(content):
            if number == _GRAPH:
                graphs += 1
                self._read_graph(message(value))
            elif number in (_TRAINING, _FUNCTIONS):
                raise self._refusal("it holds functions or training steps, which an embedding model does not need")
            elif number == _METADATA:
                self._read_metadata(message(value))
            elif number == _OPSETS:
                self._check_domain(next((text(one) for key, one in fields(message(value)) if key == 1), ""))
        if graphs != 1:
            raise self._refusal(f"it holds {graphs} graphs, expected one")

    def _read_graph(self, graph: memoryview) -> None:
        for number, value in fields(graph):
            if number == _NODES:
                self._nodes = self._count(self._nodes, _MAX_NODES, "nodes")
                self._read_node(message(value))
            elif number == _TENSORS:
                self._read_tensor(message(value))
            elif number in (_INPUTS, _OUTPUTS, _VALUE_INFO):
                self._values = self._count(self._values, _MAX_VALUES, "values")
                self._check_shape(message(value))
            elif number == _SPARSE:
                raise self._refusal("it holds sparse tensors, which are not supported")

    def _read_node(self, node: memoryview) -> None:
        operator = domain = ""
        attributes = []
        for number, value in fields(node):
            if number == _OPERATOR:
                operator = text(value)
            elif number == _DOMAIN:
                domain = text(value)
            elif number == _ATTRIBUTES:
                attributes.append(message(value))
        self._check_domain(domain, operator)
        for attribute in attributes:
            for number, value in fields(attribute):
                if number in (_SUBGRAPH, _MORE_SUBGRAPHS):
                    raise self._refusal(
                        f"its operator {cut(operator)} holds a graph of its own, as loops and branches do; export the "
                        "model without"
                    )
                if number in _SPARSE_ATTRIBUTES:
                    raise self._refusal("it holds sparse tensors, which are not supported")
                if number in (_TENSOR, _MORE_TENSORS):
                    self._read_tensor(message(value))

    def _read_tensor(self, tensor: memoryview) -> None:
        self._tensors = self._count(self._tensors, _MAX_TENSORS, "tensors")
        name, kind, external, raw = "", 0, False, None
        shape: list[int] = []
        location: dict[str, str] = {}
        for number, value in fields(tensor):
            if number == _DIMENSIONS:
                shape += [signed(size) for size in integers(value)]
                if len(shape) > _MAX_RANK:
                    raise self._refusal(f"a tensor has more than {_MAX_RANK} axes")
            elif number == _TYPE:
                kind = next(integers(value))
            elif number == _TENSOR_NAME:
                name = text(value)
            elif number == _RAW:
                raw = len(message(value))
            elif number == _EXTERNAL:
                entry = dict(fields(message(value)))
                location[text(entry.get(1, memoryview(b"")))] = text(entry.get(2, memoryview(b"")))
            elif number == _LOCATION:
                external = value == 1
        if any(size < 0 for size in shape):
            raise self._refusal(f"the tensor {cut(name)!r} has the shape {shape}")
        if kind == _STRINGS or kind not in _BITS:
            raise self._refusal(f"the tensor {cut(name)!r} is of the type {kind}, which is not supported")
        size = (prod(shape) * _BITS[kind] + 7) // 8
        if raw is not None and raw != size:
            raise self._refusal(f"the tensor {cut(name)!r} has {raw} bytes and its shape {shape} needs {size}")
        if external or location:
            self._check_external(name, location, size)
        elif size > 64 * len(tensor):  # bounds those whose numbers are fields, of a byte or more each
            raise self._refusal(f"the tensor {cut(name)!r} has fewer numbers than its shape {shape}")
        self.weight_bytes += size
        self._bytes_by_type[_TYPE_NAMES.get(kind, "other")] += size

    def _check_external(self, name: str, location: dict[str, str], size: int) -> None:
        """Refuse data that lies outside of the file's folder, or is not there."""
        given = location.get("location", "")
        folder = self.file.parent.resolve()
        try:
            path = (folder / given).resolve()
            inside = bool(given) and path.is_relative_to(folder) and not Path(given).is_absolute()
            found = path.stat().st_size if inside and path.is_file() else None
            offset, length = (int(location.get(key) or default) for key, default in (("offset", 0), ("length", size)))
        except (OSError, ValueError) as error:
            raise self._refusal(
                f"the data of the tensor {cut(name)!r} cannot be found: {cut(str(error), 200)}"
            ) from error
        if not inside:
            raise self._refusal(f"the data of the tensor {cut(name)!r} lies outside of its folder, in {cut(given)!r}")
        if found is None:
            raise self._refusal(f"the file {cut(given)!r} with the data of its tensors is missing beside it")
        if not (offset >= 0 and length == size and offset + size <= found):
            raise self._refusal(f"the data of the tensor {cut(name)!r} is not all in {cut(given)!r}, which is cut off")
        self.external.add(path.relative_to(folder).as_posix())

    def _read_metadata(self, entry: memoryview) -> None:
        pair = dict(fields(entry))
        key, value = (message(pair.get(number, memoryview(b""))) for number in (1, 2))
        if len(key) > _LONGEST_METADATA:
            raise self._refusal("its metadata is too long")
        tokenizer = text(key) == _TOKENIZER
        if len(value) > (_LONGEST_TOKENIZER if tokenizer else _LONGEST_METADATA):
            raise self._refusal("its metadata is too long")
        if not tokenizer:
            self.metadata[text(key)] = text(value)

    def _check_shape(self, value_info: memoryview) -> None:
        """Refuse negative sizes in the type of an input, an output or a value between."""
        for dimension in _nested(value_info, (2, 1, 2, 1)):
            for number, size in fields(dimension):
                if number == 1 and isinstance(size, int) and signed(size) < 0:
                    raise self._refusal(f"a shape holds the size {signed(size)}")

    def _check_domain(self, domain: str, operator: str = "") -> None:
        if domain not in _DOMAINS:
            of = f" ({cut(operator)})" if operator else ""
            raise self._refusal(
                f"it needs operators of {cut(domain)!r}{of}, which are neither ONNX's nor ONNX Runtime's own"
            )

    def _count(self, before: int, limit: int, what: str) -> int:
        if before >= limit:
            raise self._refusal(f"it has more than {limit} {what}, which no embedding model has")
        return before + 1

    def _refusal(self, reason: str) -> ModelLoadError:
        return ModelLoadError(f"{self.file} is not used: {reason}")


def inspect(file: Path) -> Inspection:
    """Look at a file, and at the sizes of those that hold data of its tensors.

    Raises:
        ModelLoadError: it cannot be read, is malformed, or holds what is refused.
    """
    found = Inspection(file)
    try:
        with file.open("rb") as opened:
            # Not closed here: an error that is on its way may hold a part of it.
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        found.read(memoryview(mapped))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{file} cannot be read: {error}") from error
    except MalformedError as error:
        raise ModelLoadError(f"{file} is not a whole ONNX file ({error}); fetch it again") from error
    return found


def _nested(part: memoryview, path: tuple[int, ...]) -> Iterator[memoryview]:
    """Yield the messages inside a message that are reached by the numbers of fields, one for each level."""
    for number, value in fields(part):
        if number == path[0] and not isinstance(value, int):
            if len(path) == 1:
                yield value
            else:
                yield from _nested(value, path[1:])
