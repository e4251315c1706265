"""fourierft — train a few coefficients of the change's two-dimensional spectrum.

What: y = (W + scaling·Re(ifft2(E)))·x with W frozen and E zero but for `n_frequency` trained values at places drawn
from the plan's seed and common to equal layers. A layer with fewer weights trains all of them. The spectrum starts at
zero, so training starts at the pretrained model; the paper draws it at random (`init_weights=False`), which moved the
outputs of a 32-channel ViT with BERT by 0.7.
Why it helps: 1,000 trained values per layer whatever its width; a very small file.
What it costs: an inverse transform to a full matrix per layer and step. The step in weight space falls with the number
of weights, so small layers want a smaller `scaling` or rate than the paper's. When not to use it: half-precision
weights (the transform runs in float32), or layers so small that LoRA needs no more values.
Paper: Gao et al., Parameter-Efficient Fine-Tuning with Discrete Fourier Transform, 2024,
https://arxiv.org/abs/2405.03003
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.options import Count, Names, Rate
from strategies.protocol import ADAPTER_PACKAGES, FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.adapters import AdaptedLayer, adapt
from strategies.structure.roles import Role

if TYPE_CHECKING:
    from torch import nn


@final
@dataclass(frozen=True, kw_only=True)
class FourierFt(Strategy):
    """Spectral coefficients for the layers of `scope` with the given `roles` (default: query and value)."""

    name: ClassVar[str] = "fourierft"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ADAPTER_PACKAGES

    n_frequency: Count = 1000
    scaling: Rate = 150.0
    init_weights: bool = True
    roles: tuple[Role, ...] | None = None
    target_modules: Names | None = None
    scope: str | None = None
    lr: Rate = 5e-2
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and inject spectra at places drawn from the seed."""
        import peft

        config = peft.FourierFTConfig(
            n_frequency=self.n_frequency, scaling=self.scaling, init_weights=self.init_weights,
            random_loc_seed=context.seed,
        )  # fmt: skip
        adapt(self, model, context, config, adjust=_cap_frequencies)


def _cap_frequencies(config: Any, layers: list[AdaptedLayer]) -> None:
    """Let layers with fewer weights than frequencies train as many as they have."""
    for target in layers:
        weights = int(vars(target.layer)["in_features"]) * int(vars(target.layer)["out_features"])
        if weights < config.n_frequency:
            config.n_frequency_pattern[target.path] = weights
