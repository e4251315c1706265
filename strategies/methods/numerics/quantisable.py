"""Which linear layers of a scope can be stored in few bits, and why each of the others stays as it is.

Shared by `nf4`, `fp4` and `int8`. A layer that is passed by (its weight read, its forward its own) would compute
something else once packed, so it is left alone and listed: `Storage` is what `Tuned.describe` shows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from strategies.layout import EVERYTHING, is_within
from strategies.structure.blocks import uncalled_layers
from strategies.structure.choice.held_elsewhere import held_elsewhere
from strategies.structure.head import output_embeddings
from strategies.structure.layers.kept_precision import kept_in_float32
from strategies.structure.layers.linear_subclasses import computing_as_linear
from strategies.structure.layers.weight_reads import weight_reads
from strategies.structure.linear_layers import is_conv1d
from strategies.structure.roles import linear_layers

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

FUSED_DIMENSIONS = 3  # of the weights of several experts in one parameter
MAX_SHOWN = 2


class Kept(NamedTuple):
    """A layer that stays as it is: its name, and why."""

    name: str
    why: str


@dataclass
class Storage:
    """What a method made of a scope: names of the `quantised` layers, those `kept`, and `fused` weights of experts."""

    quantised: list[str] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    fused: list[str] = field(default_factory=list)

    def add(self, other: Storage) -> None:
        """Count in those of another tower."""
        self.quantised += other.quantised
        self.kept += other.kept
        self.fused += other.fused

    def __str__(self) -> str:
        text = f"{len(self.quantised)} linear layers stored in few bits"
        if self.kept:
            text += f"; {len(self.kept)} stay as they are: {why_kept(self.kept)}"
        if self.fused:
            text += f"; {len(self.fused)} weights of three dimensions (fused experts) stay, too: {_some(self.fused)}"
        return text


def why_kept(kept: list[Kept]) -> str:
    """Give the reasons, each with the number of layers and the first of their names."""
    reasons: dict[str, list[str]] = {}
    for name, why in kept:
        reasons.setdefault(why, []).append(name)
    return "; ".join(f"{len(names)} {why} ({_some(names)})" for why, names in reasons.items())


def _some(names: list[str]) -> str:
    return ", ".join(names[:MAX_SHOWN]) + (", …" if len(names) > MAX_SHOWN else "")


def reasons_to_keep(model: nn.Module, multiple: int, scope: str | None) -> Callable[[str, nn.Module], str | None]:
    """Give the function `name, linear layer → why it cannot be quantised`, `None` where it can.

    multiple: the number of inputs has to be a multiple of it. scope: an output embedding named by it is no exception.
    """
    import torch

    hidden, kept, read = uncalled_layers(model), kept_in_float32(model), weight_reads(model)
    held = held_elsewhere(model)
    everywhere = [module for _, module in model.named_modules(remove_duplicate=False)]
    uses = Counter(id(p) for module in everywhere for p in module.parameters(recurse=False))
    scores = output_embeddings(model) if scope != EVERYTHING else frozenset()
    plain = computing_as_linear(model.modules())
    plain |= {id(layer) for layer in model.modules() if is_conv1d(layer)}

    def why(name: str, layer: nn.Module) -> str | None:
        weight = vars(layer)["_parameters"].get("weight")
        inputs = 0 if weight is None else weight.shape[0 if is_conv1d(layer) else 1]
        reasons = {
            f"whose weight is read by {read[name]}" if name in read else "": name in read,
            f"that {held[name]} holds, too, outside the modules" if name in held else "": name in held,
            "inside nn.MultiheadAttention, which reads weights without calling the layer": name in hidden,
            "with a weight that is computed (parametrisation, pruning)": weight is None,
            f"of the class {type(layer).__name__}, which has a forward of its own": id(layer) not in plain,
            "in float64": weight is not None and weight.dtype == torch.float64,
            "shared with another layer": uses[id(weight)] > 1,
            "kept in float32 by the model's class": f"{name}.weight" in kept,
            "giving the scores (output embedding)": name in scores and name != scope,
            f"with inputs that are no multiple of {multiple}": inputs % multiple > 0,
            "with a single input, of which bitsandbytes' 8-bit layer on a CPU makes anything": inputs == 1,
        }
        return next((reason for reason, holds in reasons.items() if holds), None)

    return why


def fused_weights(model: nn.Module, prefixes: tuple[str, ...]) -> list[str]:
    """Name the parameters that hold a matrix for each of several experts; convolutions hold none."""
    from torch import nn

    return [
        f"{owner}.{name}".lstrip(".")
        for owner, module in model.named_modules()
        if is_within(owner, prefixes)
        and not isinstance(module, nn.modules.conv._ConvNd)  # noqa: SLF001 - what convolutions have in common
        and not type(module).__module__.startswith("torch.")
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim >= FUSED_DIMENSIONS and min(parameter.shape) > 1
    ]


def sort_layers(
    model: nn.Module, prefixes: tuple[str, ...], owned: frozenset[str], why: Callable[[str, nn.Module], str | None]
) -> Storage:
    """Divide the linear layers below `prefixes` that are among `owned` into those to quantise and those to keep."""
    storage = Storage(fused=fused_weights(model, prefixes))
    for name, layer in linear_layers(model, prefixes).items():
        if name not in owned:
            continue
        reason = why(name, layer)
        if reason is None:
            storage.quantised.append(name)
        else:
            storage.kept.append(Kept(name, reason))
    return storage
