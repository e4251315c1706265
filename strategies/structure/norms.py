"""Which modules are normalisation layers: torch's own, and those of others by what they are called and hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from strategies.structure.freezing import is_vector

if TYPE_CHECKING:
    from torch import nn

CALLED_SO = re.compile(r"[Nn]orm|RMS")  # in the name of a class, or of the place (`attention_norm`)


def is_norm(module: nn.Module, name: str) -> bool:
    """Say whether a module is one of torch's norms, or a leaf that is called a norm and holds vectors only."""
    from torch import nn
    from torch.nn.modules.batchnorm import _NormBase

    if isinstance(module, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm | _NormBase):
        return True
    names = [name.rpartition(".")[2], *(kind.__name__ for kind in type(module).__mro__)]
    leaf = all(not any(True for _ in child.parameters()) for child in module.children())
    return leaf and any(map(CALLED_SO.search, names)) and all(map(is_vector, module.parameters(recurse=False)))
