"""What a plan made of a model, in numbers: what trains, where, and what it takes in memory before any batch.

Activations are missing here on purpose: they depend on the batch, and only a measurement knows them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strategies.methods.numerics.quantisable import Storage
from strategies.structure.find_layout import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch
    from torch import Tensor, nn

    from strategies.layout import Layout
    from strategies.protocol import Strategy

KIBI = 1024
ADAMW_MOMENTS = 2  # AdamW keeps two tensors like each weight that trains


def count_parameters(model: nn.Module, layout: Layout, trained: frozenset[str]) -> dict[str, int]:
    """Count parameters, 4-bit ones unpacked: those `trained` at some time, total, and both for each scope."""
    counts = {"trainable_parameters": 0, "total_parameters": 0}
    for scope in layout.scopes:
        owned = layout.owned(scope, [name for name, _ in model.named_parameters()])
        sizes = [(size, trains) for name, size, trains in _sizes(model, trained) if name in owned]
        counts[f"{scope}_parameters"] = sum(size for size, _ in sizes)
        counts[f"{scope}_trainable_parameters"] = sum(size for size, trains in sizes if trains)
    for _, size, trains in _sizes(model, trained):
        counts["total_parameters"] += size
        counts["trainable_parameters"] += size * trains
    return counts


def head_line(model: nn.Module, layout: Layout) -> str:
    """Say what is new, and how that was found."""
    tied = layout.tied_head(model)
    note = f"; tied to {tied}, so it trains as that does" if tied else ""
    return f"head: {shown(layout.scopes['head']) or 'none'} ({layout.head_origin}{note})"


def memory_by_kind(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Give the bytes of weights (buffers and quantisation statistics too), gradients and optimizer state.

    Gradients are those of all that trains now (`lisa` rests blocks from its first step on). Before the first step the
    optimizer's state is what AdamW needs.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = sum(parameter.numel() * parameter.element_size() for parameter in trained)
    state = [value for entry in optimizer.state.values() for value in entry.values()]
    kept = _bytes(state) if state else ADAMW_MOMENTS * gradients
    tensors = [*model.parameters(), *model.buffers(), *_quantisation_state(model)]
    return {"weights_bytes": _bytes(tensors), "gradients_bytes": gradients, "optimizer_bytes": kept}


def table(counts: dict[str, int], memory: dict[str, int], rates: Sequence[tuple[str, float]], *, expected: bool) -> str:
    """Draw both as text; `expected`: the optimizer's state is not there yet."""
    lines = []
    scopes = [key.removesuffix("_trainable_parameters") for key in counts if key.endswith("_trainable_parameters")]
    width = max([10, *map(len, scopes)])
    for scope in scopes:
        total, trained = counts[f"{scope}_parameters"], counts[f"{scope}_trainable_parameters"]
        if not total:
            continue
        lines.append(
            f"  {scope:<{width}} {trained:>13,} of {total:>13,} parameters train ({trained / max(total, 1):.2%})"
        )
    lines.append("  rates      " + ", ".join(f"{name} {peak:g}" for name, peak in rates))
    sizes = ", ".join(f"{kind.removesuffix('_bytes')} {readable(size)}" for kind, size in memory.items())
    note = " (expected)" if expected else ""
    return "\n".join([*lines, f"  memory     {sizes}{note}; activations depend on the batch"])


def storage_lines(member_state: Mapping[Strategy, object]) -> list[str]:
    """Say for each member that stores layers in few bits how many it does, and which stay as they are and why."""
    stored = [(member.name, kept) for member, kept in member_state.items() if isinstance(kept, Storage)]
    return [f"  {name:<10} {kept}" for name, kept in stored]


def readable(size: float) -> str:
    """Write a number of bytes as people read it."""
    for unit in ("B", "KiB", "MiB"):
        if size < KIBI:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= KIBI
    return f"{size:,.1f} GiB"


def _bytes(tensors: Sequence[object]) -> int:
    """Sum the storages behind tensors, each once."""
    import torch

    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if isinstance(t, torch.Tensor)
    }
    return sum(storages.values())


def _quantisation_state(model: nn.Module) -> Iterator[Tensor]:
    """Give the tensors that bitsandbytes keeps beside a quantised weight: scales and code books."""
    import torch

    for parameter in model.parameters():
        state = vars(parameter).get("quant_state")
        for part in (state, getattr(state, "state2", None)):
            yield from (value for value in vars(part).values() if isinstance(value, torch.Tensor)) if part else ()
        yield from (value for key in ("CB", "SCB") if isinstance(value := vars(parameter).get(key), torch.Tensor))


def _sizes(model: nn.Module, trained: frozenset[str]) -> Iterator[tuple[str, int, bool]]:
    """Give name, logical number of values, and whether it may train, for each parameter."""
    for name, parameter in model.named_parameters():
        packed = vars(parameter).get("quant_state")
        yield name, packed.shape.numel() if packed is not None else parameter.numel(), name in trained
