"""The fidelity card of a loaded model. Few models have one, so its reader is imported where there is one."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from akidb_mlx.errors import ModelLoadError
from akidb_mlx.fidelity.json_files import CARD

logger = logging.getLogger(__name__)


def report_card(folder: Path) -> dict[str, Any] | None:
    """Return the card beside a model's weights as plain types; one that is damaged is logged, and hinders nothing."""
    if not os.path.lexists(folder / CARD):
        return None
    from akidb_mlx.fidelity.card import read_card

    try:
        card = read_card(folder)
    except ModelLoadError as error:
        logger.warning("%s", error)
        return None
    return card.plain() if card else None
