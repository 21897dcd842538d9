"""The plot of an evaluation, as SVG: a bar for each strategy with its interval."""

from __future__ import annotations

from html import escape

from akidb_mlx.selection.evaluation import Evaluation

_ROW, _LEFT, _WIDTH, _RIGHT, _TOP = 34, 150, 420, 200, 40
_COLOURS = {"selector": "#1f6feb"}
_OTHER = "#9aa4b1"


def plot_evaluation(evaluation: Evaluation) -> str:
    """Return an SVG image of the mean worth of each strategy, from 0 to 1, with its interval of 95 %."""
    height = _TOP + _ROW * len(evaluation.strategies) + 30
    width = _LEFT + _WIDTH + _RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="22" font-weight="bold">Mean value of the choices, {evaluation.queries} queries</text>',
    ]
    for number, one in enumerate(evaluation.strategies):
        top = _TOP + _ROW * number
        middle = top + _ROW / 2 - 4
        low, end, high = (_LEFT + _WIDTH * value for value in (one.value.low, one.value.mean, one.value.high))
        parts += [
            f'<text x="{_LEFT - 8}" y="{middle + 5}" text-anchor="end">{escape(one.name)}</text>',
            f'<rect x="{_LEFT}" y="{top}" width="{end - _LEFT:.1f}" height="{_ROW - 8}" '
            f'fill="{_COLOURS.get(one.name, _OTHER)}"/>',
            f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 5}v10M{high:.1f} {middle - 5}v10" '
            'stroke="black" fill="none"/>',
            f'<text x="{_LEFT + _WIDTH + 8}" y="{middle + 5}">{escape(str(one.value))}</text>',
        ]
    base = height - 24
    parts.append(f'<path d="M{_LEFT} {base}H{_LEFT + _WIDTH}" stroke="black"/>')
    for tick in range(6):
        x = _LEFT + _WIDTH * tick / 5
        parts.append(f'<text x="{x:.1f}" y="{base + 16}" text-anchor="middle">{tick / 5:.1f}</text>')
    return "\n".join([*parts, "</svg>", ""])
