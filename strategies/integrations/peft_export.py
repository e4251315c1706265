"""Adapters in PEFT's own files, for people who load them without this package.

    save_peft(tuned, fresh_base_model, "adapter/")
    PeftModel.from_pretrained(fresh_base_model, "adapter/")         # anywhere, with PEFT alone

Adapters are injected tower by tower here and over the whole model there, but the layers are the same, so their tensors
are copied by name, whatever the method. Fusion, head and what else trains whole are PEFT's `modules_to_save`, rows of
an embedding its `trainable_token_indices`. Nothing is taken on trust: PEFT reads the files back, and what it makes of
them has to be what was trained (`peft_verify`). An adapter that was trained over a quantised base loads on the float
one, where its outputs are close and not equal.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError
from strategies.integrations.peft_verify import largest_difference
from strategies.language.rates import weights_members
from strategies.layout import is_within
from strategies.quiet import quiet
from strategies.structure.beside.token_rows import is_token_layer, row_layers
from strategies.structure.beside.trained_whole import is_tied, trained_whole
from strategies.structure.peft_config import REMEDY, joint_config

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from strategies.layout import Layout
    from strategies.training.tuned import Tuned

PREFIX = "base_model.model."  # of a layer's name within a `PeftModel`


@quiet()
def save_peft(tuned: Tuned, base: nn.Module, folder: Path) -> float:
    """Write `adapter_config.json` and `adapter_model.safetensors` for a model like `base`, which is changed.

    The format: https://huggingface.co/docs/peft/developer_guides/checkpoint
    base: a freshly built model, as `tuned` began with. Gives the largest relative difference ‖y' − y‖/‖y‖ of an adapted
    layer's output y once PEFT has read the files back. `PlanError`, and no files, for plans whose result PEFT's files
    cannot hold.
    """
    import peft

    layers = _adapted_layers(tuned.model)
    saved = _modules_to_save(tuned, layers)
    rows = row_layers(tuned.model)
    config = joint_config(layers)
    config.modules_to_save = saved
    if any(is_tied(tuned.model, name) for name in saved):
        config.ensure_weight_tying = True
    if rows:
        config.trainable_token_indices = {name: layer.token_indices["default"] for name, layer in rows.items()}
    another = deepcopy(base)
    with tempfile.TemporaryDirectory() as scratch, tuned.evaluating(), _peft_errors_in_one_line(config):
        model: Any = peft.get_peft_model(base, config)
        _copy_adapters(model, layers, config)
        _copy_modules(model, tuned.model, saved)
        _copy_rows(model, rows)
        draft = Path(scratch) / "adapter"
        model.save_pretrained(str(draft))
        read = peft.PeftModel.from_pretrained(another, str(draft)).eval()
        largest = largest_difference(tuned.model, read, layers)
        shutil.copytree(draft, folder, dirs_exist_ok=True)
    return largest


def _adapted_layers(model: nn.Module) -> dict[str, Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    parts = {name: part for name, part in model.named_modules() if isinstance(part, BaseTunerLayer)}
    layers = {name: part for name, part in parts.items() if not is_token_layer(part)}
    if not layers:
        raise PlanError(f"no PEFT adapter in this plan; {REMEDY}")
    return layers


def _modules_to_save(tuned: Tuned, layers: Mapping[str, Any]) -> list[str]:
    """Name new parts and what else the plan trains whole; `PlanError` when anything but these and adapters trained."""
    layout, model = tuned.context.layout, tuned.model
    members = weights_members(tuned.plan.members)
    saved = (*layout.new_parts, *(name for member in members for name in trained_whole(member, model, layout)))
    rows = tuple(row_layers(model))
    for name in layers:
        if is_within(name, layout.new_parts):
            raise PlanError(f"{name!r} is an adapter in a new part, whose first weights PEFT's file lacks; {REMEDY}")
    whole = [name for name in tuned.full_state() if not is_within(name, (*layers, *rows))]
    for name in whole:
        if name in tuned.trained and not is_within(name, saved):
            raise PlanError(
                f"{name!r} trains beside adapters, within a tower: PEFT's files have no place for it; "
                f"{_freeze_hint(layout, name, layers)}{REMEDY}"
            )
    parts = [part for part in dict.fromkeys(saved) if any(is_within(name, (part,)) for name in whole)]
    if single := [part for part in parts if part in whole]:
        raise PlanError(f"{single[0]!r} is a new parameter, for which PEFT's files have no place; {REMEDY}")
    return parts


def _freeze_hint(layout: Layout, name: str, layers: Iterable[str]) -> str:
    """Say how a plan lets the tower without adapters rest that holds the parameter `name`."""
    for label, roots in layout.towers.items():
        if is_within(name, roots) and not any(is_within(layer, roots) for layer in layers):
            return f"with freeze(scope={label!r}) in the plan that tower rests and the adapters can be written; "
    return ""


@contextmanager
def _peft_errors_in_one_line(config: Any) -> Iterator[None]:
    """Turn what PEFT says no to into a `PlanError`; its warnings speak of things that are checked here."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"peft\..*")
            old_name = "`is_gradient_checkpointing` is deprecated"  # which PEFT asks transformers by
            warnings.filterwarnings("ignore", old_name, FutureWarning, r"transformers\.modeling_utils")
            yield
    except PlanError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError, RuntimeError) as problem:
        said = (str(problem) or type(problem).__name__).splitlines()[0]
        raise PlanError(f"PEFT alone cannot hold this {config.peft_type.value} adapter: {said}; {REMEDY}") from problem


def _copy_adapters(model: nn.Module, layers: Mapping[str, Any], config: Any) -> None:
    """Copy all but the base layers; `PlanError` for layers that share a tensor in PEFT's model and not here."""
    kind = config.peft_type.value
    given: dict[int, list[tuple[str, Tensor, Tensor]]] = {}
    for name, layer in layers.items():
        theirs, ours = _tensors(model.get_submodule(PREFIX + name)), _tensors(layer)
        if differing := sorted(set(theirs) ^ set(ours)):
            raise PlanError(
                _shared_tensor_message(kind, differing[0], f"{name!r} has others when each tower has its own")
            )
        for key, target in theirs.items():
            given.setdefault(id(target), []).append((f"{name}.{key}", target, ours[key]))
    for uses in given.values():
        (first, target, source), *others = uses
        for name, _, other in others:
            if source.shape != other.shape or not source.equal(other):
                raise PlanError(_shared_tensor_message(kind, first, f"{name!r} is another one"))
        if target.shape != source.shape:
            raise PlanError(
                _shared_tensor_message(kind, first, f"it has shape {[*source.shape]} here, {[*target.shape]} there")
            )
        target.copy_(source)


def _shared_tensor_message(kind: str, what: str, why: str) -> str:
    return f"PEFT's {kind} has {what!r} for a whole model: {why}; adapt one tower and freeze the other; {REMEDY}"


def _tensors(layer: Any) -> dict[str, Tensor]:
    """Give what a layer has beside its base layer: parameters, buffers, and plain dictionaries of tensors."""
    import torch

    found = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
    for name, value in vars(layer).items():
        if isinstance(value, dict) and not name.startswith("_"):
            found |= {f"{name}.{key}": part for key, part in value.items() if isinstance(part, torch.Tensor)}
    return {name: tensor for name, tensor in found.items() if not name.startswith("base_layer.")}


def _copy_modules(model: nn.Module, trained: nn.Module, saved: Sequence[str]) -> None:
    """Copy the modules that train whole, with their buffers."""
    for name in saved:
        target: Any = model.get_submodule(f"{PREFIX}{name}.modules_to_save.default")
        target.load_state_dict(trained.get_submodule(name).state_dict())


def _copy_rows(model: nn.Module, rows: Mapping[str, Any]) -> None:
    """Copy trained rows of embeddings."""
    for name, layer in rows.items():
        target: Any = model.get_submodule(f"{PREFIX}{name}.token_adapter")
        target.trainable_tokens_delta["default"].data.copy_(layer.trainable_tokens_delta["default"])
