"""Layers whose weight is another part's, too, as the output layers of most language models have the embedding's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strategies.errors import PlanError
from strategies.protocol import FROZEN, FROZEN_BASE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from strategies.layout import Layout
    from strategies.protocol import Strategy


def refuse_tied_layers(model: nn.Module, layout: Layout, scope: str | None, layers: Iterable[str]) -> None:
    """Refuse to adapt layers of a scope whose weights belong to parts outside it, which would go on training them."""
    owned = layout.parameter_names(model, scope)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for layer in layers:
        elsewhere = [names[id(p)] for p in model.get_submodule(layer).parameters() if names[id(p)] not in owned]
        if elsewhere:
            raise PlanError(
                f"{layer!r} has the same weight as {elsewhere[0]!r}, which lies outside scope={scope!r} and would go "
                "on training below the adapter: name other layers, leave scope out (adapters in the body), or build "
                "the model with tie_word_embeddings=False"
            )


def refuse_frozen_in_part(model: nn.Module, layout: Layout, strategies: Iterable[Strategy]) -> None:
    """Refuse strategies whose frozen scope holds a layer with a weight of parts outside it, which train on.

    An embedding may be shared so: a decoder that is frozen looks words up in the table of an encoder that trains.
    """
    from torch import nn

    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for strategy in strategies:
        if not strategy.provides & {FROZEN, FROZEN_BASE}:
            continue
        scope = strategy.scope_name()
        owned = layout.parameter_names(model, scope)
        for place in sorted(layout.module_names(model, scope)):
            layer = model.get_submodule(place)
            for own, parameter in () if isinstance(layer, nn.Embedding) else layer.named_parameters(recurse=False):
                name = names[id(parameter)]
                if parameter.requires_grad and name not in {*owned, f"{place}.{own}".lstrip(".")}:
                    raise PlanError(
                        f"{strategy.name}: {place!r} has the same weight as {name!r}, which lies outside "
                        f"scope={scope!r} and would go on training: freeze that, too "
                        f"(+freeze(scope={name.rpartition('.')[0]!r})), or build the model with untied weights "
                        "(tie_word_embeddings=False)"
                    )
