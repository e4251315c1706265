"""Named sums: a recipe is a word for a sum of strategies, replaced before anything else looks at a plan."""

from __future__ import annotations

RECIPES: dict[str, tuple[str, str]] = {
    "bf16": ("amp(dtype='bf16')", "mixed precision in bfloat16: no loss scaler; needs Ampere or newer to be fast"),
    "fp16": ("amp(dtype='fp16')", "mixed precision in float16 with a loss scaler: what a T4 does in hardware"),
    "qlora": ("nf4+lora", "adapters over a 4-bit base (Dettmers et al., 2023, https://arxiv.org/abs/2305.14314)"),
    "qlora8": ("int8+lora", "adapters over an 8-bit base (Dettmers et al., 2022, https://arxiv.org/abs/2208.07339)"),
    "qdora": (
        "nf4+dora",
        "magnitude and direction over a 4-bit base (Liu et al., 2024, https://arxiv.org/abs/2402.09353)",
    ),
    "kaggle_t4": (
        "amp(dtype='fp16')+group_by_image+lora",
        "a free T4: its tensor cores want float16 (its bfloat16 is emulated), each picture passes once, small files",
    ),
    "lean": (
        "accumulate+amp+checkpointing+lora+nf4",
        "least memory: 4-bit base, few gradients and moments; a quarter of the batch, one block at a time, in 16 bits",
    ),
    "fast": (
        "amp+bucketing+cache_features+freeze",
        "least time: no backward pass through the towers, each picture's features computed once, no padding",
    ),
}


def recipes() -> dict[str, tuple[str, str]]:
    """Give the named recipes: word → (the combination it stands for, why in one line)."""
    return dict(RECIPES)
