"""boft — rotate each layer's input by a product of sparse butterfly-ordered orthogonal matrices.

What: y = s·W·R·x, R a product of `boft_n_butterfly_factor` block-diagonal rotations with blocks of `boft_block_size`,
each in another order of channels, and s a scale per output; both start at one. With one factor R is oft's. PEFT's own
CUDA extension is replaced by the same few torch operations, so nothing is compiled and more factors work everywhere.
Why it helps: a few factors reach every pair of channels with far fewer values than one large rotation.
What it costs: R is built densely, in_features² values per factor and layer, as is the (unsaved) permutation: slow
and large for wide layers, worse for convolutions. When not to use it: layers thousands of channels wide, where oft is
cheaper.
Paper: Liu et al., Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization, 2023,
https://arxiv.org/abs/2311.06243
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.options import Count, Names, Rate, Share
from strategies.protocol import ADAPTER_PACKAGES, FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.adapters import AdaptedLayer, adapt
from strategies.structure.roles import Role

if TYPE_CHECKING:
    from torch import Tensor, nn


@final
@dataclass(frozen=True, kw_only=True)
class Boft(Strategy):
    """Butterfly rotations before the layers of `scope` with the given `roles` (default: query and value)."""

    name: ClassVar[str] = "boft"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ADAPTER_PACKAGES

    boft_block_size: Count = 4
    boft_n_butterfly_factor: Count = 1
    dropout: Share = 0.0
    roles: tuple[Role, ...] | None = None
    target_modules: Names | None = None
    scope: str | None = None
    lr: Rate = 2e-3
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and inject rotations; block sizes that do not fit a layer are refused."""
        import peft
        import peft.tuners.boft.layer as boft_layer

        boft_layer._FBD_CUDA = _TorchBlocks()  # noqa: SLF001 - else PEFT compiles an extension at the first layer
        config = peft.BOFTConfig(
            boft_block_size=self.boft_block_size, boft_dropout=self.dropout,
            boft_n_butterfly_factor=self.boft_n_butterfly_factor,
        )  # fmt: skip
        adapt(self, model, context, config, convolutions=True, adjust=self._check_sizes)

    def _check_sizes(self, config: Any, layers: list[AdaptedLayer]) -> None:
        """Refuse layers whose inputs cannot be cut into blocks, or into butterflies of them."""
        del config
        size, factors = self.boft_block_size, self.boft_n_butterfly_factor
        self.require(factors == 1 or size % 2 == 0, f"boft_block_size={size} must be even with {factors} factors")
        step = size if factors == 1 else size * 2 ** (factors - 1)
        for _, name, layer in layers:
            weight: Any = layer.weight
            width = weight.shape[1:].numel() if weight.ndim > 2 else int(vars(layer)["in_features"])  # noqa: PLR2004
            self.require(
                width % step == 0,
                f"{name!r} has {width} inputs, no multiple of {step} as boft_block_size={size} with "
                f"boft_n_butterfly_factor={factors} needs; choose smaller ones or other layers",
            )


class _TorchBlocks:
    """What PEFT's CUDA extension does, in torch: (factors, blocks, size, size) → block-diagonal matrices and back."""

    @staticmethod
    def forward(blocks: Tensor) -> list[Tensor]:
        """Give (factors, blocks·size, blocks·size)."""
        import torch

        return [torch.stack([torch.block_diag(*factor) for factor in blocks])]

    @staticmethod
    def backward(gradient: Tensor, blocks: Tensor) -> list[Tensor]:
        """Give the gradient of each block: what stands in its place on the diagonal."""
        factors, count, size, _ = blocks.shape
        tiles = gradient.reshape(factors, count, size, count, size)
        return [tiles.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)]
