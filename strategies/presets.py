"""Ready-made lists of recipes to compare: name → (sums, why these)."""

from __future__ import annotations

from typing import Final

PRESETS: Final[dict[str, tuple[str, str]]] = {
    "default": (
        "full, freeze, lora, lora+amp, qlora8, qlora, checkpointing, compile",
        "one of every kind: what trains, on what base, in which numbers, with which memory, compiled or not",
    ),
}
