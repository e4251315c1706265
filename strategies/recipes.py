"""Named sums: a recipe is a word for a sum of strategies, replaced before anything else looks at a plan."""

from __future__ import annotations

RECIPES: dict[str, tuple[str, str]] = {
    "qlora": ("nf4+lora", "adapters over a 4-bit base (Dettmers et al., 2023, https://arxiv.org/abs/2305.14314)"),
    "qlora8": ("int8+lora", "adapters over an 8-bit base (Dettmers et al., 2022, https://arxiv.org/abs/2208.07339)"),
}


def recipes() -> dict[str, tuple[str, str]]:
    """Give word → (sum, why in one line)."""
    return dict(RECIPES)
