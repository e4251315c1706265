"""Ready-made lists of recipes to compare, each with the seeds it needs to mean something."""

from __future__ import annotations

from typing import Final, NamedTuple


class Preset(NamedTuple):
    """What to run with which seeds, and why these."""

    plans: str
    seeds: tuple[int, ...]
    why: str


# One technique more on each rung, none left out again: what each adds to time, memory and quality.
CUMULATIVE_STEPS: Final = ("amp", "group_by_image", "bucketing", "compile", "lora", "checkpointing")
CUMULATIVE_ABLATION: Final = ", ".join(
    ["full", *("+".join(CUMULATIVE_STEPS[: height + 1]) for height in range(len(CUMULATIVE_STEPS)))]
)
# One recipe, and the same without each of its parts: what each of them does where the others are there.
ABLATED_PARTS: Final = ("lora", "amp", "group_by_image", "checkpointing")
LEAVE_ONE_OUT: Final = ", ".join(
    ["full", "+".join(ABLATED_PARTS), *("+".join(p for p in ABLATED_PARTS if p != out) for out in ABLATED_PARTS)]
)
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
    "ladder": Preset(
        CUMULATIVE_ABLATION,
        (0, 1, 2),
        "techniques added one by one: 16 bits, pictures encoded once, less padding, compiling, adapters, checkpointing",
    ),
    "leave_one_out": Preset(
        LEAVE_ONE_OUT,
        (0, 1, 2),
        "adapters, 16 bits, pictures encoded once and checkpointing, and the same without each: what each is worth",
    ),
    "kaggle": Preset(
        "amp, lora+amp, kaggle_t4, freeze+amp, amp+group_by_image, qlora+amp, amp+checkpointing, fast",
        (0,),
        "what a T4 does well (16 bits, fp16 there; adapters; pictures encoded once), the most telling first, as a "
        "notebook ends after 12 hours: --time-limit 11.5h stops in time, --no-baseline leaves out the slow fp32 run",
    ),
    "bonus": Preset(
        f"{CUMULATIVE_ABLATION}, "
        "adamw8bit, lion, lion8bit, adafactor, galore, apollo, schedule_free, muon, optimizer_in_backward, "
        "optimizer_in_backward+adafactor, ema, schedule(shape='wsd'), layer_decay, "
        "accumulate, group_by_image, bucketing, patch_dropout, selective_backprop, "
        "freeze(scope='vision'), freeze(scope='vision')+cache_features, freeze(scope='vision')+group_by_image, "
        "lora+group_by_image, lora+adamw8bit, lora+muon, kaggle_t4, lean, fast",
        (0, 1, 2),
        "the ladder, and what feeds and updates, one by one and in recipes; three seeds each",
    ),
}
# What to add to a recipe that does not fit, what costs least first; the first that makes it fit is told.
REMEDIES: Final = (
    "amp",
    "checkpointing",
    "amp+checkpointing",
    "accumulate(n=4)",
    "amp+checkpointing+accumulate(n=4)",
    "lora",
    "lora+amp+checkpointing",
    "lora+amp+checkpointing+accumulate(n=8)",
)
