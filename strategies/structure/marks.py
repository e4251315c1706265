"""Which parts of a model no checkpoint had, as transformers' marks tell.

`from_pretrained` (transformers 5) marks each parameter that it loads, so what lacks the mark in a model where others
carry it is new. The mark survives `.to`, wrapping and quantising while loading; `copy.deepcopy` and
`load_state_dict(assign=True)` lose it. Some parameters say nothing: packed ones, those that a parametrisation made anew
after loading, and those that are computed and in no checkpoint. Resized embeddings keep their mark, though some of
their rows are new.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from strategies.layout import is_within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

MARK = "_is_hf_initialized"
WEIGHT_NORM_SUFFIXES = ("_g", "_v")  # of torch's older function


class Marks(NamedTuple):
    """What marks tell: outermost `new` modules and single parameters, and `untold` layers, rebuilt after loading."""

    new: tuple[str, ...]
    untold: tuple[str, ...]


def read_marks(model: nn.Module) -> Marks | None:
    """Find what no checkpoint had; `None` where no parameter carries a mark."""
    marked = {name: bool(getattr(p, MARK, False)) for name, p in model.named_parameters()}
    if not any(marked.values()):
        return None
    rebuilt = set(_rebuilt(model))
    silent = rebuilt | set(_packed_or_computed(model))
    told = {name: mark for name, mark in marked.items() if mark or name not in silent}
    total, new = Counter[str](), Counter[str]()
    for name, mark in told.items():
        for owner in _owners(name):
            total[owner] += 1
            new[owner] += not mark
    found: list[str] = []
    for name, _ in model.named_modules():
        if total[name] and new[name] == total[name] and not is_within(name, tuple(found)):
            found.append(name)
    found += [name for name, mark in told.items() if not mark and not is_within(name, tuple(found))]
    untold = [name for name in marked if name in rebuilt - set(told) and not is_within(name, tuple(found))]
    return Marks(tuple(found), tuple(dict.fromkeys(map(_layer_of, untold))))


def is_transformers(module: nn.Module) -> bool:
    """Say whether a module is a model of transformers, or of a class derived from theirs; imports nothing."""
    library: Any = sys.modules.get("transformers.modeling_utils")
    return library is not None and isinstance(module, library.PreTrainedModel)


def _owners(name: str) -> list[str]:
    """Name the modules that a parameter lies in, but for the model itself."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _layer_of(name: str) -> str:
    """Name the layer whose weight is computed from the parameter `name`."""
    return name.partition(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0]


def _rebuilt(model: nn.Module) -> Iterator[str]:
    """Name the parameters that a parametrisation made in place of a weight."""
    from torch.nn.utils.weight_norm import WeightNorm

    for owner, module in model.named_modules():
        prefix = f"{owner}." if owner else ""
        hooks = module._forward_pre_hooks.values()  # noqa: SLF001 - torch's older function leaves no other trace
        normed = [hook.name for hook in hooks if isinstance(hook, WeightNorm)]
        made = {f"{weight}{suffix}" for weight in normed for suffix in WEIGHT_NORM_SUFFIXES}
        for own, _ in module.named_parameters(recurse=False):
            if own in made or ".parametrizations." in f".{prefix}":
                yield prefix + own


def _packed_or_computed(model: nn.Module) -> Iterator[str]:
    """Name the parameters that hold codes, and those that transformers computes and writes to no checkpoint."""
    parts: list[Any] = [part for part in model.modules() if is_transformers(part)]
    unsaved = {key for part in parts for key in part._keys_to_ignore_on_save or ()}  # noqa: SLF001 - their only list
    for owner, module in model.named_modules():
        for own, parameter in module.named_parameters(owner, recurse=False):
            packed = not (parameter.is_floating_point() or parameter.is_complex())
            if packed or "Sinusoidal" in type(module).__name__ or any(re.search(key, own) for key in unsaved):
                yield own
