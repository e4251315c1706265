"""adalora — LoRA in the form of singular values, which spends its rank where it matters.

What: W + s·P·Λ·Q with Λ diagonal, P and Q pushed to be orthonormal by an extra loss. All start with rank `init_r`;
between the shares `tinit` and 1 − `tfinal` of the run, every `deltaT` updates the least important values of a tower
(gradient times weight, smoothed by `beta1`, `beta2`) are set to zero, until `target_r` per layer remain on average.
Why it helps: layers that matter keep a larger rank than others, at the same budget; so all linear layers in the
blocks are adapted here, not just query and value.
What it costs: the memory of `init_r` throughout, an extra loss of two small products per layer, importance statistics
the size of the adapters' weights three times over, and one value read back from the device at every reallocation. The
length of the run must be known. When not to use it: the run is short, or few layers are adapted.
Paper: Zhang et al., Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning, 2023,
https://arxiv.org/abs/2303.10512; ranks, betas and orth_reg_weight are PEFT's defaults, the two shares ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.errors import PlanError
from strategies.options import Count, Names, NonNegative, Numbers, Rate, Rows, Share, added
from strategies.protocol import ADAPTER_PACKAGES, FROZEN_BASE, WEIGHTS, Context, Kind, State, Strategy
from strategies.structure.adapters import adapt, on_meta
from strategies.structure.roles import ALL_LINEAR, Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    import peft
    from torch import Tensor, nn

IMPORTANCES = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # of PEFT's RankAllocator, by name of the weight
MIN_STEPS = 2  # updates: one to measure importance, one to choose by it


def _adapter_weights(tuners: list[Any]) -> Iterator[tuple[str, nn.Parameter]]:
    """Give name and matrix for everything that trains in the adapters."""
    return ((name, p) for tuner in tuners for name, p in tuner.named_parameters() if ".lora_" in name)


def _ranks_to_meta(tuner: nn.Module) -> None:
    """Move the layers' ranks where everything else is; PEFT makes them on CPU always."""
    for module in tuner.modules():
        for name, child in module.named_children():
            if name == "ranknum":
                child.to("meta").requires_grad_(False)


@final
@dataclass(frozen=True, kw_only=True)
class AdaLora(Strategy):
    """Low-rank adapters of adapted rank on the layers of `scope` with the given `roles` (default: all)."""

    name: ClassVar[str] = "adalora"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ADAPTER_PACKAGES
    follows: ClassVar[Mapping[str, tuple[str, int]]] = {"alpha": ("target_r", 2)}

    init_r: Count = 12
    target_r: Count = 8
    alpha: Count | None = None
    tinit: Share = 0.1
    tfinal: Share = 0.5
    deltaT: Count = 1  # noqa: N815
    beta1: Share = 0.85
    beta2: Share = 0.85
    orth_reg_weight: NonNegative = 0.5
    dropout: Share = 0.0
    roles: tuple[Role, ...] | None = None
    target_modules: Names | None = None
    exclude_modules: Names | None = added(None)
    layers_to_transform: Numbers | None = added(None)
    modules_to_save: Names | None = added(None)
    trainable_token_indices: Numbers | Rows | None = added(None)
    scope: str | None = None
    lr: Rate = 3e-3
    head_lr: Rate = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.target_r < self.init_r, f"target_r={self.target_r} should be less than init_r={self.init_r}")
        self.require(self.tinit + self.tfinal < 1, f"tinit={self.tinit} and tfinal={self.tfinal} leave no time between")
        self.require(self.beta1 * self.beta2 > 0, "beta1 and beta2 should be positive")

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and inject adapters tower by tower."""
        tuners = adapt(self, model, context, self._config(context.total_steps), default=ALL_LINEAR, convolutions=True)
        context.member_state[self] = tuners
        if on_meta(model):
            for tuner in tuners:
                _ranks_to_meta(tuner)

    def extra_loss(self, state: State) -> Tensor | None:
        """Give the mean distance of the P and Q from orthonormal matrices, weighted."""
        if self.orth_reg_weight == 0:
            return None
        import torch

        distances = []
        for name, matrix in _adapter_weights(state.member_state[self]):
            if name.endswith(("lora_A.default", "lora_B.default")):
                product = matrix @ matrix.T if "lora_A" in name else matrix.T @ matrix
                distances.append(torch.linalg.norm(product - torch.eye(len(product), device=product.device)))
        return self.orth_reg_weight * torch.stack(distances).mean()

    def after_update(self, state: State) -> None:
        """Weigh the values by their gradients, and set to zero those over the budget."""
        import torch

        weights = [parameter for _, parameter in _adapter_weights(state.member_state[self])]
        if self.orth_reg_weight and all(parameter.grad is None for parameter in weights):
            raise PlanError("adalora: no gradient is left after the update, and it weighs its ranks by them; take lora")
        for parameter in weights:
            if parameter.grad is None:  # of a layer that this update skipped: zero is its true gradient
                parameter.grad = torch.zeros_like(parameter)
            else:  # of an update that fp16's loss scaler skipped: not finite
                parameter.grad.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        for tuner in state.member_state[self]:
            tuner.update_and_allocate(state.step + 1)

    def state_dict(self, state: State) -> Any:
        """Give the importances, and which values are set to zero, tower by tower."""
        return [
            {"pattern": tuner.peft_config[tuner.trainable_adapter_name].rank_pattern}
            | {name: getattr(tuner.rankallocator, name) for name in IMPORTANCES}
            for tuner in state.member_state[self]
        ]

    def load_state_dict(self, state: State, saved: Any) -> None:
        """Go on with them."""
        for tuner, importances in zip(state.member_state[self], saved, strict=True):
            tuner.peft_config[tuner.trainable_adapter_name].rank_pattern = importances["pattern"]
            for name in IMPORTANCES:
                values = {key: value.to(state.device) for key, value in importances[name].items()}
                setattr(tuner.rankallocator, name, values)

    def _config(self, total_steps: int | None) -> peft.AdaLoraConfig:
        """Give PEFT's settings, in which the schedule is in steps."""
        import peft

        if total_steps is None:
            raise PlanError("adalora: its schedule needs the length of the run: give total_steps=…, or take lora")
        if total_steps < MIN_STEPS:
            raise PlanError(f"adalora: total_steps={total_steps}, but it needs {MIN_STEPS} or more: take lora")
        tfinal = min(int(self.tfinal * total_steps), total_steps - MIN_STEPS)
        tinit = min(int(self.tinit * total_steps), total_steps - tfinal - 1)
        return peft.AdaLoraConfig(
            init_r=self.init_r, target_r=self.target_r, lora_alpha=self.alpha, lora_dropout=self.dropout,
            tinit=tinit, tfinal=tfinal, deltaT=self.deltaT, beta1=self.beta1, beta2=self.beta2,
            orth_reg_weight=self.orth_reg_weight, total_step=total_steps,
        )  # fmt: skip
