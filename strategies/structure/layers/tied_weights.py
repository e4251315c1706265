"""Layers whose weight is another part's, too, as the output layers of most language models have the embedding's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strategies.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from strategies.layout import Layout


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
