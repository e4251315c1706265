"""The checks of a case: each gives lines that say what is wrong, and nothing where all is right.

They look at the model's parameters by name and at its outputs, and compare with `reference.py`: not one of them asks
the code that is being checked what it meant to do.
"""

from itertools import combinations

import torch

from tests.zoo import reference as plain
from tests.zoo.row import plain_name

SHOWN = 3
LOOSE_BITS = 0.3  # norm of the rounding error of a weight in four bits, relative
SIXTEEN_BITS = 0.1
ANOTHER_EXPERT = 0.5
SAME_LOSS = 2e-5  # of one pass
SAME = 1e-4  # relative difference of two losses that are to be the same
SIGNS = 0.02  # share of values in which the first step of AdamW may differ: where a gradient is only rounding


def few(names):
    """Write the first names."""
    names = sorted(names)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def distance(found, expected):
    """Give the largest difference of two vectors, relative to the larger of 1 and what is expected."""
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1))


def adapted_layers(model):
    """Name the layers with an adapter: those that hold the layer they had in place of."""
    return {name for name, part in model.named_modules() if "base_layer" in dict(part.named_children())}


def check_adapted(row, plan, model, reference):
    """Adapters are where a reader of the architecture would put them."""
    found = adapted_layers(model)
    if not plan.adapts:
        if found:
            yield f"layers were adapted unasked: {few(found)}"
        return
    wanted, allowed = plain.wanted_layers(row, plan, reference)
    if wanted - found:
        yield f"no adapter on {few(wanted - found)}"
    if found - allowed:
        yield f"an adapter on {few(found - allowed)}, which nobody asked for"


def check_base(plan, started, reference, quantised):
    """The pretrained values are what they were."""
    for name, parameter in started.items():
        plain_of, layer = plain_name(name), plain_name(name).rpartition(".")[0]
        before = reference.values.get(plain_of)
        if before is None or layer in quantised or (plan.rewrites_base and parameter.dtype == before.dtype):
            continue
        either = [before, before.T] if layer in reference.conv1d and before.ndim > 1 else [before]
        if not any(_equal(parameter, one) for one in either):
            yield f"{plain_of} changed before any training"
    for name, weight in quantised.items():
        before = reference.values[f"{name}.weight"]
        error = float((weight - (before.T if name in reference.conv1d else before)).norm() / before.norm())
        if error > LOOSE_BITS:
            yield f"{name} is stored with an error of {error:.0%}"


def _equal(found, before):
    """Say whether values are the same, in the number type that is found."""
    return found.shape == before.shape and torch.allclose(found.float(), before.to(found.dtype).float())


def check_start(row, plan, reference, base, *, outputs, quantised):
    """Training starts at the pretrained model, or at the one whose weights are rounded so."""
    if plan.start is None:
        return
    expected, tolerance = reference.outputs, plan.start
    if quantised:
        with torch.no_grad():
            expected = row.outputs(plain.dequantised(row, base, quantised), row.batch(1, padded=row.padded))
        tolerance = SIXTEEN_BITS
    tolerance = max(tolerance, ANOTHER_EXPERT * row.routed, SIXTEEN_BITS * row.half)
    far = distance(outputs, expected)
    if not far <= tolerance:
        of = "those of the same weights unpacked" if quantised else "the pretrained model's"
        yield f"before training outputs are off {of} by {far:.2g}"


def check_moved(row, plan, model, started, reference):
    """What should train has moved, and nothing else has."""
    # A quantised layer computes in 16 bits and keeps its bias so from then on.
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, started[name].to(p.dtype))}
    new = {name for name in started if row.is_new(plain_name(name))}
    if still := (new & reference.used) - moved:
        yield f"new and did not train: {few(still)}"
    body = moved - new
    if plan.adapts:
        yield from _check_adapters_moved(model, body, reference)
        return
    groups = _groups(row, plan, reference)
    used = {name for name in reference.used if not (row.routed and ".experts." in name)}  # an expert may have no token
    if any((must & used) - new <= body <= may for must, may in groups):
        return
    must, may = max(groups, key=lambda group: len(group[1] & body))
    if body - may:
        yield f"should not train and moved: {few(body - may)}"
    if still := (must & used) - new - body:
        yield f"should train and did not move: {few(still)}"


def _check_adapters_moved(model, body, reference):
    """Adapters moved, each, and nothing outside them."""
    layers = adapted_layers(model)
    own = {
        layer: {name for name in started_with(model, layer) if not name.startswith(f"{layer}.base_layer.")}
        for layer in layers
    }
    outside = body - set().union(*own.values())
    if outside:
        yield f"frozen and moved: {few(outside)}"
    weights = {layer: f"{layer}.weight" for layer in layers}
    used = {layer for layer, weight in weights.items() if weight in reference.used or weight not in reference.values}
    still = {layer for layer in used if own[layer] and not own[layer] & body}
    if still:
        yield f"its adapter did not move: {few(still)}"


def started_with(model, prefix):
    """Name the parameters below a module."""
    return [name for name, _ in model.named_parameters() if name.startswith(f"{prefix}.")]


def _groups(row, plan, reference):
    """Give what must and what may train, in as many ways as a plan can be read."""
    every = reference.trainable
    if plan.trains == "last":
        blocks = [{name for name in every if name.startswith(f"{block}.")} for block in row.last]
        fewest = len(blocks) if row.both_last else 1
        ways = [some for number in range(fewest, len(blocks) + 1) for some in combinations(blocks, number)]
        return [(set().union(*some), set().union(*some)) for some in ways] or [(frozenset(), every)]
    return {
        "all": [(every, every)],
        "new": [(frozenset(), frozenset())],
        "some": [(frozenset(), every)],
        "biases": [(reference.biases, reference.perhaps_biases)],
        "norms": [(reference.norms, reference.norms)],
    }[plan.trains]


def check_losses(row, plan, losses, earlier):
    """The loss of one batch falls, and is that of the plan which it has to repeat."""
    if not all(map(torch.isfinite, losses)):
        yield f"the loss is not finite: {[round(float(loss), 4) for loss in losses]}"
    elif not row.random and min(losses[-2:]) >= losses[0]:
        yield f"the loss does not fall: {float(losses[0]):.4f} to {float(losses[-1]):.4f}"
    alike = earlier.get(plan.like)
    if alike is None or row.random or (plan.per_example and row.batch_norm):
        return
    far = max(abs(float(one - other)) / max(1.0, abs(float(other))) for one, other in zip(losses, alike, strict=True))
    if not far <= SAME:
        at = next(i for i, (one, other) in enumerate(zip(losses, alike, strict=True)) if abs(one - other) > SAME)
        pair = f"{float(losses[at]):.4f}, not {float(alike[at]):.4f}"
        yield f"its losses are not those of {plan.like}: at update {at} {pair}"


def check_against_peft(found, ours, second_loss):
    """The first update is the one that PEFT makes, and so is what it did to the loss."""
    if found is None:
        return
    theirs, loss = found
    if not abs(float(second_loss - loss)) <= SAME_LOSS * max(1.0, abs(float(loss))):
        yield f"after one update the loss is {float(second_loss):.5f}, with PEFT {float(loss):.5f}"
    if set(theirs) - set(ours):
        yield f"PEFT trains {few(set(theirs) - set(ours))}, too"
    for name in sorted(set(theirs) & set(ours)):
        one, other = ours[name], theirs[name]
        if one.shape != other.shape or float(((one - other).abs() > 1e-4).float().mean()) > SIGNS:
            yield f"after one update {name} is not what PEFT makes of it"
            return


def check_merged(row, plan, model, reference, *, before, after):
    """A merged model is a plain one with the same outputs."""
    tolerance = max(plan.merges, SIXTEEN_BITS * (row.half or "amp" in plan.text))
    far = distance(after, before)
    if not far <= tolerance:
        yield f"merging moves the outputs by {far:.2g}"
    left = {name for name, _ in model.named_parameters()} - set(reference.values)
    if left:
        yield f"after merging there is {few(left)}"
    if model.training:
        yield "after merging the model is in training mode"
