"""Plans in Trainer and in Accelerate loops do what `tuned.step` does: same losses, same weights, small checkpoints."""

from dataclasses import dataclass
from typing import ClassVar, final

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from safetensors.torch import load_file
from torch import nn
from transformers import Trainer, TrainingArguments

from strategies import PlanError, Recipe, SelfCheckError, Strategy, compose, load
from strategies.integrations.hooks import PlanHooks, with_extra_loss
from strategies.methods.update.ema import Ema
from strategies.methods.update.schedule_free import ScheduleFree
from strategies.methods.weights.lora import Lora

STEPS, SIZE, TOKENS = 6, 8, 6
PLANS = [
    "full(lr=1e-2)", "lora(lr=1e-2)", "lora(lr=1e-2)+checkpointing", "freeze(last_n=1)", "nf4+lora(lr=1e-2)",
    "accumulate(n=2)+lora(lr=1e-2)", "amp(dtype='bf16')+lora(lr=1e-2)", "adalora", "layer_decay", "loraplus",
    "clip(norm=0.01)+full(lr=1e-2)", "schedule(shape='constant', warmup=0.5)+lora(lr=1e-2)", "lisa(n=1, period=2)",
    "compile(backend='eager')+lora(lr=1e-2)",
]  # fmt: skip
QUICK = ("lora(lr=1e-2)", "accumulate(n=2)+lora(lr=1e-2)", "adalora")
MARKED = [pytest.param(text, marks=[] if text in QUICK else [pytest.mark.slow]) for text in PLANS]
SUM = "accumulate(n=2)"
CLOSE = 1e-6


@final
@dataclass(frozen=True, kw_only=True)
class Third(Strategy):
    """Somebody else's, which counts how often its forward runs."""

    name: ClassVar[str] = "third"
    kind: ClassVar[str] = "update"
    stage: ClassVar[int] = 60
    seen: ClassVar[list] = []

    def wrap_forward(self, forward, context):
        def counted(*arguments, **options):
            self.seen.append(torch.is_grad_enabled())
            return forward(*arguments, **options)

        return counted


def third(**hooks):
    return final(dataclass(frozen=True, kw_only=True)(type("Other", (Strategy,), {**vars_of(Third), **hooks})))()


def vars_of(cls):
    return {"name": cls.name, "kind": cls.kind, "stage": cls.stage, "__doc__": "."}


class Recording(Trainer):
    """Keeps the losses of micro-batches, unrounded, and the rates they were trained with."""

    def training_step(self, *arguments, **options):
        loss = super().training_step(*arguments, **options)
        self.losses.append(float(loss))
        self.rates.append([group["lr"] for group in self.optimizer.param_groups])
        return loss

    @property
    def plan(self):
        return next(call for call in self.callback_handler.callbacks if hasattr(call, "tuned"))


class Collate:
    """Makes batches, and remembers those to train on in order; what is held out has longer rows."""

    def __init__(self):
        self.made = []

    def __call__(self, items):
        made = {key: torch.stack([item[key] for item in items]) for key in items[0]}
        if made["input_ids"].shape[1] == TOKENS:
            self.made.append(made)
        return made

    def update(self, number, parts=1):
        made = self.made[number * parts : (number + 1) * parts]
        return {key: torch.cat([batch[key] for batch in made]) for key in made[0]}


def items(count=STEPS * SIZE, tokens=TOKENS):
    ids = torch.randint(1, 40, (count, tokens), generator=torch.Generator().manual_seed(3))
    return [{"input_ids": row, "labels": row.sum() % 3} for row in ids]


def plan_of(text):
    return text if isinstance(text, Recipe) else compose(text)


@pytest.fixture
def hugging(foreign, tmp_path):
    """Train a tiny BERT by Trainer; give the trainer and its batches."""

    def run(
        text, *, model=None, folder="out", resume=None, head="auto", total_steps=None, train=True, lr=None,
        head_lr=None, **options,
    ):  # fmt: skip
        given = {"save_strategy": "no", "max_steps": STEPS} | options
        args = TrainingArguments(
            output_dir=str(tmp_path / folder), per_device_train_batch_size=SIZE, use_cpu=True, disable_tqdm=True,
            report_to="none", logging_strategy="no", **given,
        )  # fmt: skip
        collate = Collate()
        ready = plan_of(text).for_trainer(
            model or foreign.build("text"), args, collate=collate, head=head, total_steps=total_steps, lr=lr,
            head_lr=head_lr,
        )  # fmt: skip
        trainer = Recording(**ready, train_dataset=items(), eval_dataset=items(16, 7))
        trainer.losses, trainer.rates = [], []
        if train:
            trainer.train(resume_from_checkpoint=resume)
        return trainer, collate

    return run


@pytest.fixture
def accelerated(foreign):
    """Train a tiny BERT in an Accelerate loop; give what was made ready, the losses and the batches."""

    def run(text, *, load_from=None, steps=STEPS, size=SIZE, **options):
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        accelerator, collate, losses = Accelerator(cpu=True, **options), Collate(), []
        ready = plan_of(text).for_accelerate(accelerator, foreign.build("text"), total_steps=STEPS)
        loader = ready.loader(items(), batch_size=size, collate=collate, generator=torch.Generator().manual_seed(0))
        if load_from:
            accelerator.load_state(load_from)
        skipped = ready.tuned.state.step
        for number, batch in enumerate(loader):
            if not skipped <= number / accelerator.gradient_accumulation_steps < steps:
                continue
            with accelerator.accumulate(ready.model):
                loss = ready.model(**batch).loss
                accelerator.backward(loss)
                if accelerator.sync_gradients and ready.max_norm:
                    accelerator.clip_grad_norm_(ready.model.parameters(), ready.max_norm)
                ready.optimizer.step()
                ready.scheduler.step()
                ready.optimizer.zero_grad()
            losses.append(loss.item() / accelerator.gradient_accumulation_steps)
        return ready, losses, collate

    yield run
    PartialState._reset_state()


def loss_of(model, batch):
    return model(**batch).loss


def ours(text, foreign, collate, seed, parts=1):
    """Train the same batches by our own loop; give what was tuned and the losses."""
    tuned = plan_of(text).apply(foreign.build("text"), seed=seed, total_steps=STEPS)
    return tuned, [tuned.step(loss_of, collate.update(number, parts)).item() for number in range(STEPS)]


def assert_same(first, second, within=CLOSE):
    assert first.keys() == second.keys()
    assert max(float((first[name] - second[name]).abs().max()) for name in first) <= within


def in_updates(losses, parts):
    return [sum(losses[start : start + parts]) for start in range(0, len(losses), parts)]


@pytest.mark.parametrize("text", MARKED)
def test_trainer_trains_as_our_own_loop(foreign, hugging, text):
    trainer, collate = hugging(text)
    parts = trainer.args.gradient_accumulation_steps
    tuned, losses = ours(text, foreign, collate, trainer.args.seed, parts)
    assert in_updates(trainer.losses, parts) == pytest.approx(losses, abs=CLOSE)
    before = plan_of(text).apply(foreign.build("text"), seed=trainer.args.seed, total_steps=STEPS).full_state()
    after = tuned.full_state()
    assert max(float((before[name] - after[name]).abs().max()) for name in after) > 1e-4, "a plan that moves nothing"
    assert_same(trainer.plan.tuned.full_state(), after)


@pytest.mark.parametrize("text", ["lora", "schedule(shape='linear', warmup=0.4)+lora", "loraplus"])
def test_update_k_has_the_rate_of_our_loop(foreign, hugging, text):
    trainer, collate = hugging(text)
    tuned, rates = compose(text).apply(foreign.build("text"), total_steps=STEPS), []
    for number in range(STEPS):
        tuned.step(loss_of, collate.update(number))
        rates.append([group["lr"] for group in tuned.optimizer.param_groups])
    assert trainer.rates == [pytest.approx(row, rel=1e-12) for row in rates]
    assert len({row[0] for row in rates}) > 2


def test_trainers_arguments_follow_the_plan(hugging):
    trainer, _ = hugging("accumulate(n=4)+amp(dtype='bf16')+clip(norm=0.5)+lora", train=False)
    args = trainer.args
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (SIZE // 4, 4)
    assert (args.bf16, args.fp16, args.max_grad_norm) == (True, False, 0.5)
    assert hugging("clip(norm=None)+lora", train=False)[0].args.max_grad_norm == 0
    plain = hugging("lora", train=False, gradient_accumulation_steps=2, max_grad_norm=0.3)[0].args
    assert (plain.gradient_accumulation_steps, plain.max_grad_norm, plain.per_device_train_batch_size) == (2, 0.3, SIZE)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("amp(dtype='bf16')", {"fp16": True}, "fp16=True"),
        ("clip", {"max_grad_norm": 0.5}, "max_grad_norm=0.5"),
        ("accumulate(n=2)", {"gradient_accumulation_steps": 2}, "gradient_accumulation_steps=2"),
        ("accumulate(n=3)", {}, "3 equal parts"),
        ("checkpointing", {"activation_checkpointing": True}, "activation_checkpointing=True"),
        ("clip(value=1.0)", {}, "max_grad_norm"),
        ("lora", {"learning_rate": 1e-2}, r"learning_rate=0.01 \(give lr=…"),
        ("lora", {"lr_scheduler_type": "cosine", "optim": "adafactor"}, r"schedule\(…\).*; optim="),
        ("lora", {"auto_find_batch_size": True}, r"accumulate\(n=…\)"),
        ("auto_batch", {}, r"accumulate\(n=…\)"),
        ("adalora+schedule", {"max_steps": -1}, "length of the run"),
    ],
)
def test_what_contradicts_or_is_missing_is_refused(hugging, text, options, message):
    with pytest.raises(PlanError, match=message):
        hugging(text, train=False, **options)


@pytest.mark.slow
def test_the_number_of_updates_may_be_told_or_not_needed(hugging):
    for total_steps in (STEPS, None):
        trainer, _ = hugging("lora", max_steps=-1, num_train_epochs=1, total_steps=total_steps)
        assert trainer.plan.tuned.state.total_steps == trainer.plan.tuned.state.step == STEPS
        assert trainer.rates == hugging("lora")[0].rates, "of a schedule over all updates"
    with pytest.raises(PlanError, match="does 6 updates"):
        hugging("lora", max_steps=-1, num_train_epochs=1, total_steps=STEPS + 1)


def test_rates_may_be_given(hugging):
    groups = hugging("lora", train=False, lr=3e-3, head_lr=4e-3)[0].plan.tuned.optimizer.param_groups
    assert {group["initial_lr"] for group in groups} == {3e-3, 4e-3}


def test_fp16_of_trainer_alone_may_skip_the_first_updates(foreign, hugging):
    """The loss scaler begins with gradients that overflow: no error, also where the plan says nothing of fp16."""
    trainer, _ = hugging("lora", train=False)
    assert not trainer.plan.hooks._uses_loss_scaler
    trainer.plan.hooks._uses_loss_scaler = True
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, float("inf"))
    trainer.plan.hooks.check()
    assert hugging("lora", train=False, fp16=True)[0].plan.hooks._uses_loss_scaler


def test_a_model_takes_one_plan_here_too_until_merged(foreign, hugging):
    trainer, _ = hugging("full", train=False)
    with pytest.raises(PlanError, match="build it again"):
        hugging("lora", model=trainer.model, train=False)
    first, _ = hugging("lora(lr=1e-2)+ema")
    first.plan.tuned.merge()
    second, _ = hugging("lora(lr=1e-2)", model=first.model, folder="second", save_strategy="steps", save_steps=3)
    assert second.model.state_dict().keys() == second.plan.tuned.full_state().keys()
    assert sum(".lora_" in name for name in second.model.state_dict()) == 8


@pytest.mark.parametrize(
    "hook", ["select_examples", "run_micro_batches", "prepare_batch", "engine", "clipping", "loader"]
)
def test_a_hook_without_a_place_is_refused_by_itself(hugging, accelerated, hook):
    strange = Recipe.of([Lora(), third(**{hook: lambda self, given, *rest: given})])
    with pytest.raises(PlanError, match=f"third: works by {hook}"):
        hugging(strange, train=False)
    if hook == "loader":  # Accelerate takes a loader as it is
        assert accelerated(strange)[0].tuned.state.step == STEPS
    else:
        with pytest.raises(PlanError, match=f"third: works by {hook}"):
            accelerated(strange)


def test_items_unknown_settings_and_own_words_are_refused(hugging):
    for hooks, message in [
        ({"needs_items": True}, "needs_items"),
        ({"external_loop_settings": lambda self, facts: {"warp": 9}}, "'warp'"),
        (
            {
                "external_loop_settings": lambda self, facts: "use xyz=True",
                "run_micro_batches": lambda self, run, *rest: run(1),
            },
            "use xyz=True",
        ),
    ]:
        with pytest.raises(PlanError, match=message):
            hugging(Recipe.of([Lora(), third(**hooks)]), train=False)
    harmless = third(external_loop_settings=lambda self, facts: "never shown, as no hook lacks a place")
    assert hugging(Recipe.of([Lora(), harmless]), train=False)


def test_a_wrapped_forward_runs_once_in_training_and_evaluation(hugging):
    Third.seen.clear()
    trainer, _ = hugging(Recipe.of([Lora(), Third()]))
    assert Third.seen == [True] * STEPS
    trainer.evaluate()
    assert Third.seen == [True] * STEPS + [False] * 2
    left_to_trainer = third(
        wrap_forward=Third.wrap_forward, seen=[], external_loop_settings=lambda self, facts: {"max_norm": 2.0}
    )
    assert hugging(Recipe.of([Lora(), left_to_trainer]))[0].args.max_grad_norm == 2
    assert left_to_trainer.seen == []


@pytest.mark.slow
@pytest.mark.parametrize("averaging", [Ema(decay=0.9), ScheduleFree()], ids=str)
def test_averages_are_evaluated_and_saved_and_training_goes_on_without(foreign, hugging, tmp_path, averaging):
    plan = Recipe.of([Lora(lr=1e-2), averaging])
    trainer, collate = hugging(plan, eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2)
    tuned, losses = ours(plan, foreign, collate, trainer.args.seed)
    assert trainer.losses == pytest.approx(losses, abs=CLOSE)
    raw = {name: value.clone() for name, value in tuned.full_state().items()}
    held_out = Collate()(items(16, 7))
    with tuned.evaluating():
        loss, averages = loss_of(tuned.model, held_out).item(), tuned.full_state()
        logged = [row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row]
        assert len(logged) == 3
        assert logged[-1] == pytest.approx(loss, abs=CLOSE)
        assert trainer.evaluate()["eval_loss"] == pytest.approx(loss, abs=CLOSE), "also after training"
        assert_same(trainer.plan.tuned.full_state(), averages)
        assert max(float((raw[name] - averages[name]).abs().max()) for name in raw) > 1e-4
        trainer.save_model(str(tmp_path / "theirs"))
        trainer.plan.hooks.use_training_weights()
    assert_same(trainer.plan.tuned.full_state(), raw)
    with pytest.raises(PlanError, match="what it keeps"):
        hugging(plan, folder="again", resume=str(tmp_path / "out" / f"checkpoint-{STEPS - 2}"))


def test_our_own_folder_holds_the_averages_that_are_in_place(foreign, hugging, tmp_path):
    trainer, _ = hugging("lora(lr=1e-2)")
    assert trainer.plan.hooks.averaged
    assert trainer.plan.save(tmp_path / "own") < 20_000
    again = load(tmp_path / "own", foreign.build("text"))
    assert_same(again.full_state(), trainer.plan.tuned.full_state(), 0)
    averaged, _ = hugging(Recipe.of([Lora(lr=1e-2), Ema(decay=0.9)]), folder="ema")
    before = {name: value.clone() for name, value in averaged.plan.tuned.full_state().items()}
    averaged.plan.save(tmp_path / "ema-own")
    assert_same(load_file(tmp_path / "ema-own" / "tuned.safetensors"), before, 0)
    averaged.plan.hooks.use_training_weights()
    raw = averaged.plan.tuned.full_state()["classifier.weight"].clone()
    assert not torch.equal(raw, before["classifier.weight"])
    assert torch.equal(averaged.model.state_dict()["classifier.weight"], before["classifier.weight"]), "whoever saves"


def test_the_best_averages_stay_when_they_are_loaded_in_the_end(hugging, tmp_path):
    """`load_best_model_at_end` puts earlier averages into the model: those are evaluated and saved from then on."""
    trainer, _ = hugging(
        Recipe.of([Lora(lr=1e-2), Ema(decay=0.5)]), eval_strategy="steps", eval_steps=2, save_strategy="steps",
        save_steps=2, load_best_model_at_end=True, metric_for_best_model="eval_loss", greater_is_better=False,
    )  # fmt: skip
    best = load_file(f"{trainer.state.best_model_checkpoint}/model.safetensors")["classifier.weight"]
    assert trainer.state.best_global_step < STEPS
    trainer.plan.save(tmp_path / "own")
    assert torch.equal(load_file(tmp_path / "own" / "tuned.safetensors")["classifier.weight"], best)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["lora(lr=1e-2)", "nf4+lora(lr=1e-2)", "freeze(last_n=1)", "amp(dtype='bf16')+dora"])
def test_training_goes_on_from_a_small_checkpoint(foreign, hugging, tmp_path, text):
    whole, _ = hugging(text, folder="whole", save_strategy="steps", save_steps=3)
    checkpoint = tmp_path / "whole" / "checkpoint-3"
    second, _ = hugging(text, folder="second", resume=str(checkpoint))
    assert second.losses == whole.losses[3:]
    assert_same(second.plan.tuned.full_state(), whole.plan.tuned.full_state(), 0)
    complete = sum(p.numel() * 4 for p in foreign.build("text").parameters())
    assert (checkpoint / "model.safetensors").stat().st_size < complete / 2


class Wrapped(nn.Module):
    """No model of transformers, with one head under two names."""

    def __init__(self, foreign):
        super().__init__()
        self.net = foreign.build("text")
        self.same = self.net.classifier

    def forward(self, input_ids, labels=None):
        return tuple(self.net(input_ids=input_ids, labels=labels, return_dict=False))


@pytest.mark.slow
@pytest.mark.parametrize("text", ["lora(lr=1e-2)", "full(lr=1e-3)"])
def test_plain_modules_with_shared_tensors_are_saved_and_resumed(foreign, hugging, tmp_path, text):
    head = "net.classifier"
    whole, _ = hugging(text, model=Wrapped(foreign), head=head, save_strategy="steps", save_steps=3)
    checkpoint = str(tmp_path / "out" / "checkpoint-3")
    second, _ = hugging(text, model=Wrapped(foreign), head=head, folder="second", resume=checkpoint)
    assert second.losses == whole.losses[3:]


def test_terms_are_added_to_the_loss_in_a_tuple(foreign, hugging):
    trainer, collate = hugging("adalora", model=Wrapped(foreign), head="net.classifier")
    tuned = compose("adalora").apply(Wrapped(foreign), head="net.classifier", seed=trainer.args.seed, total_steps=STEPS)
    losses = [tuned.step(lambda model, batch: model(**batch)[0], collate.update(k)).item() for k in range(STEPS)]
    assert trainer.losses == pytest.approx(losses, abs=CLOSE)


def test_state_dict_leaves_out_the_base_until_merged(foreign, hugging):
    trainer, _ = hugging("lora(lr=1e-2)")
    model, tuned = trainer.model, trainer.plan.tuned
    state = model.state_dict()
    assert state.keys() == tuned.full_state().keys()
    assert model.load_state_dict(state).missing_keys == []
    del state["classifier.weight"]
    with pytest.raises(RuntimeError, match=r"classifier\.weight"):
        model.load_state_dict(state)
    tuned.merge()
    assert model.state_dict().keys() == foreign.build("text").state_dict().keys()


def test_a_loss_that_cannot_take_terms_and_what_does_not_train_are_said(foreign, hugging):
    trainer, _ = hugging("adalora", train=False)
    trainer.train_dataset = [{"input_ids": item["input_ids"]} for item in items()]
    with pytest.raises(PlanError, match="give it labels"):
        trainer.train()
    assert with_extra_loss((torch.ones(()), 3), 2) == (3, 3)
    model = foreign.build("text")
    model.unused = nn.Linear(2, 2)
    with pytest.warns(
        UserWarning, match=r"2 of \d+ parameters .* in the first 5 updates: unused\.weight, unused\.bias"
    ):
        hugging("full", model=model, head="classifier", max_steps=5)


def test_trainer_shares_the_check(foreign, hugging):
    model = foreign.build("text")
    model.bert.register_forward_hook(
        lambda _, inputs, output: type(output)(**{name: tensor.detach() for name, tensor in output.items()})
    )
    with pytest.raises(SelfCheckError, match=r"'body' was asked to train.*does not reach the loss"):
        hugging("full", model=model)


@pytest.mark.parametrize("text", ["lora(lr=1e-2)", "nf4+lora(lr=1e-2)", SUM + "+lora(lr=1e-2)", "adalora", "loraplus"])
def test_accelerate_trains_as_our_own_loop(foreign, accelerated, text):
    parts = 2 if SUM in text else 1
    ready, losses, collate = accelerated(text, gradient_accumulation_steps=parts)
    tuned, own = ours(text, foreign, collate, 0, parts)
    assert in_updates(losses, parts) == pytest.approx(own, abs=CLOSE)
    assert_same(ready.tuned.full_state(), tuned.full_state())


def test_accelerates_mixed_precision_is_the_plans(foreign, accelerated):
    text = "amp(dtype='bf16')+lora(lr=1e-2)"
    _, losses, collate = accelerated(text, mixed_precision="bf16")
    assert losses == pytest.approx(ours(text, foreign, collate, 0)[1], abs=CLOSE)
    for plan, message in [(text, "mixed_precision='bf16'"), (SUM, "gradient_accumulation_steps=2")]:
        with pytest.raises(PlanError, match=message):
            accelerated(plan)
    with pytest.raises(PlanError, match="dynamo_backend='no'"):
        accelerated("compile(backend='eager')", dynamo_backend="eager")


def test_accelerate_goes_on_from_adapters_and_head_alone(foreign, accelerated, tmp_path):
    whole, losses, _ = accelerated("lora(lr=1e-2)")
    first, _, _ = accelerated("lora(lr=1e-2)", steps=3)
    first.accelerator.save_state(str(tmp_path / "half"))
    assert (tmp_path / "half" / "model.safetensors").stat().st_size < 20_000
    second, rest, _ = accelerated("lora(lr=1e-2)", load_from=str(tmp_path / "half"))
    assert rest == losses[3:]
    assert_same(second.tuned.full_state(), whole.tuned.full_state(), 0)
    second.save(tmp_path / "own")
    assert_same(load(tmp_path / "own", foreign.build("text")).full_state(), whole.tuned.full_state(), 0)


def test_accelerate_evaluates_averages_and_clips_as_told(accelerated, tmp_path):
    ready, _, _ = accelerated(Recipe.of([Lora(lr=1e-2), Ema(decay=0.9)]))
    raw = ready.tuned.full_state()["classifier.weight"].clone()
    with ready.evaluating():
        assert not ready.model.training
        assert not torch.equal(ready.tuned.full_state()["classifier.weight"], raw)
    assert torch.equal(ready.tuned.full_state()["classifier.weight"], raw)
    ready.accelerator.save_model(ready.model, str(tmp_path))
    saved = load_file(tmp_path / "model.safetensors")["classifier.weight"]
    assert not torch.equal(saved, raw)
    assert (ready.max_norm, accelerated("clip(norm=None)+lora")[0].max_norm) == (1.0, None)


def test_loaders_of_the_plan_are_prepared(accelerated):
    ready, _, collate = accelerated(SUM + "+lora", gradient_accumulation_steps=2)
    assert {len(batch["labels"]) for batch in collate.made} == {SIZE // 2}
    with pytest.raises(PlanError, match="2 equal parts"):
        ready.loader(items(), batch_size=7, collate=collate, generator=torch.Generator())
    with pytest.raises(PlanError, match="drop_last=True"):
        ready.loader(items(), batch_size=8, collate=collate, generator=torch.Generator(), drop_last=False)
    uneven = ready.loader(items(54), batch_size=16, collate=Collate(), generator=torch.Generator().manual_seed(0))
    assert [len(batch["labels"]) for batch in uneven] == [8] * 6, "three updates of two parts, as in our own loop"
    plain, _, _ = accelerated("lora", steps=0)
    order = torch.Generator().manual_seed(0)
    rest = plain.loader(items(20), batch_size=8, collate=Collate(), generator=order, drop_last=False)
    assert [len(batch["labels"]) for batch in rest] == [8, 8, 4]
    assert not rest.batch_sampler.drop_last, "Accelerate asks it before it shares batches among processes"


def test_an_order_is_not_lost_without_a_word(accelerated, foreign):
    accelerated("lora", steps=0)
    ready = compose("bucketing+lora").for_accelerate(Accelerator(cpu=True), foreign.build("text"), total_steps=STEPS)
    with pytest.raises(PlanError, match="bucketing: the order of items is part of the plan"):
        ready.model(**Collate()(items(4)))


def test_what_rests_in_several_processes_is_refused(foreign):
    tuned = compose("lisa(n=1, period=1)").apply(foreign.build("text"), total_steps=STEPS)
    hooks = PlanHooks(tuned, [], precision="fp32", processes=2)
    with pytest.raises(PlanError, match="DistributedDataParallel"):
        hooks.begin_update()


def test_a_members_own_order_goes_through_accelerate(foreign, accelerated):
    """`bucketing` sorts by length and cuts padding, also in a prepared loader."""
    words = [{"id": number, "length": 1 + number % 6} for number in range(STEPS * SIZE)]

    def collate_words(chosen):
        lengths = torch.tensor([[item["length"]] for item in chosen])
        return {"length": lengths, "attention_mask": (torch.arange(6) < lengths).long()}

    def padding(text):
        ready = compose(text).for_accelerate(Accelerator(cpu=True), foreign.build("text"), total_steps=STEPS)
        generator = torch.Generator().manual_seed(0)
        loader = ready.loader(words, batch_size=SIZE, collate=collate_words, generator=generator)
        return sum(int((batch["attention_mask"] == 0).sum()) for batch in loader)

    accelerated("lora", steps=0)  # a fresh state of Accelerate
    assert padding("bucketing(multiple=1)+lora") < padding("lora") / 4
