"""The making of known answers: the choice of texts, the original's vectors, and the cosines that a model reaches."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from akidb_mlx.embedder import Embedder
from akidb_mlx.errors import InvalidInputError, ModelLoadError
from akidb_mlx.fidelity.answers import MAX_TOKENS, Answer, KnownAnswers, encode_vectors
from akidb_mlx.fidelity.checking import check_tokens, embed_answers, likely_causes
from akidb_mlx.fidelity.figures import cosines
from akidb_mlx.fidelity.texts import default_texts
from akidb_mlx.vectors import Vectors

# The text that stands after each prompt.
_PROBE = "Bees make honey."
_SHORT = (
    "Yes",
    "Grüße aus Zürich",
    "Привет, мир!",
    "東京は雨です。",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "if (x > 0) { return x; }",
    "A 🐝 in 2026?",
)
# Words of the long text that its length is first tried with, and tokens that it may lack in the end.
_FIRST_WORDS = 160
_NEAR = 8
# The languages of the long text, which is cut so that all texts together have at most `MAX_TOKENS` tokens.
_LONG = ("en", "de", "fr", "es", "ru")
# Most tokens of the texts with a prompt, so that something is left for the long text, which shows a window.
_MAX_PROMPTED = 208
# Most tokens of the long text of a model that takes fewer than all texts together may have: no window of it needs more,
# and one text is computed by one core of a CPU.
_LONG_ENOUGH = 128
# The mean cosine below which a model is no conversion of the original but a mistake.
LEAST_COSINE = 0.9


def make_answers(original: Embedder, reference: str | None = None) -> KnownAnswers:
    """Choose texts, and compute the vectors of an original.

    Args:
        original: the model, in float32.
        reference: the program that computes it; this package by default.

    Returns:
        Answers that the original itself is expected to give; `with_reached` makes those of a conversion.

    Raises:
        InvalidInputError: it is not in float32, or takes no text.
    """
    _check_float32(original)
    info = original.get_model_info()
    inputs = _choose_inputs(original, [*dict.fromkeys(("query", "document", *info["prompts"]))])
    vectors, counts = _embed(original, inputs)
    first = inputs[0][1]
    most = MAX_TOKENS - sum(counts)
    if info["max_tokens"] < MAX_TOKENS:
        most = min(most, _LONG_ENOUGH)
    long, vector, count = _long_text(original, first, most)
    answers = [
        Answer(text=text, input_type=input_type, tokens=tokens)
        for (text, input_type), tokens in zip([*inputs, (long, first)], [*counts, count], strict=True)
    ]
    return KnownAnswers(
        model=info["model_name"],
        reference=reference or f"akidb-mlx {version('akidb-mlx')}, {info['backend']} in float32",
        architecture=info["architecture"],
        dimension=info["native_dimension"],
        limit=min(info["max_tokens"], MAX_TOKENS),
        answers=tuple(answers),
        vectors=encode_vectors(np.concatenate([vectors, vector])),
    )


def with_reached(answers: KnownAnswers, embedder: Embedder, least_cosine: float = LEAST_COSINE) -> KnownAnswers:
    """Return answers with the cosines that a conversion reaches.

    Args:
        answers: those of the original.
        embedder: the conversion, in float32.
        least_cosine: the mean cosine below which it is refused.

    Raises:
        ModelLoadError: it is below `least_cosine`, reads other tokens than the original, or is of another dimension or
            architecture.
        InvalidInputError: it is not in float32.
    """
    _check_float32(embedder)
    vectors, counts = embed_answers(embedder, answers)
    found = cosines(vectors, answers.array())
    if found.mean() < least_cosine:
        wrong = found < least_cosine
        raise ModelLoadError(
            f"{embedder.get_model_info()['model_name']} reaches a mean cosine of {found.mean():.4f} to "
            f"{answers.model}, at least {least_cosine:g} is needed to take it for a conversion of it. "
            f"{likely_causes(answers, counts, list(wrong))}"
        )
    check_tokens(embedder.get_model_info(), answers, counts)
    # Rounded down, so that what was reached is reached again.
    reached = [
        answer.model_copy(update={"cosine": float(np.floor(cosine * 1e8) / 1e8)})
        for answer, cosine in zip(answers.answers, found, strict=True)
    ]
    return answers.model_copy(update={"answers": tuple(reached)})


def _check_float32(embedder: Embedder) -> None:
    info = embedder.get_model_info()
    if info["precision"] != "float32" or info["allow_tf32"]:
        computes = "TF32" if info["precision"] == "float32" else info["precision"]
        raise InvalidInputError(
            f"{info['model_name']} computes in {computes}: known answers are made in float32, by "
            "Settings(precision='float32')"
        )


def _choose_inputs(original: Embedder, input_types: list[str]) -> list[tuple[str, str | None]]:
    """Return the short texts, and the probe with each prompt or route that changes its vector."""
    chosen: list[str | None] = []
    known: list[Vectors] = []
    tokens = 0
    refusal = InvalidInputError("the model takes no text")
    for input_type in (None, *input_types):
        try:
            batch = original.embed_detailed([_PROBE], input_type=input_type)
        except InvalidInputError as error:  # a model of routes has none for such texts
            refusal = error
            continue
        vector = np.asarray(batch.vectors)
        if any(np.allclose(vector, other, atol=1e-6) for other in known):
            continue
        if chosen:
            tokens += batch.token_counts[0]
        if tokens > _MAX_PROMPTED:
            break
        chosen.append(input_type)
        known.append(vector)
    if not chosen:
        raise refusal
    return [*((text, chosen[0]) for text in _SHORT), *((_PROBE, input_type) for input_type in chosen[1:])]


def _long_text(original: Embedder, input_type: str | None, most: int) -> tuple[str, Vectors, int]:
    """Return the longest beginning of the long text that has at most so many tokens, its vector and its tokens.

    A model may cut it before.
    """
    texts = default_texts()
    sentences = [text for text, language in zip(texts.texts, texts.languages, strict=True) if language in _LONG]
    words = " ".join(sentences).split()
    low, high, guess = 1, len(words), min(len(words), _FIRST_WORDS)
    best = None
    while low <= high:
        text = " ".join(words[:guess])
        vectors, counts = _embed(original, [(text, input_type)])
        if counts[0] <= most or guess == 1:
            best = text, vectors, counts[0]
            low = guess + 1
        else:
            high = guess - 1
        if 0 <= most - counts[0] < _NEAR:
            break
        guess = max(low, min(high, guess * most // counts[0]))
    assert best is not None
    return best


def _embed(original: Embedder, inputs: list[tuple[str, str | None]]) -> tuple[Vectors, list[int]]:
    """Return the vectors of texts, all values of them, and how many tokens each has."""
    dimension = original.get_model_info()["native_dimension"]
    vectors = np.empty((len(inputs), dimension or 0), np.float32)
    counts = []
    for index, (text, input_type) in enumerate(inputs):
        batch = original.embed_detailed([text], input_type=input_type, dimensions=dimension)
        vectors[index] = batch.vectors[0]
        counts += batch.token_counts
    return vectors, counts
