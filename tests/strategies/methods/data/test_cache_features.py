"""What is looked up is what would have been computed; what could differ is refused."""

import dataclasses
import resource

import pytest

from strategies import PlanError, Recipe, compose, load
from strategies.compatibility.tiny_model import BATCH, PICTURES, tiny_collate, tiny_items, tiny_loss, tiny_model
from strategies.methods.data.cache_features import CacheFeatures
from strategies.methods.data.feature_store import (
    FeatureStore,
    InMemory,
    OnDisk,
    differing,
    fingerprints,
    flatten,
    tolerance,
)
from strategies.protocol import RANDOM_TOKENS, Strategy

REST = "freeze(scope='vision')"
EXACT = 1e-6


def quiet_model():
    model = tiny_model()
    for module in model.modules():
        if hasattr(module, "p"):
            module.p = 0.0
    return model


def plan(text, *caches):
    return Recipe.of([*compose(text).members, *caches])


def trained(text, *caches, epochs=2, model=None, items=None, collate=tiny_collate, change=lambda tuned: None):
    import torch

    items = items or tiny_items()
    tuned = plan(text, *caches).apply(model or tiny_model(), total_steps=6)
    change(tuned)
    loader = tuned.loader(items, batch_size=BATCH, collate=collate, generator=torch.Generator().manual_seed(3))
    return tuned, [float(tuned.step(tiny_loss, feed)) for _ in range(epochs) for feed in loader]


def scores(tuned):
    with tuned.evaluating():
        return tuned.model(tiny_collate(tiny_items())).float()


@pytest.mark.parametrize(
    "text",
    [
        REST,
        f"{REST}+lora(scope='text')",
        f"{REST}+accumulate(n=3)",
        f"{REST}+amp",
        f"{REST}+checkpointing(scope='text')",
        f"{REST}+group_by_image",
        pytest.param(f"{REST}+compile(backend='eager')", marks=pytest.mark.slow),
        pytest.param(f"{REST}+compile(backend='eager', regional=False)", marks=pytest.mark.slow),
        "linear_probe",
        "nf4+freeze",
    ],
)
def test_losses_are_those_without_and_each_picture_passes_once(text):
    import torch

    plain, expected = trained(text)
    cached, losses = trained(text, CacheFeatures())
    assert losses == pytest.approx(expected, abs=EXACT)
    assert torch.allclose(scores(cached), scores(plain), atol=EXACT)
    whole = len(tiny_collate(tiny_items())["pictures"])
    assert whole == PICTURES
    first = cached.model.vision.pictures - whole - PICTURES  # evaluated above; the first batch was computed twice
    assert 0 < first <= PICTURES
    assert plain.model.vision.pictures - whole > 2 * PICTURES
    if "compile" in text:
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


@pytest.mark.parametrize("dtype", [None, "bf16", "fp16"])
def test_the_disk_gives_what_memory_gives(dtype):
    _, exact = trained(REST)
    results = [trained(REST, CacheFeatures(to=to, dtype=dtype)) for to in ("memory", "disk")]
    assert results[0][1] == results[1][1]
    assert results[0][1] == pytest.approx(exact, abs=EXACT if dtype is None else 0.02)
    assert (results[0][1] == exact) == (dtype is None)
    (memory, disk) = [vars(tuned.model.vision)["kept_features"] for tuned, _ in results]
    assert disk == []
    (rows,) = memory
    assert len(rows) == PICTURES
    assert {str(row.dtype) for row in rows} == {
        {None: "torch.float32"}.get(dtype, f"torch.{'b' * (dtype == 'bf16')}float16")
    }
    assert all(row.untyped_storage().nbytes() == row.nbytes for row in rows)


def test_two_towers_have_a_cache_each():
    both = "freeze(scope='vision')+freeze(scope='text')"
    _, expected = trained(both, model=quiet_model())
    tuned, losses = trained(both, CacheFeatures(), CacheFeatures(scope="text"), model=quiet_model())
    assert losses == pytest.approx(expected, abs=EXACT)
    assert len(vars(tuned.model.text)["kept_features"][0]) == len(tiny_items())


def test_rows_in_memory_count_as_weights_on_a_cpu():
    from strategies.prediction.storage_tracker import held_tensors

    plain, cached = (
        sum(t.nbytes for t in held_tensors(trained(REST, *more)[0].model)) for more in ([], [CacheFeatures()])
    )
    assert cached - plain == PICTURES * 5 * 32 * 4


def test_evaluation_computes_all_and_names_stay():
    import torch

    tuned, _ = trained(REST, CacheFeatures(), epochs=1)
    assert tuned.model.state_dict().keys() == tiny_model().state_dict().keys()
    before = tuned.model.vision.pictures
    expected = scores(trained(REST, epochs=1)[0])
    assert torch.allclose(scores(tuned), expected, atol=EXACT)
    assert tuned.model.vision.pictures == before + PICTURES
    tuned.step(tiny_loss, tiny_collate(tiny_items()[:BATCH]))  # no items, so no keys: all is computed
    assert tuned.model.vision.pictures > before + PICTURES


def test_a_saved_plan_gives_the_same_outputs(tmp_path, monkeypatch):
    import torch

    from strategies import catalogue
    from strategies.language import parse

    monkeypatch.setattr(parse, "catalogue", lambda: {**catalogue(), "cache_features": CacheFeatures})
    tuned, _ = trained(f"{REST}+lora(scope='text')", CacheFeatures(to="disk"))
    tuned.save(tmp_path)
    again = load(tmp_path, tiny_model())
    assert "cache_features(to='disk')" in str(again.plan)
    assert torch.equal(scores(again), scores(tuned))


@pytest.mark.slow
@pytest.mark.parametrize("scopes", [("vision",), ("vision", "text")])
def test_the_embedded_task(scopes):
    """Each question's loss is that without the cache, in both epochs; the tower sees each picture once."""
    import torch

    from vqa_model.task import VQATask

    torch.set_num_threads(1)
    task, epochs = VQATask(), 2
    items = [task.train_set()[place] for place in range(192)]
    rest = "+".join(f"freeze(scope={scope!r})" for scope in scopes)
    results, passed = [], []
    for caches in ([], [CacheFeatures(scope=scope) for scope in scopes]):
        torch.manual_seed(0)
        tuned, seen = plan(rest, *caches).apply(task.build_model(), total_steps=12), []
        inner = tuned.model.vision.embeddings  # below the wrapped forward
        inner.register_forward_hook(lambda _, given, __, seen=seen: seen.append(len(given[0])))
        order = torch.Generator().manual_seed(1)
        loader = tuned.loader(items, batch_size=32, collate=task.collate, generator=order)
        results.append([float(tuned.step(task.loss, feed)) for _ in range(epochs) for feed in loader])
        passed.append(seen)
    assert results[1] == pytest.approx(results[0], abs=EXACT)
    pictures = len({item["keys"]["vision"] for item in items})
    assert sum(passed[1]) == pictures + passed[1][0]
    assert sum(passed[0]) > 2 * pictures


# refusals ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dropping(Strategy):
    name, kind, stage, provides = "dropping", "data", 70, frozenset({RANDOM_TOKENS})
    scope: str = "vision"


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        ("full", [], r"freeze \(of the same scope\)"),
        ("lora", [], "write cache_features"),
        ("freeze(last_n=1)", [], "needs nothing that trains"),
        ("freeze(scope='text')", [], "needs nothing that trains"),
        (REST, [Dropping()], "random tokens in its scope: leave dropping out"),
        (REST, [CacheFeatures(to="disk")], "both decide 'features'"),
    ],
)
def test_what_a_plan_refuses(text, more, words):
    with pytest.raises(PlanError, match=words):
        plan(text, *more, CacheFeatures()).apply(tiny_model())


def test_random_tokens_elsewhere_are_no_concern():
    assert not plan(REST, Dropping(scope="text"), CacheFeatures()).problems("cpu", tiny_model())


def test_dropout_is_refused_when_the_plan_is_applied():
    with pytest.raises(PlanError, match=r"layers in 'text' have dropout.*hidden_dropout_prob"):
        plan("freeze", CacheFeatures(scope="text")).apply(tiny_model())


def test_items_without_keys_are_refused():
    items = [{**item, "keys": {"text": 1}} for item in tiny_items()]
    with pytest.raises(PlanError, match=r"no key for 'vision'.*they have keys for: text"):
        trained(REST, CacheFeatures(), items=items)
    assert "none at all" in CacheFeatures().unsupported_item((1, 2))
    assert CacheFeatures(scope="vision.encoder").unsupported_item(tiny_items()[0]) is None


def noisy(tuned):
    """Drop what no layer says: a function deep inside."""
    import torch

    layer = tuned.model.vision.embeddings
    plain = layer.forward
    layer.forward = lambda *given, **more: torch.nn.functional.dropout(plain(*given, **more), 0.1, layer.training)


def test_a_random_module_is_refused_in_the_first_batch():
    with pytest.raises(PlanError, match="'vision' gives another result for the same input"):
        trained(REST, CacheFeatures(), epochs=1, change=noisy)


@pytest.mark.parametrize("change", ["noise", "mirror", "order"])
def test_inputs_that_change_are_refused(change):
    import torch

    torch.manual_seed(0)

    def collate(items):
        batch = tiny_collate(items)
        pictures = batch["pictures"]
        flip = torch.rand(len(pictures)) < 0.5
        batch["pictures"] = {
            "noise": pictures + 1e-4 * torch.randn(pictures.shape),
            "mirror": torch.where(flip[:, None, None, None], pictures.flip(-1), pictures),
            "order": pictures[torch.randperm(len(pictures))],
        }[change]
        return batch

    with pytest.raises(PlanError, match=r"for key \d changed since it was last used"):
        trained(REST, CacheFeatures(), collate=collate)


def test_what_follows_something_that_trains_is_refused(foreign):
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))
    tuned = plan("freeze(scope='1')", CacheFeatures(scope="1")).apply(model)
    items = [{"id": n, "keys": {"1": n}, "x": torch.full((3,), float(n))} for n in range(4)]
    loader = tuned.loader(items, batch_size=4, collate=lambda part: torch.stack([item["x"] for item in part]),
                          generator=torch.Generator())  # fmt: skip
    with pytest.raises(PlanError, match="something before '1' trains"):
        tuned.step(lambda part, batch: part(batch).square().mean(), next(iter(loader)))


# modules of any shape ------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Plain:
    """An output of no library."""

    rows: object
    kind: str = "plain"


def module_of(outputs):
    import torch

    class Part(torch.nn.Module):
        called = 0

        def forward(self, x, mask=None, **more):
            self.called += len(x)
            return outputs(2 * x + 1 if mask is None else 2 * x + mask)

    return Part()


def used(module, steps, **options):
    """Put batches (keys, rows) through a wrapped module; gives its outputs."""
    from strategies.methods.data.memo import CachedModule

    memo = CachedModule("part", module.forward, lambda: FeatureStore(InMemory, None))
    return [memo.outputs(keys, step, (x,), options) for step, (keys, x) in enumerate(steps)]


def test_outputs_of_any_form_come_back():
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    forms = {
        "tensor": lambda y: y,
        "tuple": lambda y: (y, None, {"deep": [y.long(), 3]}, torch.tensor(2.0)),
        "dataclass": Plain,
        "transformers": lambda y: BaseModelOutput(last_hidden_state=y, hidden_states=(y, y + 1)),
    }
    x = torch.arange(12.0).reshape(4, 3)
    steps = [("ab", x[:2]), ("bca", x[[1, 2, 0]]), ("ac", x[[0, 2]]), ("acad", x[[0, 2, 3]])]
    for form in forms.values():
        module = module_of(form)
        for (_, rows), found in zip(steps, used(module, steps), strict=True):
            (leaves, _), (expected, _) = flatten(found), flatten(form(2 * rows + 1))
            assert type(found) is type(form(rows))
            assert len(leaves) == len(expected)
            for one, other in zip(leaves, expected, strict=True):
                assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
        assert module.called == 2 + 2 + 1 + 1  # the first batch twice


def test_one_row_for_each_example_will_do_and_others_are_refused():
    import torch

    x = torch.arange(3.0)[:, None]
    module = module_of(lambda y: y)
    found = used(module, [("aba", x[[0, 1, 0]]), ("bbc", x[[1, 1, 2]])])
    assert found[1].tolist() == (2 * x[[1, 1, 2]] + 1).tolist()
    assert module.called == 2 + 2 + 1
    with pytest.raises(PlanError, match="got 4 rows for 3 examples with 2 distinct keys"):
        used(module, [("aba", torch.ones(4, 1))])
    with pytest.raises(PlanError, match="changed since"):
        used(module, [("aba", x[[0, 1, 0]]), ("ba", x[[0, 1]])])


def test_other_lengths_and_switches_are_other_forms():
    import torch

    x = torch.arange(12.0).reshape(2, 6)
    module = module_of(lambda y: y)
    short, long, again = used(module, [("ab", x[:, :3]), ("ab", x), ("ab", x[:, :3])])
    assert short.shape == again.shape == (2, 3)
    assert long.shape == (2, 6)
    assert module.called == 2 + 2 + 2


def test_what_is_not_by_row_is_refused():
    import torch

    x = torch.arange(6.0).reshape(3, 2)
    for form in (lambda y: y.sum(), lambda y: (y, y.mean())):
        with pytest.raises(PlanError, match=r"cannot be kept by row"):
            used(module_of(form), [("ab", x[:2]), ("c", x[2:])])


@pytest.mark.parametrize("make", [InMemory, OnDisk])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int64", "bool"])
def test_stores_keep_every_number_type(make, dtype):
    import torch

    rows = torch.arange(24).reshape(4, 3, 2).to(getattr(torch, dtype))
    store = make()
    store.put(0, rows[:3])
    assert torch.equal(store.take([2, 0]), rows[[2, 0]])
    store.put(2, rows[[0, 3]])  # as after a pass that broke off
    assert torch.equal(store.take([0, 1, 2, 3]), rows[[0, 1, 0, 3]])
    flat = make()
    flat.put(0, rows[:, 0, 0])
    assert torch.equal(flat.take([3, 1]), rows[[3, 1], 0, 0])


def test_a_full_disk_says_what_to_do():
    import torch

    store, old = OnDisk(), resource.getrlimit(resource.RLIMIT_FSIZE)
    store.put(0, torch.ones(2, 100))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
    try:
        with pytest.raises(OSError, match=r"4 rows of 400 bytes do not fit.*TMPDIR"):
            store.put(2, torch.ones(2, 100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert store.take([1]).tolist() == torch.ones(1, 100).tolist()


def test_fingerprints_know_places_but_not_rounding():
    import torch

    x = torch.randn(3, 500, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([0.0, float("-inf")]).expand(3, 2)

    def seen(*tensors):
        return fingerprints(tensors, 3, [0, 1, 2])

    first, apart = seen(x, mask), tolerance([x, mask])
    alone = torch.cat([fingerprints([x, mask], 3, [row]) for row in range(3)])
    assert differing(first, alone, apart) == []
    rounded = torch.nextafter(x, torch.full_like(x, 9.0))  # as a layer before it may do in another batch
    assert differing(first, seen(rounded, mask), apart) == []
    changed = x.clone()
    changed[1, 3] += 1e-3
    assert differing(first, seen(changed, mask), apart) == [1]
    assert differing(first, seen(x.flip(1), mask), apart) == [0, 1, 2]
    assert differing(first, seen(x, mask.flip(1)), apart) == [0, 1, 2]
    words = torch.arange(1500).reshape(3, 500)
    assert differing(seen(words), seen(words + (words == 700)), tolerance([words])) == [1]
    halves = x.bfloat16()
    noise = 1 + 2**-9 * torch.randn(3, 500, generator=torch.Generator().manual_seed(2))
    assert differing(seen(halves), seen((halves * noise).bfloat16()), tolerance([halves])) == []


def test_two_passes_of_one_update_prove_nothing():
    """Chosen among, or tried again, the same items pass twice: random augmentation shows in the next update only."""
    import torch

    from strategies.methods.data.memo import CachedModule

    memo = CachedModule("part", module_of(lambda y: y).forward, lambda: FeatureStore(InMemory, None))
    x = torch.randn(2, 4)
    for step, rows in [(0, x), (0, x)]:
        memo.outputs("ab", step, (rows,), {})
    with pytest.raises(PlanError, match="changed since"):
        memo.outputs("ab", 1, (x.flip(1),), {})


@pytest.mark.parametrize("kind", ["mlp", "text", "conv", "two", "gpt", "cnn"])
def test_models_that_know_nothing_of_it(kind, foreign):
    """Each example is a key of its own; from the second epoch on no module of the scope runs."""
    import torch

    scope, data = ("vision" if kind == "two" else "body"), foreign.batch(kind)
    items = [{"id": n, "keys": {scope: n}} for n in range(12)]

    def collate(part):
        rows = [item["id"] for item in part]
        return {"inputs": tuple(x[rows] for x in data["inputs"]), "labels": data["labels"][rows]}

    def losses(*caches):
        tuned, called = plan(f"freeze(scope={scope!r})", *caches).apply(foreign.build(kind), total_steps=9), []
        layout = tuned.context.layout
        for root in layout.scopes[scope]:
            for part in tuned.model.get_submodule(root).children():
                part.register_forward_hook(lambda *_: called.append(1))
        loader = tuned.loader(items, batch_size=4, collate=collate, generator=torch.Generator().manual_seed(1))
        found = [float(tuned.step(foreign.loss, feed)) for feed in loader]
        called.clear()
        found += [float(tuned.step(foreign.loss, feed)) for _ in range(2) for feed in loader]
        return found, len(called)

    (plain, computed), (cached, looked_up) = losses(), losses(CacheFeatures(scope=scope))
    assert cached == pytest.approx(plain, abs=1e-5)
    assert looked_up == 0
    assert computed > 0 or kind == "mlp"  # whose modules have no parts
