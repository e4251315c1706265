"""fp8 — multiply in 8-bit floating point, keep the weights as they are.

What: inputs, weights and gradients of large linear layers are scaled and rounded to 8 bits just before each product,
with one scale per tensor (`tensorwise`) or per row (`rowwise`); weights stay float and are saved so.
Why it helps: FP8 tensor cores multiply at twice the rate of bf16 ones, and a large layer's product outweighs the casts.
What it costs: finding scales and casting, three times per layer and step; without compile these run as separate small
kernels and cost more than the products save. torchao's own rule (from measurements on an H100) expects no gain from
layers of 768 features but for the wider half of their feed-forward; such layers stay as they are, and where no layer
would gain the plan is refused. When not to use it: models below about a billion weights, GPUs older than Ada or Hopper.
Paper: Micikevicius et al., FP8 Formats for Deep Learning, 2022, https://arxiv.org/abs/2209.05433

`emulate` does the rounding on any machine, CPUs too, with products in full precision: for tests, never faster.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from strategies.errors import PlanError
from strategies.layout import is_within
from strategies.protocol import Context, Kind, Strategy
from strategies.structure.blocks import uncalled_layers
from strategies.structure.choice.held_elsewhere import held_elsewhere
from strategies.structure.layers.kept_precision import kept_in_float32
from strategies.structure.layers.linear_subclasses import computing_as_linear
from strategies.structure.layers.replaced_layers import take_over

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn

OLDEST_GPU = (8, 9)
MULTIPLE = 16  # both sizes of a layer must be multiples of it
MAX_SHOWN = 6


def divisible(layer: nn.Linear, name: str) -> bool:
    """Say whether the hardware could multiply this layer's weight."""
    del name
    return not layer.in_features % MULTIPLE and not layer.out_features % MULTIPLE


def to_float8(model: nn.Module, names: list[str], recipe: str, *, emulate: bool) -> None:
    """Replace the named linear layers by torchao's, which hold the same parameters under the same names."""
    from torch import nn
    from torchao.float8 import (
        Float8LinearConfig,
        convert_to_float8_training,
    )

    config = Float8LinearConfig.from_recipe_name(recipe)
    # Padding: the number of tokens in a batch need not be a multiple of 16.
    config = dataclasses.replace(config, emulate=emulate, pad_inner_dim=True)
    for name in names:
        before = model.get_submodule(name)
        holder = nn.ModuleDict({"layer": before})
        convert_to_float8_training(holder, config=config)
        take_over(holder["layer"], before, stored_as=name)
        model.set_submodule(name, holder["layer"])


@final
@dataclass(frozen=True, kw_only=True)
class Fp8(Strategy):
    """8-bit products in those linear layers of `scope` that gain by it, new parts left out."""

    name: ClassVar[str] = "fp8"
    kind: ClassVar[Kind] = "numerics"
    stage: ClassVar[int] = 10
    slots: ClassVar[frozenset[str]] = frozenset({"linear kernels", "storage of the base"})
    packages: ClassVar[tuple[str, ...]] = ("torchao",)
    trial: ClassVar[Mapping[str, Any]] = {"emulate": True}

    recipe: Literal["tensorwise", "rowwise"] = "tensorwise"
    emulate: bool = False
    scope: str | None = None

    def unavailable(self, device: torch.device | str) -> str | None:
        """Need a GPU that multiplies 8-bit floats, unless they are emulated."""
        missing = super().unavailable(device)
        if missing or self.emulate:
            return missing
        if str(device).partition(":")[0] != "cuda":
            return "needs a GPU with FP8 tensor cores (emulate=True does the rounding alone, to try it out)"
        import torch

        capability = torch.cuda.get_device_capability(device)
        return None if capability >= OLDEST_GPU else f"needs compute capability 8.9 or newer, this GPU has {capability}"

    def transform(self, model: nn.Module, context: Context) -> None:
        """Swap the layers that gain; refuse when none does."""
        if self.recipe == "rowwise" and not self.emulate and context.facts.get("precision") != "bf16":
            raise PlanError("fp8: recipe='rowwise' gives bf16 results only: add amp(dtype='bf16') or use 'tensorwise'")
        from torchao.float8 import _auto_filter_for_recipe

        gains: Callable[[nn.Linear, str], bool] = (
            divisible if self.emulate else _auto_filter_for_recipe(self.recipe, [])
        )
        hidden, kept = uncalled_layers(model) | held_elsewhere(model).keys(), kept_in_float32(model)
        plain = computing_as_linear(model.modules())
        layers = {
            name: layer
            for prefixes in context.layout.groups(model, self.scope).values()
            for name, layer in model.named_modules()
            if id(layer) in plain and is_within(name, prefixes)
            if name not in hidden and not context.layout.is_new(name) and f"{name}.weight" not in kept
        }  # fmt: skip
        chosen = [name for name, layer in layers.items() if gains(layer, name)]
        if not chosen:
            raise PlanError(self._why_not(list(layers.values())))
        to_float8(model, chosen, self.recipe, emulate=self.emulate)

    def _why_not(self, layers: list[nn.Linear]) -> str:
        """Say why no layer was chosen, with the sizes that there are."""
        sizes = list(dict.fromkeys(f"{layer.in_features}→{layer.out_features}" for layer in layers))
        there = ", ".join(sizes[:MAX_SHOWN]) + (" …" if len(sizes) > MAX_SHOWN else "") or "none"
        if self.emulate or not sizes:
            return (
                f"fp8: no linear layer of the pretrained parts that is called as one, and holds its weight, has sizes "
                f"divisible by {MULTIPLE}; there is: {there}; leave it out"
            )
        return (
            f"fp8: cannot help: by torchao's rule for recipe={self.recipe!r} no linear layer here is large enough "
            f"({there}) for its product to outweigh the casts; use amp(dtype='bf16')"
        )
