"""Which parameters a model's class asks to keep in float32 whatever the rest is stored in.

transformers' models name them in `_keep_in_fp32_modules` (when loaded in float16) and `_keep_in_fp32_modules_strict`
(in bfloat16, too): weights whose activations leave the range or need the digits. Both are obeyed by whatever stores a
model in fewer bits here, and matched as transformers does when it loads: an expression found anywhere in a name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

ATTRIBUTES = ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")


def kept_in_float32(model: nn.Module) -> frozenset[str]:
    """Give the names of the parameters and buffers of `model` that it, or a model inside it, asks to keep so."""
    kept: set[str] = set()
    for root, module in model.named_modules():
        patterns = [text for name in ATTRIBUTES for text in _listed(getattr(module, name, None))]
        if not patterns:
            continue
        wanted = re.compile("|".join(f"(?:{text.replace('*', '.*')})" for text in patterns))
        tensors = [*module.named_parameters(), *module.named_buffers()]
        kept |= {f"{root}.{name}".lstrip(".") for name, _ in tensors if wanted.search(name)}
    return frozenset(kept)


def _listed(value: object) -> list[str]:
    """Give what a class lists, which may be `None`."""
    return [str(text) for text in value] if isinstance(value, list | tuple | set | frozenset) else []
