"""The head of a model that says nothing of it: by the class of a transformers model, else by where its parts stand.

A head is what a task adds to a pretrained body. A tower, a norm or a language model's output embedding is none, however
late it comes: where nothing else is there, the answer is "none" or a doubt, never a guess.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from strategies.layout import is_within
from strategies.structure.blocks import repeated_blocks
from strategies.structure.marks import is_transformers
from strategies.structure.norms import is_norm
from strategies.structure.towers import tower_names

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import nn

LARGE_SHARE = 0.5  # of a model's parameters: what has more in several layers is a body, unless its name says head
HEAD_NAMES = re.compile(r"(?:.*_)?(?:heads?|classifiers?|predictors?|predictions?|logits|scores?|outputs?|fc|cls)")
TASK_CLASSES = re.compile(r"For[A-Z]")
GENERATING_CLASSES = re.compile(r"ForConditionalGeneration|ForCausalLM|LMHeadModel|ForMaskedLM|MTModel")


class Head(NamedTuple):
    """Names of modules and single parameters, none if there is no head, and why so.

    doubt: what speaks against any answer. by_class: found by the class of a transformers model, not by place.
    """

    names: tuple[str, ...]
    origin: str
    doubt: str | None = None
    by_class: bool = False


def find_head(model: nn.Module) -> Head:
    """Find the head of a model by what it is made of, stepping into wrappers around a single child."""
    prefix = ""
    while not is_transformers(model) and len(parts_of(model)) == 1 and not _own_parameters(model):
        ((name, model),) = parts_of(model).items()
        prefix += f"{name}."
    found = _of_transformers(model) if is_transformers(model) else _of_torch(model)
    return found._replace(names=tuple(prefix + name for name in found.names))


def parts_of(model: nn.Module) -> dict[str, nn.Module]:
    """Give the children that have parameters, by name."""
    return {name: child for name, child in model.named_children() if any(True for _ in child.parameters())}


def large_share(model: nn.Module, names: Collection[str]) -> float:
    """Give the share of the parameters that the named parts have, if it is large and there are several layers, or 0."""
    parameters = dict(model.named_parameters())
    within = [parameter for name, parameter in parameters.items() if is_within(name, tuple(names))]
    share = sum(p.numel() for p in within) / max(1, sum(p.numel() for p in parameters.values()))
    return share if share > LARGE_SHARE and sum(p.ndim > 1 for p in within) > 1 else 0.0


def is_tower(name: str, module: nn.Module) -> bool:
    """Say whether a module holds repeated blocks with norms in them, as bodies do, and is not named a head."""
    blocks = repeated_blocks(module, [""]).values()
    return not HEAD_NAMES.fullmatch(name) and any(is_norm(*named) for block in blocks for named in _named_parts(block))


def output_embeddings(model: nn.Module) -> frozenset[str]:
    """Name the layers that score the vocabularies of a model of transformers and of those in it."""
    layers = {id(_output_embedding(part)) for part in model.modules() if is_transformers(part)}
    return frozenset(name for name, module in model.named_modules() if id(module) in layers)


def _of_transformers(model: Any) -> Head:
    """Take what a class for a task has beside its base model; what leads to an output embedding is pretrained."""
    kind, parts, base, outputs = type(model).__name__, parts_of(model), model.base_model, _output_embedding(model)
    holders = [name for name, part in parts.items() if any(own is outputs for own in part.modules())]
    theirs = type(model).__module__.startswith("transformers.")
    if theirs and not holders and not TASK_CLASSES.search(kind):
        return Head((), f"{kind} is a base model")
    if holders or (theirs and GENERATING_CLASSES.search(kind)):
        rest = {} if GENERATING_CLASSES.search(kind) else _beside(_behind(parts, holders), base)
        held = (
            f"{holders[0]} holds the output embedding{_tie(model, outputs)}, which is"
            if holders
            else f"{kind} generates; all of it is"
        )
        why = f"what {kind} has beside its base and language models" if rest else f"{held} pretrained"
        return Head(tuple(rest), why, by_class=True)
    towers = [] if base is not model else [name for name, part in parts.items() if theirs and is_tower(name, part)]
    if base is model and not towers:
        return _of_torch(model)
    rest = _behind(parts, towers) if towers else _beside(parts, base)
    doubt = next((f"{name!r} holds repeated blocks" for name, part in rest.items() if is_tower(name, part)), None)
    names = (*rest, *([] if towers else _own_parameters(model)))
    if doubt or not names:
        return Head((), "", doubt or "nothing stands beside or behind its base model")
    return Head(names, f"what {kind} has beside its pretrained body", by_class=True)


def _of_torch(model: nn.Module) -> Head:
    """Take what stands beside models of transformers; without any the last child, and what else is named a head."""
    kind, parts = type(model).__name__, parts_of(model)
    if not parts:
        return Head((), f"{kind} has no parts, one of which could be a head")
    if inner := {name: part for name, part in parts.items() if is_transformers(part)}:
        rest = [name for name in parts if name not in inner]
        if tower := next((name for name in rest if _holds_blocks(name, parts[name])), None):
            return Head((), "", f"{tower!r} holds repeated blocks")
        within = [f"{name}.{own}" for name, part in inner.items() for own in _of_transformers(part).names]
        names = (*within, *rest, *_own_parameters(model))
        origin = (
            f"what {kind} has beside models of transformers" if names else f"{kind} has only models of transformers"
        )
        return Head(names, origin, by_class=True)
    *others, last = parts
    if len(towers := tower_names(model)) > 1:
        rest = [*_behind(parts, [towers[-1].partition(".")[0]])]
        if names := tuple(name for name in rest if not _not_a_head(model, name, parts[name])):
            return Head(names, f"what {kind} has behind its towers" + _like_embedding(model, parts[names[-1]]))
    if reason := _not_a_head(model, last, parts[last]):
        return Head((), "", f"its last part {last!r} {reason}")
    named = [name for name in others if HEAD_NAMES.fullmatch(name) and not _not_a_head(model, name, parts[name])]
    origin = f"the last child with parameters{', and what else is named a head' if named else ''}"
    return Head((*named, last), origin + _like_embedding(model, parts[last]))


def _not_a_head(model: nn.Module, name: str, part: nn.Module) -> str | None:
    """Say why a child is none, if so."""
    from torch import nn

    if is_norm(part, name):
        return "is a norm"
    if isinstance(part, nn.Embedding):
        return "is an embedding"
    if _holds_blocks(name, part):
        return "holds repeated blocks"
    if (share := large_share(model, [name])) and not HEAD_NAMES.fullmatch(name):
        return f"has {share:.0%} of the parameters"
    return None


def _output_embedding(model: Any) -> nn.Module | None:
    """Give the layer of a transformers model that scores its vocabulary, if it has one."""
    try:
        found: nn.Module | None = model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return found


def _holds_blocks(name: str, part: nn.Module) -> bool:
    return bool(repeated_blocks(part, [""])) and not HEAD_NAMES.fullmatch(name)


def _named_parts(block: nn.Module) -> list[tuple[nn.Module, str]]:
    return [(part, name) for name, part in block.named_modules()]


def _own_parameters(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters(recurse=False)]


def _behind(parts: Mapping[str, nn.Module], names: list[str]) -> dict[str, nn.Module]:
    """Give the parts that follow the last of `names`."""
    order = [*parts]
    return {name: parts[name] for name in order[order.index(names[-1]) + 1 :]}


def _beside(parts: Mapping[str, nn.Module], base: nn.Module) -> dict[str, nn.Module]:
    """Give the parts that neither are the base model nor hold it or lie in it."""
    inner = {*base.modules()}
    return {name: part for name, part in parts.items() if part not in inner and base not in {*part.modules()}}


def _tie(model: nn.Module, outputs: Any) -> str:
    """Name the embedding that an output embedding shares its weight with."""
    weight = next(outputs.parameters())
    first = next(name for name, parameter in model.named_parameters() if parameter is weight)
    own = {name for name, module in model.named_modules() if module is outputs}
    return "" if is_within(first, tuple(own)) else f", tied to {first}"


def _like_embedding(model: nn.Module, part: nn.Module) -> str:
    """Point out a last layer with the shape of an embedding, which in a language model is pretrained."""
    from torch import nn

    embeddings = {name: module for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    shapes = {tuple(module.weight.shape): name for name, module in embeddings.items()}
    if not isinstance(part, nn.Linear) or any(part.weight is module.weight for module in embeddings.values()):
        return ""
    like = shapes.get(tuple(part.weight.shape))
    return f"; it is shaped like the embedding {like!r}: if it is pretrained, give head=None" if like else ""
