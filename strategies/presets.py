"""Ready-made lists of recipes to compare, each with the seeds it needs to mean something."""

from __future__ import annotations

from typing import Final, NamedTuple


class Preset(NamedTuple):
    """What to run with which seeds, and why these."""

    plans: str
    seeds: tuple[int, ...]
    why: str


PRESETS: Final[dict[str, Preset]] = {
    "default": Preset(
        "full, freeze, lora, lora+amp, qlora8, qlora, checkpointing, compile",
        (0,),
        "one of every kind: what trains, on what base, in which numbers, with which memory, compiled or not",
    ),
    "adapters": Preset(
        "full, freeze, freeze(last_n=1), bitfit, layernorm, lora, rslora, dora, pissa, loraplus, adalora, ia3, "
        "vera, oft, lora(roles=['query','key','value','output','up','down']), "
        "miss, houlsby, adaptformer, qlora8, qlora, lora+checkpointing",
        (0, 1, 2),
        "what decides which weights train, each at its own rate, and what adapters are put on; three seeds each",
    ),
}
