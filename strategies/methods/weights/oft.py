"""oft — rotate each layer's input with trained block-diagonal orthogonal matrices.

What: y = W·R·x with W frozen and R orthogonal, in blocks of `oft_block_size`, built from skew-symmetric matrices by
the Cayley transform (a Neumann series of five terms, as PEFT does); R starts at one. A block size that does not
divide a layer's input width is replaced by the nearest one that does.
Why it helps: rotations keep angles between neurons, so pretrained features are bent rather than overwritten.
What it costs: one small inverse or series and a block product per layer and step; trained values grow with the block
size. When not to use it: convolutions (PEFT's layer for them does not start at the pretrained model: its outputs were
off by 0.3 on a small network, so it is not offered), or a task that needs other scales rather than other angles.
Paper: Qiu et al., Controlling Text-to-Image Diffusion by Orthogonal Finetuning, 2023, https://arxiv.org/abs/2306.07280
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from strategies.options import Count, Names, Rate, Share
from strategies.protocol import ADAPTER_PACKAGES, FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.adapters import adapt
from strategies.structure.roles import Role

if TYPE_CHECKING:
    from torch import Tensor, nn


@final
@dataclass(frozen=True, kw_only=True)
class Oft(Strategy):
    """Orthogonal blocks before the layers of `scope` with the given `roles` (default: query and value)."""

    name: ClassVar[str] = "oft"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ADAPTER_PACKAGES

    oft_block_size: Count = 32
    dropout: Share = 0.0
    coft: bool = False
    block_share: bool = False
    use_cayley_neumann: bool = True
    roles: tuple[Role, ...] | None = None
    target_modules: Names | None = None
    scope: str | None = None
    lr: Rate = 7e-4
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and inject rotations, PEFT adjusting the block size where a width needs it."""
        import peft

        config = peft.OFTConfig(
            oft_block_size=self.oft_block_size, module_dropout=self.dropout, coft=self.coft,
            block_share=self.block_share, use_cayley_neumann=self.use_cayley_neumann,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Invalid `oft_block_size`")
            for tuner in adapt(self, model, context, config):
                _take_any_dimensions(tuner)


def _take_any_dimensions(tuner: nn.Module) -> None:
    """Let rotations before linear layers take inputs of four dimensions, which PEFT takes for those of convolutions."""
    from peft.tuners.oft.layer import OFTRotationModule

    for module in tuner.modules():
        if isinstance(module, OFTRotationModule):
            module.register_forward_pre_hook(_flat)
            module.register_forward_hook(_unflat)


def _flat(rotation: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    vars(rotation)["_input_shape"] = inputs[0].shape
    return (inputs[0].reshape(-1, inputs[0].shape[-1]), *inputs[1:])


def _unflat(rotation: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    del inputs
    return output.reshape(vars(rotation)["_input_shape"])
