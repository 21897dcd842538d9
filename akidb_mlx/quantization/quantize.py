"""The quantisation of a model, from its name to a folder of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from akidb_mlx.catalog import ALL_MODELS
from akidb_mlx.checkpoint.prompts import choose_prompts
from akidb_mlx.errors import InvalidInputError
from akidb_mlx.fidelity.texts import default_texts
from akidb_mlx.loading import parse_name, parse_settings
from akidb_mlx.local_paths import local_path
from akidb_mlx.quantization.assignment import assign, packed_bytes
from akidb_mlx.quantization.fidelity import write_fidelity
from akidb_mlx.quantization.options import Options, parse_options
from akidb_mlx.quantization.provenance import Provenance, write_provenance
from akidb_mlx.quantization.publishing import check_free, publishing
from akidb_mlx.quantization.report import QuantizationReport
from akidb_mlx.resolve import acquire_directory
from akidb_mlx.runtime import mlx_import
from akidb_mlx.settings import Settings

if TYPE_CHECKING:
    from akidb_mlx.quantization.writing import Job

# Called with the name of a stage, the steps of it that are done, and their number.
StageProgress = Callable[[str, int, int | None], None]


class _Plan(NamedTuple):
    """The matrices that are to be packed, for each encoder, and the cosine that a search measured."""

    jobs: list[list[Job]]
    cosine: float | None


def quantize_model(
    source: str | PathLike[str],
    output: str | PathLike[str],
    *,
    bits: int | None = None,
    group_size: int | None = None,
    mode: str = "affine",
    recipe: str | None = None,
    target_size: int | None = None,
    target_cosine: float | None = None,
    texts: Sequence[str] | None = None,
    card: bool = True,
    settings: Settings | None = None,
    progress: StageProgress | None = None,
) -> QuantizationReport:
    """Write a quantised copy of a model; all its other files are kept.

    The weights are read and written in parts. With texts or a target, the model is also loaded in float32, to measure
    what its layers see and what their packing does to its vectors.

    Args:
        source: a catalogue name, "org/repo", "org/repo@revision" or a directory; any encoder or reranker.
        output: the folder to write, which must not be there.
        bits: of each number, 2, 3, 4, 5, 6 or 8; 4 by default.
        group_size: numbers of a row that share a scale, 32, 64 or 128; 64 by default.
        mode: "affine", "mxfp4", "mxfp8" or "nvfp4"; the others than affine have bits and groups of their own.
        recipe: "mixed-2-6", "mixed-3-4", "mixed-3-6" or "mixed-4-6": some layers have more bits than the rest.
        target_size: bytes of weights that are not to be exceeded; the bits of each layer are searched.
        target_cosine: mean cosine to the original's vectors of the texts; the smallest model that is found to reach it.
        texts: texts to calibrate on, a hundred or more of the kind that the model is for; a target takes this package's
            own if None.
        card: whether to compare an embedding model's vectors with the original's in float32 when it is done, and to
            write its fidelity card and its known answers.
        settings: instead of those from the environment and the TOML file.
        progress: told how far it is.

    Raises:
        InvalidInputError: an option is not usable, the output is there, or a target cannot be reached.
        ModelNotFoundError: the source is not on this machine and was not downloaded.
        ModelLoadError: it is not supported, or is quantised already.
        ConfigurationError: MLX is not installed, or the disk is full.
    """
    options = parse_options(bits, group_size, mode, recipe, target_size, target_cosine)
    if texts is not None and options.packing.mode != "affine":
        raise InvalidInputError(f"mode {mode} is packed without texts: leave them out, or use mode affine")
    name, target = parse_name(source), local_path(output)
    check_free(target)
    settings = parse_settings(settings)
    mlx_import.check_installed()
    mlx_import.prepare()
    with ExitStack() as resources:
        directory = acquire_directory(resources, name, ALL_MODELS, settings, download=True)
        return _Quantization(name, directory, settings, progress or _ignore).run(target, options, texts, card)


class _Quantization:
    """One quantisation of a model that was found."""

    def __init__(self, name: str, directory: Path, settings: Settings, progress: StageProgress) -> None:
        from akidb_mlx.quantization.source import list_matrices, read_source

        self._name, self._directory, self._settings, self._progress = name, directory, settings, progress
        self._checkpoint = read_source(directory)
        self._encoders = self._checkpoint.encoders
        self._matrices = [list_matrices(encoder) for encoder in self._encoders]
        self._stored = {
            stored.file: stored.file.stat().st_size for one in self._encoders for stored in one.tensors.values()
        }

    def run(self, target: Path, options: Options, texts: Sequence[str] | None, card: bool) -> QuantizationReport:
        """Write the model to a folder."""
        from akidb_mlx.quantization.writing import copy_others, write_config, write_weights

        kept = self._kept(options)
        if options.searches and texts is None:
            texts = default_texts().texts
        plan = self._plan(options, texts)
        jobs = [job for own in plan.jobs for job in own]
        original = sum(self._stored.values())
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self._progress("packing", done, original)

        expected = sum(packed_bytes(job.matrix, job.packing) for job in jobs)
        with publishing(target, expected) as folder:
            copy_others(self._directory, folder)
            for encoder, own in zip(self._encoders, plan.jobs, strict=True):
                write_weights(encoder, self._directory, folder, own, advance)
                write_config(encoder, self._directory, folder, own)
            write_provenance(folder, Provenance.of(self._name, self._directory, version("akidb-mlx")))
            weight_bytes = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
            reached = write_fidelity(self._checkpoint, folder, target.name, self._progress) if card else None
        return QuantizationReport(
            directory=target,
            original_bytes=original,
            weight_bytes=weight_bytes,
            bits_per_weight=8 * expected / sum(job.matrix.size for job in jobs),
            packings=dict(Counter(str(job.packing) for job in jobs).most_common()),
            kept=kept,
            calibration_texts=len(texts or ()),
            calibration_cosine=plan.cosine,
            card=reached,
        )

    def _kept(self, options: Options) -> dict[str, str]:
        """Return the matrices that cannot be packed, with the reason.

        Raises:
            InvalidInputError: that is all of them.
        """
        size = options.packing.group_size
        kept = {
            (encoder.directory.relative_to(self._directory) / matrix.layer).as_posix(): reason
            for encoder, own in zip(self._encoders, self._matrices, strict=True)
            for matrix in own
            if (reason := matrix.refusal(size)) is not None
        }
        if len(kept) == sum(map(len, self._matrices)):
            some = "; ".join(f"{layer} {reason}" for layer, reason in list(kept.items())[:3])
            raise InvalidInputError(f"{self._directory} has no matrix that can be packed in groups of {size}: {some}")
        return kept

    def _plan(self, options: Options, texts: Sequence[str] | None) -> _Plan:
        """Choose the packing of each matrix, and measure what is needed for it."""
        from akidb_mlx.quantization.source import parameter_type
        from akidb_mlx.quantization.writing import Job

        if texts is not None:
            return self._calibrated_plan(options, texts)
        return _Plan(
            [
                [Job(matrix, chosen[matrix.layer], parameter_type(encoder)) for matrix in own if matrix.layer in chosen]
                for encoder, own in zip(self._encoders, self._matrices, strict=True)
                for chosen in [assign(own, options)]
            ],
            None,
        )

    def _calibrated_plan(self, options: Options, texts: Sequence[str]) -> _Plan:
        from akidb_mlx.quantization import search
        from akidb_mlx.quantization.calibration import CalibrationModel
        from akidb_mlx.quantization.source import parameter_type
        from akidb_mlx.quantization.writing import Job, fixed_bytes

        dtype = parameter_type(self._checkpoint)
        model = CalibrationModel(self._checkpoint, choose_prompts(self._checkpoint.prompts, {}), texts, dtype)
        (matrices,) = self._matrices
        chosen, cosine, size = assign(matrices, options), None, options.packing.group_size
        if options.searches:
            layers = search.measure_layers(model, matrices, size, partial(self._progress, "measuring layers"))
            if options.target_size is not None:
                fixed = fixed_bytes(self._checkpoint, chosen)
                bits = search.find_for_size(layers, size, fixed, options.target_size)
                cosine = search.measure_bits(model, layers, bits, size)
            else:
                assert options.target_cosine is not None
                stage = partial(self._progress, "measuring assignments")
                bits, cosine = search.find_for_cosine(model, layers, size, options.target_cosine, stage)
            chosen = search.assignment_of(layers, bits, size)
        for product in model.products:
            model.use(product, None)
        moments = model.input_moments(partial(self._progress, "calibrating"))
        found = [m for m in matrices if m.layer in chosen]
        return _Plan([[Job(m, chosen[m.layer], dtype, moments.get(m.product)) for m in found]], cosine)


def _ignore(stage: str, done: int, total: int | None) -> None:
    """Take no notice of progress."""
