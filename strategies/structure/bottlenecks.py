"""Bottleneck adapters for `houlsby` and `adaptformer`: down to a few features, a non-linearity, up again.

Own code, since no library offers them for transformers 5. The classes are made when first asked for, so that planning
needs no torch. Each wrapper keeps the wrapped layer at `base_layer` and its parameters as the same objects, and shows
its weight, bias and sizes, as T5 asks for the weight's type before it calls the layer. Layers whose weight is computed
with directly get no wrapper (`unfit_layers`), and torch's encoder layer, which may read `linear1.weight`, is kept from
it (`disable_fast_path`).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from strategies.layout import is_within
from strategies.structure.roles import roles_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn


class AdapterClasses(NamedTuple):
    """The kinds of wrapper."""

    serial: Callable[..., nn.Module]
    parallel: Callable[..., nn.Module]
    entrance: Callable[..., nn.Module]
    exit: Callable[..., nn.Module]


@cache
def adapter_classes() -> AdapterClasses:
    """Make the classes, once."""
    from torch import nn

    class WrappedLayer(nn.Module):
        """A layer in another's place, which answers as that does when asked for weight, bias or size."""

        def __init__(self, base: nn.Module) -> None:
            super().__init__()
            self.base_layer = base

        weight, bias, in_features, out_features = map(_shown, ("weight", "bias", "in_features", "out_features"))

    class BottleneckAdapter(WrappedLayer):
        """A layer, and a branch up(act(down(x))) that starts at zero; everything of the branch is float32."""

        def __init__(self, base: nn.Module, down: nn.Module, up: nn.Module, *, activation: str, scale: float) -> None:
            super().__init__(base)
            self.down, self.up = down, up
            self.activation = nn.GELU() if activation == "gelu" else nn.ReLU()
            self.scale = scale

        def branch(self, x: Tensor) -> Tensor:
            """Give what the branch adds, in float32 (in the lower precision under autocast)."""
            inner = self.activation(self.down(x.to(cast("Tensor", self.down.weight).dtype)))
            return cast("Tensor", self.up(inner)) * self.scale

    class SerialBottleneckAdapter(BottleneckAdapter):
        """y + branch(y), y = layer(x)."""

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.base_layer(x)
            return y + self.branch(y).to(y.dtype)

    class ParallelBottleneckAdapter(BottleneckAdapter):
        """layer(x) + branch(x)."""

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.base_layer(x)
            return y + self.branch(x).to(y.dtype)

    class EntranceBottleneckAdapter(BottleneckAdapter):
        """The first layer of a feed-forward part: its input goes through the branch, for the exit to add."""

        def __init__(
            self, branch_output: dict[str, Tensor], base: nn.Module, *parts: nn.Module, **options: Any
        ) -> None:
            super().__init__(base, *parts, **options)
            self.branch_output = branch_output

        def forward(self, x: Tensor) -> Tensor:
            self.branch_output["value"] = self.branch(x)
            return cast("Tensor", self.base_layer(x))

    class ExitBottleneckAdapter(WrappedLayer):
        """The last layer of a feed-forward part: adds what the entrance has handed over, and forgets it."""

        def __init__(self, branch_output: dict[str, Tensor], base: nn.Module) -> None:
            super().__init__(base)
            self.branch_output = branch_output

        def forward(self, x: Tensor) -> Tensor:
            value = self.branch_output.pop("value")
            y: Tensor = self.base_layer(x)
            return y + value.to(y.dtype)

    return AdapterClasses(
        SerialBottleneckAdapter, ParallelBottleneckAdapter, EntranceBottleneckAdapter, ExitBottleneckAdapter
    )


def _shown(name: str) -> property:
    """Make a property that gives the wrapped layer's."""

    def get(wrapper: Any) -> Any:
        return getattr(wrapper.base_layer, name)

    return property(get)


def projections(base: nn.Module, other: nn.Module, r: int, *, behind: bool = False) -> tuple[nn.Module, nn.Module]:
    """Make down (torch's own initialisation) and up (zeros) between the input of `base` and the output of `other`.

    `behind`: the branch starts at the output, too.
    """
    import torch
    from torch import nn

    place: dict[str, Any] = {"device": next(base.parameters()).device, "dtype": torch.float32}
    down: nn.Module
    up: nn.Module
    if isinstance(base, nn.Conv2d):
        last = cast("nn.Conv2d", other)
        first_shape = {"kernel_size": 1} if behind else _geometry(base)
        last_shape = {"kernel_size": 1} if last is base else _geometry(last)
        down = nn.Conv2d(base.out_channels if behind else base.in_channels, r, **first_shape, **place)
        up = nn.Conv2d(r, last.out_channels, **last_shape, **place)
    else:
        start, end = cast("nn.Linear", base), cast("nn.Linear", other)
        down = nn.Linear(end.out_features if behind else start.in_features, r, **place)
        up = nn.Linear(r, end.out_features, **place)
    for parameter in up.parameters():
        nn.init.zeros_(parameter)
    return down, up


def _geometry(base: nn.Conv2d) -> dict[str, Any]:
    """Give the shape of a convolution that makes pictures of `base`'s size: 1×1 where `base` pads to keep the size."""
    reach = [(size - 1) * step for size, step in zip(base.kernel_size, base.dilation, strict=True)]
    even = all(part % 2 == 0 for part in reach)
    if base.padding == "same" or (even and base.padding == tuple(part // 2 for part in reach)):
        return {"kernel_size": 1, "stride": base.stride}
    return {name: getattr(base, name) for name in ("kernel_size", "stride", "padding", "dilation")}


def wrap_serial(model: nn.Module, name: str, r: int) -> None:
    """Put a bottleneck behind the layer called `name`."""
    base = model.get_submodule(name)
    wrapped = adapter_classes().serial(base, *projections(base, base, r, behind=True), activation="gelu", scale=1.0)
    model.set_submodule(name, wrapped.train(base.training))


def wrap_parallel(model: nn.Module, name: str, r: int, scale: float) -> None:
    """Put a bottleneck beside the layer called `name`."""
    base = model.get_submodule(name)
    wrapped = adapter_classes().parallel(base, *projections(base, base, r), activation="relu", scale=scale)
    model.set_submodule(name, wrapped.train(base.training))


def wrap_pair(model: nn.Module, first: str, last: str, r: int, scale: float) -> None:
    """Put a bottleneck beside everything from the layer `first` to the layer `last`."""
    start, end = model.get_submodule(first), model.get_submodule(last)
    branch_output: dict[str, Tensor] = {}
    parts = projections(start, end, r)
    entrance = adapter_classes().entrance(branch_output, start, *parts, activation="relu", scale=scale)
    model.set_submodule(first, entrance.train(start.training))
    model.set_submodule(last, adapter_classes().exit(branch_output, end).train(end.training))


def pairs(
    names: Sequence[str], blocks: Sequence[str], roles: Mapping[str, Sequence[str]] | None = None
) -> tuple[list[tuple[str, str]], list[str]]:
    """Pair each "down" layer among `names` (in the model's order) with an "up" of its module, else of its block.

    roles: name → roles, by default those that the names say. Also gives the layers that stay single; a second "up"
    beside a pair (a gate) is neither.
    """
    roles = roles or {name: roles_of(name) for name in names}
    block_of = {name: next((block for block in blocks if is_within(name, (block,))), None) for name in names}
    free = [name for name in names if "up" in roles[name]]
    found: list[tuple[str, str]] = []
    for place, name in enumerate(names):
        if "down" not in roles[name]:
            continue
        before = [up for up in free if up in names[:place] and block_of[up] == block_of[name]]
        beside = [up for up in free if up.rpartition(".")[0] == name.rpartition(".")[0]]
        if first := (beside or before)[-1:]:
            found.append((first[0], name))
            free = [up for up in free if up not in (beside or before)]
    paired = {name for pair in found for name in pair}
    gates = {name for name in names if "up" in roles[name] and name not in free}
    return found, [name for name in names if name not in paired | gates]
