"""Layers whose weight other code reads instead of calling the layer: an adapter around them is passed over.

A model's code says so (`self.dt_proj.weight @ x`). What is asked of a weight besides its values (its type, shape or
device) does no harm. Code without source, or which reads weights in ways that a look at it does not show, is left to
the check of the first step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from strategies.structure.layers.module_uses import uses_in, words_of
from strategies.structure.layers.source_reader import PARAMETERS, WEIGHT

if TYPE_CHECKING:
    from torch import nn

    from strategies.structure.layers.source_reader import Use

Kind = Literal["uncalled", "changed", "fused", "elsewhere"]
WORST_FIRST: Final[tuple[Kind, ...]] = ("changed", "fused", "elsewhere")
# What may be asked of a weight without its values.
HARMLESS: Final = frozenset(
    {
        "data_ptr", "device", "dim", "dtype", "element_size", "grad", "is_contiguous", "is_cuda", "is_floating_point",
        "is_meta", "layout", "ndim", "nelement", "numel", "quant_state", "requires_grad", "requires_grad_", "shape",
        "size", "stride", "CB", "SCB",
    }
)  # fmt: skip


class Read(NamedTuple):
    """How a layer's weight is read or changed, and by which function.

    "uncalled": it is read, and the layer is called nowhere; "changed": in place; "fused": one call takes it with other
    layers' weights, as kernels do that compute them together; "elsewhere": beside places that call the layer.
    """

    kind: Kind
    where: str


def direct_reads(model: nn.Module) -> dict[str, Read]:
    """Give name → how its weight is read, for every module below a model whose weight its code reads directly."""
    names = {id(module): name for name, module in model.named_modules()}
    reads: dict[int, Read] = {}
    for _, use, parts in uses_in(model, {WEIGHT}):
        kind = _kind(use)
        for part in parts if kind else ():
            known = reads.get(id(part))
            if kind and (known is None or WORST_FIRST.index(kind) < WORST_FIRST.index(known.kind)):
                reads[id(part)] = Read(kind, use.where)
    called = _called(model, {names[part] for part in reads}) if reads else set()
    return {
        names[part]: read if part in called or read.kind == "changed" else Read("uncalled", read.where)
        for part, read in reads.items()
    }


def _kind(use: Use) -> Kind | None:
    """Give the kind of a use of a weight; `None` for others, and where its values do not matter."""
    if use.asked[:1] != (WEIGHT,) or use.how == "looked at" or not HARMLESS.isdisjoint(use.asked[1:2]):
        return None
    in_place = any(step.endswith("_") and not step.startswith("_") for step in use.asked)
    if in_place or use.how == "stored":
        return "changed"
    return "fused" if use.how == "together" else "elsewhere"


def _called(model: nn.Module, names: set[str]) -> set[int]:
    """Give the ids of modules that are called or handed on by functions which mention one of `names`."""
    from torch import nn

    found: set[int] = set()
    for _, use, parts in uses_in(model, words_of(names)):
        if use.how != "unknown" and use.asked[:1] not in {(WEIGHT,), (PARAMETERS,)}:
            for part in parts:
                found.add(id(part))
                if isinstance(part, nn.Sequential):
                    found.update(map(id, part))
    return found
