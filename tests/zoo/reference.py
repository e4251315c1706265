"""What plain torch and PEFT alone say of an architecture: the other side of every comparison in the zoo."""

import dataclasses
from collections.abc import Mapping

import peft
import torch
from torch import nn

from tests.zoo.row import is_conv1d, linear_names

SEED = 1  # of the new parts, in the process that trains
DRAWS = 3  # passes in training by which one sees what the loss depends on
MIN_GRADIENT = 1e-7
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclasses.dataclass(frozen=True)
class Reference:
    """Facts of a freshly loaded model, by name of its parameters."""

    linear: list[str]
    conv1d: frozenset[str]  # of these, whose weights lie the other way
    values: Mapping[str, torch.Tensor]
    trainable: frozenset[str]
    used: frozenset[str]  # those that the loss depends on
    biases: frozenset[str]
    perhaps_biases: frozenset[str]  # matrices of biases, and what is only called so
    norms: frozenset[str]
    outputs: torch.Tensor


def refer(row, base):
    """Load the model and learn what plain torch has to say of it."""
    model = row.load(base, SEED)
    batch = row.batch(1, padded=row.padded)
    model.eval()
    with torch.no_grad():
        outputs = row.outputs(model, batch)
    parameters = dict(model.named_parameters())
    values = {name: p.detach().clone() for name, p in parameters.items()}
    trainable = frozenset(name for name, p in parameters.items() if p.requires_grad)
    used = set()
    model.train()
    for seed in range(DRAWS):
        torch.manual_seed(seed)
        model.zero_grad(set_to_none=True)
        row.loss(model, batch).backward()
        used |= {name for name, p in parameters.items() if p.grad is not None and p.grad.abs().max() > MIN_GRADIENT}
    own = {name: name.rpartition(".")[2] for name in trainable}
    vectors = {name: last for name, last in own.items() if parameters[name].ndim == 1}
    biases = {name for name, last in vectors.items() if last in ("bias", "in_proj_bias") or last.startswith("bias_")}
    called_so = {name for name, last in own.items() if last.endswith(("bias", "biases"))}
    norms = {
        f"{name}.{last}".lstrip(".")
        for name, part in model.named_modules()
        if "Norm" in type(part).__name__
        for last, _ in part.named_parameters(recurse=False)
    }
    linear = [name for name in linear_names(model) if not row.is_new(name)]
    return Reference(
        linear, frozenset(name for name in linear if is_conv1d(model.get_submodule(name))), values, trainable,
        frozenset(used), frozenset(biases), frozenset(biases | called_so), frozenset(norms & trainable), outputs,
    )  # fmt: skip


def row_errors(row, reference, base):
    """Say where a row of the zoo is wrong about its architecture: the reader has misread."""
    yield from row.layers.miscounted(reference.linear)
    names = set(reference.values)
    new = {name for name in names if row.is_new(name)}
    lacking = row.lacking(base) & names
    if new != lacking:
        yield f"new are {sorted(lacking)}, not {sorted(new)}"
    body = reference.trainable - new
    if row.norms is not None and len(reference.norms & body) != row.norms:
        yield f"{len(reference.norms & body)} tensors of norms, not {row.norms}"
    counts = {len(reference.biases & body), len(reference.perhaps_biases & body)}
    if (row.biases or row.norms is not None) and counts != set(row.biases or (0,)):
        yield f"{counts} biases, not {row.biases}"
    if row.tied and row.tied not in names:
        yield f"{row.tied} is no parameter"
    for block in row.last:
        if not any(name.startswith(f"{block}.") for name in names):
            yield f"there is no block {block}"


def wanted_layers(row, plan, reference):
    """Give the layers that a reader of the paper would adapt, and those that may be adapted as well."""
    layers = row.layers
    chosen = layers.chosen(reference.linear, plan.trains)
    others = layers.named(reference.linear, "others")
    if not layers.query:  # without attention the roles are a matter of opinion
        others |= layers.every(reference.linear)
    if plan.trains == ("up", "down"):  # a branch beside the whole part: it begins at one "up" and ends at "down"
        return layers.named(reference.linear, "down") or chosen, chosen | others
    return chosen, chosen | others


def first_step_with_peft(row, plan, base, reference, started, *, rate, seed):
    """Do the first update of a plan with PEFT's `get_peft_model` and torch's AdamW.

    Gives name → parameter after it, and the loss of the second pass, which tells the scale of what was added.
    `started`: the adapters' values to begin with. None where PEFT cannot.
    """
    kind, options = plan.peft
    wanted, allowed = wanted_layers(row, plan, reference)
    wanted |= {name for name in allowed if any(own.startswith(f"{name}.") for own in started)}
    pattern = "|".join(name.replace(".", r"\.") for name in sorted(wanted))
    if kind == "IA3Config":
        down = row.layers.named(reference.linear, "down") & wanted
        options = {**options, "feedforward_modules": "|".join(map(_exactly, sorted(down))) or "(?!)"}
    model = row.load(base, SEED)
    try:
        tuner = peft.get_peft_model(model, getattr(peft, kind)(target_modules=pattern, **options))
    except (ValueError, TypeError, NotImplementedError):
        return None
    inner = tuner.base_model.model.train()
    for name, part in inner.named_modules():
        if isinstance(part, BATCH_NORMS) and not row.is_new(name):
            part.eval()  # frozen, and so are its statistics
    parameters = dict(inner.named_parameters())
    if not {name for name, p in parameters.items() if p.requires_grad} <= set(started):
        return None  # it adapts the experts that are one parameter as well
    for name, parameter in parameters.items():
        if row.is_new(name):
            parameter.requires_grad_(True)
        elif parameter.requires_grad:
            parameter.data.copy_(started[name])
    torch.manual_seed(seed)
    batch = row.batch(1, padded=row.padded)
    try:
        row.loss(inner, batch).backward()
    except RuntimeError:
        return None  # its OFT takes inputs of four dimensions for pictures
    moving = [p for p in parameters.values() if p.requires_grad]
    torch.nn.utils.clip_grad_norm_(moving, 1.0)
    groups = [
        {"params": [p for p in moving if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in moving if p.ndim <= 1], "weight_decay": 0.0},
    ]
    torch.optim.AdamW([group for group in groups if group["params"]], lr=rate).step()
    return {name: p.detach() for name, p in parameters.items() if p.requires_grad}, row.loss(inner, batch).detach()


def _exactly(name):
    return name.replace(".", r"\.")


def dequantised(row, base, quantised):
    """Give the plain model with the weights that a quantised one stands for; `quantised`: name → float weight."""
    model = row.load(base, SEED).eval()
    with torch.no_grad():
        for name, weight in quantised.items():
            layer = model.get_submodule(name)
            layer.weight.copy_(weight.T if is_conv1d(layer) else weight)
    return model


def stored_weights(model):
    """Give name → float weight for the layers of a model that bitsandbytes holds in few bits."""
    import bitsandbytes as bnb

    found = {}
    for name, part in model.named_modules():
        plain = name.removesuffix(".base_layer")
        if isinstance(part, bnb.nn.Linear4bit):
            found[plain] = bnb.functional.dequantize_4bit(part.weight.data, part.weight.quant_state).float()
        elif isinstance(part, bnb.nn.Linear8bitLt):
            scale = part.weight.SCB if part.weight.SCB is not None else part.state.SCB
            found[plain] = part.weight.data.float() * scale.float().unsqueeze(1) / 127
    return found
