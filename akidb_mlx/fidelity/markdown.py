"""The fidelity card in Markdown, for a person and for a model card on the Hub."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from akidb_mlx.fidelity.card import Card, Cosines, FidelityCard, RerankerCard

# Width of the longest bar, in characters.
_BAR = 40
_HEADER = ("texts", "mean cosine", "1st percentile", "worst")


def to_markdown(card: FidelityCard | RerankerCard) -> str:
    """Return a card as Markdown: tables, and for an embedding model a plot of characters."""
    if isinstance(card, RerankerCard):
        speed = f"{card.pairs_per_second:.1f} pairs/s"
        rows = score_rows(card)
        parts = [f"# Fidelity of {_text(card.model)}", _introduction(card, speed), table(("figure", "value"), rows)]
        return "\n\n".join(parts) + "\n"
    speed = f"{card.texts_per_second:.1f} texts/s"
    parts = [f"# Fidelity of {_text(card.model)}", _introduction(card, speed), _dimensions(card)]
    lengths = [(f"{one.least}-{one.most}", one.cosine) for one in card.lengths]
    parts += ["## By number of tokens", _cosine_table("tokens", lengths)]
    languages = sorted(card.languages.items(), key=lambda item: item[1].mean)
    if languages:
        parts += ["## By language", _cosine_table("language", languages)]
    parts += ["## Loss of cosine", _plot([*((f"{name} tokens", one) for name, one in lengths), *languages])]
    return "\n\n".join(parts) + "\n"


def score_rows(card: RerankerCard) -> list[tuple[str, str]]:
    """Return the figures of a reranker's scores with their names."""
    one = card.scores
    return [
        ("rankings", f"{one.rankings}, each of {one.documents} documents"),
        ("order: Spearman's correlation with the original's, mean", f"{one.order:.4f}"),
        ("best document is the original's", f"{one.same_best:.4f}"),
        (
            "difference of a score from the original's: mean, worst",
            f"{one.mean_difference:.5f}, {one.worst_difference:.5f}",
        ),
    ]


def _introduction(card: Card, speed: str) -> str:
    texts = card.texts
    prompt = f", with the prompt {_text(texts.input_type)}" if texts.input_type else ""
    revision = f" at {_text(card.original_revision)}" if card.original_revision else ""
    memory = f"{_megabytes(card.memory_bytes)} of memory"
    rows = [
        ("original, in float32", _text(card.original) + revision),
        ("weights", f"{card.quantization or 'not quantised'}, {_megabytes(card.weight_bytes)}"),
        ("computed in", f"{card.precision}, {card.backend} on {card.device}, {memory}"),
        ("texts", f"{texts.count} of {_text(texts.name)} ({_text(texts.licence or 'licence not stated')}){prompt}"),
        ("speed", f"{speed} on the machine that measured"),
        ("measured by", _text(card.software)),
    ]
    return table(("", ""), rows)


def _dimensions(card: FidelityCard) -> str:
    languages = list(card.whole.spearman)
    header = ["dimensions", *_HEADER, "recall@10"]
    header += [f"Spearman, {_text(language)} (original)" for language in languages]
    rows = []
    for one in card.dimensions:
        row = [str(one.dimension), *_cells(one.cosine), f"{one.recall_at_10:.4f}"]
        row += [f"{one.spearman[language].model:.4f} ({one.spearman[language].original:.4f})" for language in languages]
        rows.append(row)
    return table(header, rows)


def _cosine_table(name: str, figures: Iterable[tuple[str, Cosines]]) -> str:
    return table((name, *_HEADER), [(_text(label), *_cells(one)) for label, one in figures])


def _cells(one: Cosines) -> list[str]:
    return [str(one.texts), *(f"{value:.5f}" for value in (one.mean, one.percentile_1, one.worst))]


def _plot(figures: Sequence[tuple[str, Cosines]]) -> str:
    """Return bars of how far each mean cosine is from 1."""
    losses = [(label, max(0.0, 1 - one.mean)) for label, one in figures]
    most = max(loss for _, loss in losses) or 1.0
    width = max(len(label) for label, _ in losses)
    lines = [f"{label:<{width}} {loss:9.2e} {'█' * round(_BAR * loss / most)}".rstrip() for label, loss in losses]
    return "\n".join(["```text", *lines, "```"])


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _text(value: str) -> str:
    """Return a name that cannot end a cell or a line."""
    return " ".join(value.split()).replace("|", "\\|")
