"""Memory that runs out divides an update, and leaves nothing behind of the attempt."""

import json
import subprocess
import sys
import weakref

import pytest

from strategies import PlanError, Recipe, compose
from strategies.compatibility.tiny_model import BATCH, tiny_collate, tiny_items, tiny_loss, tiny_model
from strategies.methods.data.auto_batch import NOT_EVEN_ONE, AutoBatch

SAID = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"


def trained(member, loss_fn=tiny_loss, model=None, sizes=(BATCH,) * 2):
    """Train on batches of these sizes; dropout is at work in the text tower."""
    tuned = Recipe.of([member]).apply(model or tiny_model(), total_steps=6)
    items, losses = tiny_items(), []
    for size in sizes:
        loader = tuned.loader(items, batch_size=size, collate=tiny_collate, generator=order())
        losses.append(float(tuned.step(loss_fn, next(iter(loader)))))
    return tuned, losses


def order():
    import torch

    return torch.Generator().manual_seed(3)


def accumulate(n):
    (member,) = compose(f"accumulate(n={n})").members
    return member


class Limited:
    """A loss function for which at most `fits` examples fit, once it has drawn all its random numbers."""

    def __init__(self, fits, where="forward"):
        self.fits, self.where, self.tried = fits, where, []
        self.graphs, self.errors = [], []

    def __call__(self, model, batch):
        import torch

        class Failing(torch.autograd.Function):
            @staticmethod
            def forward(context, value):
                return value.clone()

            @staticmethod
            def backward(context, gradient):
                raise RuntimeError(SAID)

        if not model.training:  # a look at the loss function itself
            return tiny_loss(model, batch)
        alive = [reference for reference in self.graphs if reference() is not None]
        assert not alive, "the graph of a failed attempt is still there"
        self.tried.append(len(batch["labels"]))
        losses = tiny_loss(model, batch)
        if len(losses) <= self.fits or (self.where == "second pass" and self.tried.count(len(losses)) == 1):
            return losses
        kept = losses.square().add(1)
        self.graphs.append(weakref.ref(kept))
        if self.where != "backward":
            self.errors.append(torch.OutOfMemoryError("out of memory"))  # as a debugger keeps them
            raise self.errors[-1]
        return Failing.apply(losses) + 0 * kept


@pytest.mark.slow
@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize(("fits", "most"), [(12, 12), (7, 6), (4, 3), (1, 1)])
def test_an_update_that_was_tried_again_equals_one_that_began_so(where, fits, most):
    import torch

    limited = Limited(fits, where)
    tuned, losses = trained(AutoBatch(), limited)
    same, expected = trained(accumulate(BATCH // most))
    assert losses == expected
    assert all(map(torch.equal, tuned.model.parameters(), same.model.parameters()))
    assert tuned.found() == {"grad_accumulation": BATCH // most}
    failed = [size for size in (12, 6, 3, 2, 1) if size > fits]
    assert limited.tried == failed + [most] * (BATCH // most) * 2  # what fitted is kept
    assert len(limited.graphs) == len(failed)


def test_gradients_of_passes_that_fitted_before_are_cleared():
    import torch

    limited = Limited(2, "second pass")
    tuned, losses = trained(AutoBatch(start=4), limited, sizes=(BATCH,))
    same, expected = trained(accumulate(6), sizes=(BATCH,))
    assert limited.tried == [4, 4] + [2] * 6
    assert losses == expected
    assert all(map(torch.equal, tuned.model.parameters(), same.model.parameters()))


def test_start_says_where_to_begin():
    limited = Limited(12)
    tuned, losses = trained(AutoBatch(start=4), limited)
    assert limited.tried == [4] * 6
    assert tuned.found() == {"grad_accumulation": 3}
    assert losses == trained(accumulate(3))[1]
    fresh = Recipe.of([AutoBatch()]).apply(tiny_model())
    assert fresh.found() == {}
    with pytest.raises(PlanError, match="1 or more"):
        AutoBatch(start=0)


def test_a_small_batch_says_nothing_of_larger_ones():
    limited = Limited(8)
    tuned, _ = trained(AutoBatch(), limited, sizes=(4, 8, 12, 8))
    assert limited.tried == [4, 8, 12, 6, 6, 6, 2]
    assert tuned.found() == {"grad_accumulation": 2}


def test_what_does_not_fit_at_all_is_raised_on():
    import torch

    limited = Limited(0)
    with pytest.raises(torch.OutOfMemoryError, match=r"^out of memory") as caught:
        trained(AutoBatch(), limited)
    assert limited.tried == [12, 6, 3, 2, 1]
    if sys.version_info >= (3, 11):
        assert caught.value.__notes__ == [NOT_EVEN_ONE]


def test_other_errors_are_no_reason_to_divide():
    calls = []

    def wrong(model, batch):
        calls.append(1)
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        trained(AutoBatch(), wrong)
    assert len(calls) == 1


def test_batch_norms_count_an_update_once():
    import torch
    from torch import nn

    def outcome(member, fits):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
        tuned = Recipe.of([member]).apply(model)

        def loss(part, batch):
            result = part(batch).square().mean(1)
            if len(batch) > fits:
                raise MemoryError
            return result

        tuned.step(loss, torch.randn(8, 4, generator=torch.Generator().manual_seed(2)))
        return [*model.buffers(), *model.parameters()]

    found, expected = outcome(AutoBatch(), 2), outcome(accumulate(4), 8)
    assert int(found[2]) == 4
    assert all(map(torch.equal, found, expected))


@pytest.mark.slow
def test_a_real_limit():
    """In a process that may have 100 MB more: the whole batch dies, halves die, what is found fits and is the most."""
    code = """
import json, os, resource, sys
sys.path.insert(0, os.getcwd())
import torch
from torch import nn
torch.set_num_threads(1)
from strategies import Recipe, compose
from strategies.methods.data.auto_batch import AutoBatch
from strategies.errors import is_out_of_memory

WIDTH = 2**18  # a mebibyte for each example, layer and mask

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, WIDTH))

    def forward(self, x):
        hidden = x * self.weight
        for _ in range(6):
            hidden = torch.dropout(torch.tanh(hidden), 0.1, self.training)
        return hidden.reshape(len(x), 64, -1).mean(-1)

def build():
    torch.manual_seed(1)
    return nn.Sequential(Wide(), nn.Linear(64, 3))

def loss(model, batch):
    return model(batch).square().mean(1)

data = torch.linspace(0.1, 1, 16)[:, None]

def outcome(members, batch=data, steps=2):
    tuned = Recipe.of(members).apply(build())
    try:
        losses = [float(tuned.step(loss, batch)) for _ in range(steps)]
    except Exception as error:
        return {"oom": is_out_of_memory(error), "said": str(error).splitlines()[0]}
    weights = sum(float(p.double().square().sum()) for p in tuned.model.parameters())
    return {"losses": losses, "weights": weights, **tuned.found()}

outcome([], data[:1])  # whatever is loaded late is there now
(held,) = [int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData")]
resource.setrlimit(resource.RLIMIT_DATA, (held + 100 * 2**20,) * 2)
found = {"full": outcome([]), "auto": outcome([AutoBatch()])}
for passes in (2, 4, 8):
    found[str(passes)] = outcome(compose(f"accumulate(n={passes})").members)
print(json.dumps(found))
"""
    settings = {"MALLOC_MMAP_THRESHOLD_": "65536", "PATH": "", "OMP_NUM_THREADS": "1"}  # what is freed is given back
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=settings)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["full"]["oom"]
    assert "can't allocate memory" in found["full"]["said"]
    passes = found["auto"].pop("grad_accumulation")
    assert passes > 1
    assert found[str(passes)] == found["auto"]
    assert all(found[str(fewer)].get("oom") for fewer in (2, 4) if fewer < passes)
