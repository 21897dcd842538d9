"""The file of known answers beside a model: texts, the original's vectors, and the cosines that the model reached.

A file from outside is not trusted: every value is checked, and a text that is no vector's is refused.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from akidb_mlx.errors import ModelLoadError
from akidb_mlx.fidelity.json_files import first_fault, read_bounded, write_text
from akidb_mlx.vectors import Vectors

ANSWERS = "akidb_answers.json"
# The bounds of a file, which is read and computed whenever its model is loaded.
MAX_TOKENS = 512
_MAX_TEXTS = 64
_MAX_BYTES = 4 << 20
_MAX_CHARACTERS = 8192
_MAX_DIMENSION = 1 << 16
# How far from 1 the length of a stored vector may be.
_UNIT_TOLERANCE = 1e-4

_Name = Annotated[str, Field(min_length=1, max_length=500)]


class _Json(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Answer(_Json):
    """One text with a known vector.

    Attributes:
        text: the text.
        input_type: the prompt that goes before it, as in `EmbedOptions`.
        tokens: how many tokens the original reads of it, prompt and special tokens included.
        cosine: that of the model's vector and the original's, when the answers were made, in float32.
    """

    text: Annotated[str, Field(max_length=_MAX_CHARACTERS)]
    input_type: Annotated[str, Field(max_length=500)] | None = None
    tokens: PositiveInt
    cosine: Annotated[float, Field(ge=-1, le=1)] = 1.0


class KnownAnswers(_Json):
    """The known answers of a model.

    Attributes:
        version: of the format.
        model: name of the original.
        reference: the program that computed the original's vectors, in float32.
        architecture: `model_type` of the original.
        dimension: size of its vectors.
        limit: most tokens that it reads of a text, or `MAX_TOKENS` where it reads more; None where nobody stated it.
        answers: the texts.
        vectors: the original's vectors of them, of unit length: (answers, dimension) little-endian float32 in base64.
    """

    version: Literal[1] = 1
    model: _Name
    reference: _Name
    architecture: _Name
    dimension: Annotated[int, Field(ge=1, le=_MAX_DIMENSION)]
    limit: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    answers: Annotated[tuple[Answer, ...], Field(min_length=1, max_length=_MAX_TEXTS, strict=False)]
    vectors: str

    @property
    def cosine(self) -> float:
        """Return the mean of the cosines that the model reached."""
        return float(np.mean([answer.cosine for answer in self.answers]))

    def array(self) -> Vectors:
        """Return the vectors, (answers, dimension) float32.

        Raises:
            ValueError: they are not those of the texts.
        """
        try:
            content = base64.b64decode(self.vectors, validate=True)
        except binascii.Error as error:
            raise ValueError(f"vectors is not base64: {error}") from error
        expected = 4 * len(self.answers) * self.dimension
        if len(content) != expected:
            raise ValueError(
                f"vectors holds {len(content)} bytes, and {len(self.answers)} texts of {self.dimension} values take "
                f"{expected}"
            )
        vectors = np.frombuffer(content, "<f4").astype(np.float32).reshape(len(self.answers), self.dimension)
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        wrong = ~(np.abs(lengths - 1) < _UNIT_TOLERANCE)  # also where one is not a number
        if wrong.any():
            index = int(np.argmax(wrong))
            raise ValueError(f"the vector of text {index} has the length {lengths[index]:.6g}, expected 1")
        return vectors


def encode_vectors(vectors: Vectors) -> str:
    """Return vectors as the file holds them."""
    return base64.b64encode(np.ascontiguousarray(vectors, "<f4").tobytes()).decode("ascii")


def parse_answers(content: bytes, name: str) -> KnownAnswers:
    """Read the content of a file of answers.

    Raises:
        ModelLoadError: it is not one; the message begins with `name`.
    """
    try:
        answers = KnownAnswers.model_validate_json(content)
        answers.array()
    except ValidationError as error:
        raise ModelLoadError(f"{name} is not usable: {first_fault(error)}; {_REMEDY}") from error
    except ValueError as error:
        raise ModelLoadError(f"{name} is not usable: {error}; {_REMEDY}") from error
    tokens = sum(answer.tokens for answer in answers.answers)
    if tokens > MAX_TOKENS:
        raise ModelLoadError(f"{name} is not usable: its texts have {tokens} tokens, at most {MAX_TOKENS}; {_REMEDY}")
    return answers


def read_answers(path: Path) -> KnownAnswers | None:
    """Read a file of answers; return None where there is none.

    Raises:
        ModelLoadError: it cannot be read, or is not one.
    """
    content = read_bounded(path, _MAX_BYTES)
    return None if content is None else parse_answers(content, str(path))


def write_answers(answers: KnownAnswers, folder: Path) -> Path:
    """Write the file of answers into a model's folder, and return its path."""
    path = folder / ANSWERS
    write_text(path, answers.model_dump_json(indent=1) + os.linesep)
    return path


_REMEDY = "make it anew with `akidb-mlx verify --answers-from ORIGINAL`, or delete it"
