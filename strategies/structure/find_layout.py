"""Find what is new in a model, its head, and its towers.

The first rule that has an answer decides:

1. `head=` is given: these modules and parameters; with `None` nothing is new, and there is no head.
2. The model offers `scopes["head"]`: this, and in its towers what rule 3 finds. `scopes["fusion"]` is new, too.
3. Some parameters carry transformers' mark of loading: those without it are new, and the head that rule 4 finds. Where
   all carry it, nothing is new, but a small head by rule 4 still counts as one: it trains with the head's rate.
4. A model of transformers: what a class for a task has beside its base model (behind its last tower, where it has no
   base model of its own). None for a base model and for a language model, whose output embedding is pretrained. In a
   model that holds models of transformers: what stands beside them.
5. Any other model: what stands behind its towers, if it has several; else its last child with parameters, and other
   children that are named heads.

A part with repeated blocks is no head, and by rule 5 neither is a norm, an embedding, or several layers with most of
the parameters: without marks that is refused, and `head=` has to say what is new. What is new trains and is saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError, closest_first
from strategies.layout import NEW_PARTS, HeadChoice, Layout, is_within
from strategies.structure.head import Head, find_head, is_tower, large_share, output_embeddings, parts_of
from strategies.structure.marks import Marks, is_transformers, read_marks
from strategies.structure.towers import find_towers

if TYPE_CHECKING:
    from torch import nn

AUTO = "auto"
MAX_SHOWN, MAX_NAMES = 4, 12  # names in a sentence: of new parts, to choose from
# Wrappers around a model, and where they keep it.
WRAPPERS = {
    "OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module",
    "FullyShardedDataParallel": "module", "DeepSpeedEngine": "module",
}  # fmt: skip


def find_layout(model: nn.Module, head: HeadChoice = AUTO) -> Layout:
    """Find what is new, the head and the towers by the rules above, before anything is copied or changed.

    `PlanError` for an unknown name, a wrapped model, and where the head cannot be told.
    """
    _refuse_wrapped(model)
    _refuse_unready(model)
    offered, marks = _offered_scopes(model), read_marks(model)
    if head != AUTO:
        found = _named(model, head)
    else:
        found = _offered(offered, marks) if "head" in offered else _found(model, marks)
    always = () if head is None else (*offered.get("head", ()), *offered.get("fusion", ()))
    new = tuple(dict.fromkeys((*found.names, *always)))
    towers = {} if set(offered) - set(NEW_PARTS) else find_towers(model, new)
    left_out = () if marks is None or head is None else marks.new
    left_out = tuple(name for name in left_out if not is_within(name, new) and _is_loaded(model, name))
    origin = f"{found.origin}; not in the checkpoint either: {shown(left_out)}" if left_out else found.origin
    scopes = {**towers, **offered, "head": found.names}
    divided = len(towers) > 1
    return Layout(scopes=scopes, new_parts=new, head_origin=origin, left_out=left_out, divided=divided)


def shown(names: Sequence[str]) -> str:
    """List a few names."""
    more = f" … ({len(names)} in all)" if len(names) > MAX_SHOWN else ""
    return ", ".join(names[:MAX_SHOWN]) + more


def _refuse_wrapped(model: nn.Module) -> None:
    """Say how to get at the model in a wrapper, whose names and forward are not the model's."""
    for kind in type(model).__mro__:
        if attribute := WRAPPERS.get(kind.__name__):
            compiled = ", and write compile in the plan" if attribute == "_orig_mod" else ""
            raise PlanError(f"{kind.__name__} wraps the model: pass the plain one (model.{attribute}){compiled}")


def _refuse_unready(model: nn.Module) -> None:
    """Refuse what has no parameters yet, or is no Python code any more, of which no part can be looked at."""
    import torch

    for name, part in model.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            where = f"{name!r} is" if name else "the model is"
            raise PlanError(f"{where} compiled by torch.jit: take the module that it was made of, and compile at last")
    for name, parameter in model.named_parameters():
        if torch.nn.parameter.is_lazy(parameter):
            raise PlanError(f"{name!r} has no shape before the first call: pass one batch through the model first")


def _offered_scopes(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Read `model.scopes`, a dict of sub-modules that a model may offer, as names."""
    offered = getattr(model, "scopes", None)
    if not isinstance(offered, Mapping):
        return {}
    names = {id(module): name for name, module in model.named_modules()}
    strangers = [scope for scope, module in offered.items() if id(module) not in names]
    if strangers:
        raise PlanError(f"{type(model).__name__}.scopes[{strangers[0]!r}] is not a sub-module of the model")
    return {scope: (names[id(module)],) for scope, module in offered.items()}


def _named(model: nn.Module, head: HeadChoice) -> Head:
    """Take the caller's word."""
    given: Any = () if head is None else (head,) if isinstance(head, str) else head
    if not isinstance(given, Sequence) or not all(isinstance(name, str) for name in given):
        raise PlanError(f"head={head!r} should be the name of a module, a list of names, or None where nothing is new")
    names, modules = tuple(given), {name for name, _ in model.named_modules()} - {""}
    for name in names:
        if name not in modules | {name for name, _ in model.named_parameters()}:
            raise PlanError(
                f"head={name!r} is no module of {type(model).__name__}; there is: {closest_first(name, modules)}"
            )
    return Head(tuple(dict.fromkeys(names)), "named by the caller" if names else "the caller says that nothing is new")


def _offered(offered: Mapping[str, tuple[str, ...]], marks: Marks | None) -> Head:
    """Take the head that a model offers, and what is new within its towers."""
    towers = tuple(root for scope, roots in offered.items() if scope not in NEW_PARTS for root in roots)
    new = [name for name in marks.new if is_within(name, towers) and name not in towers] if marks else []
    told = f"; not in the checkpoint: {shown(new)}" if new else ""
    return Head((*offered["head"], *new), f"model.scopes{told}")


def _found(model: nn.Module, marks: Marks | None) -> Head:
    """Ask the marks, then the model's class or the place of its parts."""
    guess = find_head(model)
    if marks is None:
        if guess.doubt:
            raise PlanError(_cannot_tell(model, guess.doubt))
        return guess
    told = f"; rebuilt after loading, and taken for pretrained: {shown(marks.untold)}" if marks.untold else ""
    large = large_share(model, guess.names) > 0
    if not marks.new and (guess.doubt or large):
        than = f"; head={[*guess.names]} trains what stands beside its base model as new" if large else ""
        return Head((), f"all was in the checkpoint, so nothing is new{than}{told}")
    if not marks.new:
        return Head(guess.names, f"all was in the checkpoint; {guess.origin}{told}")
    _refuse_unmarked_towers(model, marks.new)
    wanted = guess.by_class and not large
    beside = [name for name in guess.names if wanted and not is_within(name, marks.new)]
    names = (*(name for name in marks.new if not is_within(name, tuple(beside))), *beside)
    if beside:
        told = f": {shown(marks.new)}; {guess.origin}: {shown(beside)}{told}"
    if embedding := _embedding(model, names):
        others = [name for name in names if name != embedding]
        told += f"; if {embedding} was only resized, head={others or None} leaves it to the body"
    return Head(names, f"not in the checkpoint{told}")


def _refuse_unmarked_towers(model: nn.Module, new: Sequence[str]) -> None:
    """Refuse to take a tower for new that may have been loaded by others than transformers."""
    modules = dict(model.named_modules())
    towers = [name for name in new if name in modules and is_tower(name, modules[name]) and not _is_loaded(model, name)]
    if towers:
        others = [name for name in new if name not in towers]
        raise PlanError(
            f"cannot tell whether {shown(towers)} of {type(model).__name__} is new: it holds repeated blocks and no "
            f"mark of transformers, which others carry; write head={others or None} if it was loaded, or head={[*new]}"
        )


def _is_loaded(model: nn.Module, name: str) -> bool:
    """Say whether a part lies in a model that transformers loaded, so that a missing mark is to be believed."""
    around = (module for owner, module in model.named_modules() if name.startswith(f"{owner}." if owner else ""))
    return any(bool(getattr(module, "name_or_path", "")) for module in around if is_transformers(module))


def _embedding(model: nn.Module, names: Sequence[str]) -> str | None:
    """Name the first of new parts that is an embedding, or scores a vocabulary."""
    from torch import nn

    found = {name for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    return next((name for name in names if name in found | output_embeddings(model)), None)


def _cannot_tell(model: nn.Module, doubt: str) -> str:
    """Say so, with the names to choose from."""
    parts = parts_of(model).items()
    names = [name for part, child in parts for name in (part, *(f"{part}.{own}" for own in parts_of(child)))]
    there = ", ".join(names[:MAX_NAMES]) + (" …" if len(names) > MAX_NAMES else "")
    return (
        f"cannot tell the head of {type(model).__name__} from its body: {doubt}; name what is new with head=…, or "
        f"write head=None if nothing is; there is: {there}"
    )
