"""The known-answer test: a loaded model is asked for vectors that are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from akidb_mlx.embedder import Embedder
from akidb_mlx.errors import InferenceError, InvalidInputError, ModelLoadError
from akidb_mlx.fidelity.answers import MAX_TOKENS, KnownAnswers
from akidb_mlx.fidelity.figures import Numbers, cosines
from akidb_mlx.reports import ModelInfo
from akidb_mlx.vectors import Vectors

# The angle, in radians, by which a vector may differ from the one in float32 that the answers were made with: above the
# largest that was measured (docs/fidelity-cards.md), which is 2e-6 in float32, 0.006 in float16 and 0.042 in bfloat16.
_ANGLES = {"float32": 0.0003, "float16": 0.02, "bfloat16": 0.1}
# The angle of what has no measurement: integer weights of an ONNX file, which are a quantisation of their own.
_UNKNOWN_ANGLE = 0.5
_SWITCH = "AKIDB_KNOWN_ANSWERS=false loads it nevertheless"
# TF32 keeps as many bits as float16.
_TF32_ANGLE = _ANGLES["float16"]


def allowed_angle(info: ModelInfo) -> float:
    """Return the angle that the precision of a loaded model allows to a vector."""
    angles = [_ANGLES.get(precision, _UNKNOWN_ANGLE) for precision in info["precision"].split("; ")]
    return max(*angles, _TF32_ANGLE if info["allow_tf32"] else 0.0)


def cosine_bounds(reached: float, angle: float) -> tuple[float, float]:
    """Return the smallest and the largest cosine to the original of a vector that is near one that has `reached`.

    Args:
        reached: the cosine of the vector that the answers were made with.
        angle: how far the other vector may be from that, in radians.
    """
    found = math.acos(max(-1.0, min(1.0, reached)))
    return math.cos(min(math.pi, found + angle)), math.cos(max(0.0, found - angle))


def embed_answers(embedder: Embedder, answers: KnownAnswers) -> tuple[Vectors, list[int]]:
    """Return a model's vectors of the texts, and how many tokens it read of each.

    Raises:
        ModelLoadError: the answers are of another model, or the texts cannot be computed.
    """
    info = embedder.get_model_info()
    for quantity, known, found in (
        ("dimension", answers.dimension, info["native_dimension"]),
        ("architecture", answers.architecture, info["architecture"]),
    ):
        if known != found:
            raise ModelLoadError(
                f"{info['model_name']}: its known answers are those of another model, {answers.model}: {quantity} "
                f"{known}, found {found}"
            )
    vectors = np.empty((len(answers.answers), answers.dimension), np.float32)
    counts = [0] * len(vectors)
    groups: dict[str | None, list[int]] = {}
    for index, answer in enumerate(answers.answers):
        groups.setdefault(answer.input_type, []).append(index)
    try:
        # All at once, so that they share batches.
        futures = {
            input_type: embedder.submit(
                [answers.answers[index].text for index in indices],
                input_type=input_type,
                dimensions=answers.dimension,
            )
            for input_type, indices in groups.items()
        }
        for input_type, future in futures.items():
            batch = future.result()
            vectors[groups[input_type]] = batch.vectors
            for index, count in zip(groups[input_type], batch.token_counts, strict=True):
                counts[index] = count
    except (InferenceError, InvalidInputError) as error:
        raise ModelLoadError(f"{info['model_name']}: its known answers cannot be computed: {error}") from error
    return vectors, counts


def check_answers(embedder: Embedder, answers: KnownAnswers) -> Numbers:
    """Ask a loaded model for its known answers.

    Returns:
        The cosine to the original of each text.

    Raises:
        ModelLoadError: one is not the cosine that was reached when the answers were made, but for what the rounding of
            its precision explains; or the model reads other tokens; or the answers are of another model.
    """
    vectors, counts = embed_answers(embedder, answers)
    info = embedder.get_model_info()
    found = cosines(vectors, answers.array())
    angle = allowed_angle(info)
    bounds = np.array([cosine_bounds(answer.cosine, angle) for answer in answers.answers])
    # A vector that is nearer than it was is another one too: half of all faults lead there.
    outside = np.maximum(bounds[:, 0] - found, found - bounds[:, 1])
    if outside.max() > 0:
        worst = int(np.argmax(outside))
        answer, (least, most) = answers.answers[worst], bounds[worst]
        prompt = f" with the prompt {answer.input_type!r}" if answer.input_type else ""
        raise ModelLoadError(
            f"{info['model_name']} does not compute its known answers: text {worst}{prompt} has the cosine "
            f"{found[worst]:.6f} to {answers.model}, expected {least:.6f} to {most:.6f} ({answer.cosine:.6f} when the "
            f"answers were made, and {angle:g} radians for {info['precision']}); {int((outside > 0).sum())} of "
            f"{len(found)} texts differ. {likely_causes(answers, counts, list(outside > 0))} {_SWITCH}"
        )
    check_tokens(info, answers, counts)
    return found


def check_tokens(info: ModelInfo, answers: KnownAnswers, counts: Sequence[int]) -> None:
    """Refuse a model that reads another number of tokens of a text than its original, however near its vector is.

    Raises:
        ModelLoadError: it does, or would of a longer text.
    """
    model_name, limit = info["model_name"], min(info["max_tokens"], MAX_TOKENS)
    if answers.limit is not None and limit != answers.limit:
        raise ModelLoadError(
            f"{model_name} reads {_at_most(limit)} of a text, and the original {_at_most(answers.limit)}: look for the "
            f"length that texts are cut to. {_SWITCH}"
        )
    if any(count != answer.tokens for count, answer in zip(counts, answers.answers, strict=True)):
        causes = likely_causes(answers, counts, ())
        raise ModelLoadError(f"{model_name} reads its known answers otherwise. {causes} {_SWITCH}")


def _at_most(limit: int) -> str:
    return f"at most {limit} tokens" if limit < MAX_TOKENS else f"{MAX_TOKENS} tokens or more"


def likely_causes(answers: KnownAnswers, counts: Sequence[int], wrong: Sequence[bool]) -> str:
    """Return the likely causes of wrong vectors in words, by the texts that they are wrong for."""
    other = [index for index, answer in enumerate(answers.answers) if counts[index] != answer.tokens]
    if other:
        first = other[0]
        return (
            f"It reads {counts[first]} tokens of text {first}, and the original {answers.answers[first].tokens}: look "
            "for another tokenizer, a special token that is added or left out, a prompt, or the length that texts are "
            "cut to."
        )
    prompted = [bool(answer.input_type) for answer in answers.answers]
    if all(prompt or not fault for prompt, fault in zip(prompted, wrong, strict=True)):
        return "Only texts with a prompt are wrong: look for another prompt."
    longest = max(answer.tokens for answer in answers.answers)
    if all(answer.tokens == longest or not fault for answer, fault in zip(answers.answers, wrong, strict=True)):
        return "Only the longest text is wrong: look for another attention window, or other position encodings."
    return "Likely causes: wrong pooling, a lost Dense layer, other or damaged weights, or a broken kernel."
