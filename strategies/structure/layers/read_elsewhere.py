"""Layers whose weight a model's code reads beside calling them, as a decoder does that is the encoder transposed.

An adapter shows only where the layer is called. What changes the weight below it (a start that takes directions out of
it, a merge that puts them in) shows in such a read, too, and so in the model's outputs. Whether a read is ever reached
depends on what the model is given, so it is told, not refused.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from strategies.structure.choice.direct_reads import direct_reads

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import nn


def warn_of_reads(model: nn.Module, names: Collection[str], what: str, remedy: str) -> None:
    """Warn where code reads a weight among those of `names`, which `what` changes."""
    reads = {name: read.where for name, read in direct_reads(model).items() if read.kind == "elsewhere"}
    found = [name for name in names if name in reads]
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        warnings.warn(
            f"{what} changes the weight of {found[0]!r}{more}, which {reads[found[0]]} reads beside calling the layer: "
            f"where it does, the model's outputs change; {remedy}",
            stacklevel=4,
        )
