"""Rows of an embedding that train beside adapters: `trainable_token_indices`, as in PEFT and through its layers.

The embedding stays frozen; the rows are a small tensor of their own, put in place in every pass. Layers that share the
embedding's weight (a language model's output) use the same rows. Made for tokens that were added to a vocabulary:
`model.resize_token_embeddings(…)` comes before the plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError, closest_first
from strategies.layout import is_within
from strategies.structure.beside.trained_whole import searched
from strategies.structure.choice.requests import matcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import nn

    from strategies.layout import Layout
    from strategies.protocol import Strategy

OPTION = "trainable_token_indices"
ADAPTER = "default"  # PEFT's name of the only adapter
ROWS = f".trainable_tokens_delta.{ADAPTER}"  # ends the name of the parameter


def token_rows(strategy: Strategy, model: nn.Module, layout: Layout) -> dict[str, list[int]]:
    """Give embedding → rows that a strategy trains; `PlanError` for names or numbers that are not there."""
    rows: Sequence[int] | Mapping[str, Sequence[int]] | None = vars(strategy).get(OPTION)
    if not rows:
        return {}
    known = _embeddings(model, searched(layout, model, strategy.scope_name()))
    if isinstance(rows, dict):
        found = {_one(strategy, entry, known): sorted(numbers) for entry, numbers in rows.items()}
    else:
        found = {_input_embedding(strategy, model, known): sorted(rows)}
    for name, numbers in found.items():
        if numbers[-1] >= (size := known[name].num_embeddings):
            raise PlanError(
                f"{strategy.name}: {OPTION} has {numbers[-1]}, but {name!r} has {size} rows: add them before the plan "
                "(model.resize_token_embeddings)"
            )
    return found


def replaced_rows(
    strategies: Iterable[Strategy], model: nn.Module, find_layout: Callable[[], Layout]
) -> dict[str, list[int]]:
    """Give the embeddings' parameters → rows that strategies train, which the base need not have as they were."""
    asking = [strategy for strategy in strategies if vars(strategy).get(OPTION)]
    layout = find_layout() if asking else None
    rows = {} if layout is None else {k: v for one in asking for k, v in token_rows(one, model, layout).items()}
    places = {id(parameter): name for name, parameter in model.named_parameters()}
    return {places[id(model.get_submodule(name).get_parameter("weight"))]: numbers for name, numbers in rows.items()}


def train_rows(model: nn.Module, rows: Mapping[str, Sequence[int]]) -> None:
    """Wrap embeddings, and the layers that share their weights, so that the named rows train."""
    from peft.utils.other import TrainableTokensWrapper
    from torch import nn

    for name, numbers in rows.items():
        embedding: Any = model.get_submodule(name)
        sharing = _sharing(model, embedding)
        wrapper = TrainableTokensWrapper(embedding, ADAPTER, token_indices=[*numbers])
        _put_in_place(model, embedding, wrapper)
        for layer in sharing:
            if not isinstance(layer, nn.Linear | nn.Embedding) or getattr(layer, "bias", None) is not None:
                raise PlanError(
                    f"{OPTION}: a {type(layer).__name__} with a bias of its own shares the weight of {name!r}, where "
                    "PEFT's layer would leave the bias out: train the embedding whole (modules_to_save)"
                )
            tied = TrainableTokensWrapper(layer, ADAPTER, token_indices=[*numbers], tied_adapter=wrapper.token_adapter)
            _put_in_place(model, layer, tied)
        for parameter in wrapper.token_adapter.trainable_tokens_delta.parameters():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)


def row_parameters(strategy: Strategy, model: nn.Module, layout: Layout) -> frozenset[str]:
    """Name the parameters that hold a strategy's rows, once `train_rows` has made them."""
    prefixes = searched(layout, model, strategy.scope_name()) if vars(strategy).get(OPTION) else ()
    return frozenset(name for name, _ in model.named_parameters() if name.endswith(ROWS) and is_within(name, prefixes))


def merge_rows(model: nn.Module) -> None:
    """Write trained rows into their embeddings, which take their places again."""
    from peft.utils.other import TrainableTokensWrapper

    for wrapper in [part for part in model.modules() if isinstance(part, TrainableTokensWrapper)]:
        layer = wrapper.token_adapter
        if layer.tied_adapter is None:
            layer.merge(safe_merge=True)
        _put_in_place(model, wrapper, layer.get_base_layer())


def row_layers(model: nn.Module) -> dict[str, Any]:
    """Give embedding → PEFT's layer that holds its rows; layers that share them are left out."""
    found = {name: part for name, part in model.named_modules() if is_token_layer(part)}
    return {name.rpartition(".")[0]: part for name, part in found.items() if part.tied_adapter is None}


def is_token_layer(layer: Any) -> bool:
    """Say whether one of PEFT's layers holds rows of an embedding."""
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    return isinstance(layer, TrainableTokensLayer)


def _embeddings(model: nn.Module, prefixes: tuple[str, ...]) -> dict[str, Any]:
    from torch import nn

    places = dict(model.named_modules(remove_duplicate=False))
    return {name: part for name, part in places.items() if isinstance(part, nn.Embedding) and is_within(name, prefixes)}


def _one(strategy: Strategy, entry: str, known: Mapping[str, Any]) -> str:
    """Give the embedding that an entry means."""
    found = [*filter(matcher(strategy.name, OPTION, entry), known)]
    if len({id(known[name].weight) for name in found}) != 1:
        raise PlanError(
            f"{strategy.name}: {OPTION} has {entry!r}, which matches {len(found)} embeddings; there is: "
            f"{closest_first(entry, known)}"
        )
    return found[0]


def _input_embedding(strategy: Strategy, model: nn.Module, known: Mapping[str, Any]) -> str:
    """Give the one embedding of tokens: what transformers' models say, else the only one there is."""
    told = {id(part) for part in _told(model)}
    found = [name for name, part in known.items() if id(part) in told] or [*known]
    if len({id(known[name].weight) for name in found}) != 1:
        raise PlanError(
            f"{strategy.name}: {OPTION}=[…] needs one embedding of tokens, there is: {closest_first('', found)}; write "
            f"{OPTION}={{'name': […]}}"
        )
    return found[0]


def _told(model: nn.Module) -> Iterable[Any]:
    """Give what the transformers models in a model call their input embeddings."""
    from transformers import PreTrainedModel

    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            try:
                yield part.get_input_embeddings()
            except (NotImplementedError, AttributeError):  # a model without
                continue


def _sharing(model: nn.Module, embedding: Any) -> list[Any]:
    """Give the other modules that hold an embedding's weight."""
    return [
        part
        for part in model.modules()
        if part is not embedding and any(own is embedding.weight for own in part.parameters(recurse=False))
    ]


def _put_in_place(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replace a module wherever it stands."""
    for name in [name for name, part in model.named_modules(remove_duplicate=False) if part is old]:
        model.set_submodule(name, new)
