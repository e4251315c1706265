"""Ways to start LoRA that need more than the layer's shape: rounding errors (LoftQ), and the first pass of training.

EVA and CorDA look at what a layer is given there, right before it computes. LoRA-GA takes the gradient of its weight,
and starts in place of the adapters' first update. No batches are to be handed in, and any loop will do. A layer whose B
has moved is left as it is, so that a loaded model goes on.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch
    from torch import Tensor, nn

    from strategies.protocol import Context

ADAPTER = "default"  # PEFT's name of the only adapter
CHANGE_THE_BASE = ("loftq", "corda", "lora_ga")


def start_adapters(strategy: Any, tuners: Sequence[Any], model: nn.Module, context: Context) -> None:
    """Start the adapters that `tuners` put into a model as `strategy.init` says: now, or in training's first pass."""
    from peft.tuners.lora import LoraLayer

    own = {part for tuner in tuners for part in tuner.modules() if isinstance(part, LoraLayer)}
    layers = {name: part for name, part in model.named_modules() if part in own}
    options = strategy.init_options or {}
    if strategy.init in CHANGE_THE_BASE:
        for tuner in tuners:  # told, so that no file of PEFT's is made of it: it would be read over another base
            tuner.peft_config[ADAPTER].init_lora_weights = strategy.init
    if strategy.init == "loftq":
        start_from_rounding(layers, **options)
    elif strategy.init == "eva":
        start_from_inputs(layers, partial(eva, **options))
    elif strategy.init == "corda":
        start_from_inputs(layers, partial(corda, **options))
    elif strategy.init == "lora_ga":
        start_from_inputs(layers, watch_gradient)
        context.with_optimizer.append(partial(start_at_first_step, [*layers.values()], options))


def start_from_rounding(layers: Mapping[str, Any], loftq_iter: int = 1) -> None:
    """LoftQ: fit each adapter to what rounding takes from its weight, in turns with rounding what it leaves.

    Layers still hold float weights, which are rounded when the model moves; they are left with the last rest, so that
    the move rounds what was rounded here. Li et al., LoftQ, 2023, https://arxiv.org/abs/2310.08659, algorithm 1.
    """
    import torch

    for name, layer in layers.items():
        base, r, scale = layer.get_base_layer(), layer.r[ADAPTER], layer.scaling[ADAPTER]
        assert base.weight.is_floating_point(), name
        rest = weight = base.weight.detach().float()
        for _ in range(loftq_iter):
            left, values, right = torch.linalg.svd(weight - rounded(name, base, rest), full_matrices=False)
            root = values[:r].sqrt()
            a, b = root[:, None] * right[:r], left[:, :r] * root
            kept, rest = rest, weight - b @ a
        base.weight.data = kept.to(base.weight.dtype)
        for part, value in ((layer.lora_A, a), (layer.lora_B, b / scale)):
            part[ADAPTER].weight.data = value.to(part[ADAPTER].weight).contiguous()


def rounded(name: str, base: Any, weight: Tensor) -> Any:
    """Give a weight as its layer will have it once it is stored in few bits."""
    import bitsandbytes as bnb
    from bitsandbytes import functional

    stored = base.weight
    if isinstance(base, bnb.nn.Linear4bit):
        codes, state = functional.quantize_4bit(
            weight.contiguous(), blocksize=stored.blocksize, compress_statistics=stored.compress_statistics,
            quant_type=stored.quant_type,
        )  # fmt: skip
        return functional.dequantize_4bit(codes, state).float()
    if isinstance(base, bnb.nn.Linear8bitLt):
        values, scales, _ = functional.int8_vectorwise_quant(weight.half())
        return functional.int8_vectorwise_dequant(values, scales).float()
    raise PlanError(f"lora: init='loftq' makes up for rounding, but {name!r} is a float: write nf4+lora(init='loftq')")


def start_from_inputs(layers: Mapping[str, Any], start: Callable[[Any, Tensor], None]) -> None:
    """Call `start(layer, inputs)` with the inputs of a layer's first pass in training, (n, features), in 32 bits."""
    for name, layer in layers.items():
        handle = layer.register_forward_pre_hook(partial(_start_once, name, start))
        vars(layer)["_start_handle"] = handle


def _start_once(name: str, start: Callable[[Any, Tensor], None], layer: Any, arguments: tuple[Any, ...]) -> None:
    """Start a layer, unless it has been trained."""
    import torch

    if not (layer.training and torch.is_grad_enabled()):
        return
    if (handle := vars(layer).pop("_start_handle", None)) is None:
        return
    handle.remove()
    with torch.no_grad(), torch.autocast(arguments[0].device.type, enabled=False):
        if layer.lora_B[ADAPTER].weight.any():
            return
        inputs = arguments[0].detach().flatten(0, -2).float()
        if len(inputs) < (r := layer.r[ADAPTER]):
            raise PlanError(f"{name!r} was given {len(inputs)} vectors in the first pass, r={r} needs as many: lower r")
        start(layer, inputs)
        _same_everywhere(layer)


def _same_everywhere(layer: nn.Module) -> None:
    """Let all processes start as the first does."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for parameter in layer.parameters():
            torch.distributed.broadcast(parameter.data, src=0)


def watch_gradient(layer: Any, _: Tensor) -> None:
    """Keep the gradient that a layer's weight gets in the pass under way, the first one, and only in that."""
    weight = layer.get_base_layer().weight

    def keep(weight: Any) -> None:
        handle.remove()
        layer.get_base_layer()._peft_loraga_grad, weight.grad = weight.grad, None  # noqa: SLF001 - where PEFT looks
        weight.requires_grad_(False)

    handle = weight.requires_grad_(True).register_post_accumulate_grad_hook(keep)


def start_at_first_step(layers: list[Any], options: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Start LoRA-GA in place of the first update of its adapters, from the gradients of the weights below them.

    Wang et al., LoRA-GA, 2024, https://arxiv.org/abs/2407.05000; what is made of the gradient is PEFT's own.
    """
    import torch
    from peft.tuners.lora.config import LoraGAConfig

    config = LoraGAConfig(**options)

    def start(*_: Any) -> None:
        handle.remove()
        stepping = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for layer in layers:
            base, parts = layer.get_base_layer(), [layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight]
            if not stepping.issuperset(map(id, parts)):
                raise PlanError(
                    "lora: init='lora_ga' needs the gradients of a whole pass before the first step: leave "
                    "optimizer_in_backward out"
                )
            if "_peft_loraga_grad" not in vars(base):
                continue  # loaded, or not called in this pass: then it starts as it is
            with torch.random.fork_rng(devices=[base.weight.device] if base.weight.is_cuda else []):
                layer.lora_ga_init(ADAPTER, config)
            for part in parts:
                part.data, part.grad = part.data.float(), None
            _same_everywhere(layer)

    handle = optimizer.register_step_pre_hook(start)


def eva(layer: Any, inputs: Tensor, *, whiten: bool = False) -> None:
    """Let A read the directions in which a layer's inputs vary most.

    Paischer et al., One Initialization to Rule them All, 2024, https://arxiv.org/abs/2410.07170; ranks stay equal.
    """
    from peft.utils.incremental_pca import IncrementalPCA

    r = layer.r[ADAPTER]
    analysis = IncrementalPCA(n_components=r, copy=True, lowrank=True, lowrank_seed=42)  # as PEFT's
    analysis.partial_fit(inputs)
    components = analysis.components_[:r]
    if whiten:
        components = components / analysis.singular_values_[:r].sqrt().reshape(-1, 1)
    layer.lora_A[ADAPTER].weight.copy_(components)


def corda(layer: Any, inputs: Tensor, *, corda_method: str = "ipm") -> None:
    """Split a weight by the covariance of its inputs: the adapter takes the directions that matter most (or least).

    Yang et al., CorDA, 2024, https://arxiv.org/abs/2406.05223; decomposition and split are PEFT's own.
    """
    from peft.tuners.lora.config import CordaConfig
    from peft.tuners.lora.corda import collect_eigens_for_layer

    base, r = layer.get_base_layer(), layer.r[ADAPTER]
    inputs = inputs / inputs.max().abs()
    base.covariance_matrix = inputs.T @ inputs
    eigens = collect_eigens_for_layer(base, CordaConfig(corda_method=corda_method))
    del base.covariance_matrix
    taken = slice(None, r) if corda_method == "ipm" else slice(-r, None)
    eigens.S_WC, eigens.U_WC, eigens.V_WC = eigens.S_WC[taken], eigens.U_WC[:, taken], eigens.V_WC[:, taken]
    base.eigens = type(eigens)(*(part.to(inputs.device) for part in (eigens.S_WC, eigens.U_WC, eigens.V_WC)))
    layer.corda_init(ADAPTER, "corda")
    for part in (layer.lora_A, layer.lora_B):
        part[ADAPTER].weight.data = part[ADAPTER].weight.data.float()
