"""The language: order never matters, alias = expansion, text and plan convert both ways, nothing is evaluated."""

import ast
import contextlib
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import PlanError, Recipe, catalogue, compose, parse_plans, recipes
from strategies.language.grammar import Call, parse_call

LORA = st.fixed_dictionaries(
    {},
    optional={
        "r": st.integers(1, 64),
        "alpha": st.integers(1, 64),
        "dropout": st.floats(0, 0.9, allow_subnormal=False),
        "lr": st.floats(1e-6, 1.0, allow_subnormal=False),
        "scope": st.sampled_from(["vision", "text", "a'b", "ü*"]),
        "roles": st.lists(st.sampled_from(["query", "key", "up"]), min_size=1),
    },
)
OTHERS = ["amp", "nf4", "int8(threshold=0)", "checkpointing", "compile", "full", "freeze(last_n=2)", "qlora"]


def written(options):
    return f"lora({', '.join(f'{key}={value!r}' for key, value in options.items())})"


@given(LORA, st.sets(st.sampled_from(OTHERS)), st.randoms())
def test_order_typed_never_matters(options, others, shuffler):
    terms = [written(options), *others]
    shuffled = random.Random(shuffler.random()).sample(terms, len(terms))
    assert compose("+".join(terms)) == compose(" + ".join(shuffled))


@given(LORA, st.sets(st.sampled_from(OTHERS)))
def test_label_gives_the_plan_back(options, others):
    plan = compose("+".join([written(options), *others]))
    assert compose(str(plan)) == plan
    assert compose(str(plan)).canonical() == plan.canonical()


@pytest.mark.parametrize("word", recipes())
def test_alias_is_its_expansion(word):
    assert compose(word) == compose(recipes()[word][0])
    with pytest.raises(PlanError, match="same plan"):
        parse_plans(f"{word}, {recipes()[word][0]}")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("full", "full"),
        ("full(lr=1e-4)", "full"),
        ("full+amp", "amp"),
        ("full(lr=2e-4)", "full(lr=0.0002)"),
        ("amp+lora(r=16)", "lora(r=16)+amp"),
        ("lora(roles=['value','query','query'])", "lora(roles=['query', 'value'])"),
        ("int8(threshold=6)+lora", "int8+lora"),
    ],
)
def test_labels(text, label):
    assert str(compose(text)) == label


def test_defaults_are_in_the_canonical_form():
    assert compose("full").canonical() == [{"name": "full", "lr": 1e-4, "head_lr": 1e-3}]
    assert compose("lora").canonical()[0]["r"] == 8


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no strategy"),
        ("loraa", "unknown strategy 'loraa'; there is: lora"),
        ("lora(rank=8)", "no option 'rank'.*: r,|no option 'rank'; it has: "),
        ("lora(r='x')", "r='x' should be int"),
        ("lora(r=True)", "should be int"),
        ("lora(lr=1e999)", "lr=inf should be"),
        ("lora(r=0)", "1 or more"),
        ("lora(roles=['qurey'])", "list from 'key'|list from 'query'"),
        ("lora(8)", "options by name only"),
        ("lora(**{'r': 8})", r"\*\*"),
        ("lora(r=", "character"),
        ("lora(r=size)", "text in quotes"),
        ("a.b(c=1)", "expected a name"),
        ("lora-amp", "expected a name"),
        ("lora(r=1, r=2)", "repeated"),
        ("qlora(r=4)", r"short for nf4\+lora"),
        ("freeze(last_n=-1)", "0 or more"),
        ("amp(dtype='int4')", "bf16"),
        ("compile(mode='fast')", "one of 'default'"),
        ("lora\x00", "cannot be read"),
        ("(" * 5000, "character"),
        ("()", "empty"),
    ],
)
def test_bad_words_say_what_is_possible(text, words):
    with pytest.raises(PlanError, match=words):
        parse_plans(text)


def test_all_wrong_words_at_once():
    with pytest.raises(PlanError) as caught:
        parse_plans("lroa, amp(x=1), lora(r=-1)")
    assert len(str(caught.value).splitlines()) == 3


def test_caret_points_at_the_place():
    with pytest.raises(PlanError) as caught:
        parse_plans("amp, lora(r=f(1))")
    *_, line, caret = str(caught.value).splitlines()
    assert line[caret.index("^") :].startswith("f(1)")


@settings(max_examples=300)
@given(st.text(max_size=40))
def test_any_text_is_a_plan_or_a_plan_error(text):
    with contextlib.suppress(PlanError):
        assert all(compose(str(named.plan)) == named.plan for named in parse_plans(text))


@pytest.mark.parametrize("code", ["__import__('os').abort()", "(lambda: 1)()", "[x for x in (1,)]", "open('x','w')"])
def test_code_is_never_evaluated(code):
    ast.parse(code)
    with pytest.raises(PlanError):
        parse_plans(f"lora(r={code})")
    with pytest.raises(PlanError):
        parse_plans(code)


def test_a_call_for_tasks():
    assert parse_call("MyTask(size='small', n=-1)") == Call("MyTask", {"size": "small", "n": -1})


def test_planning_needs_no_torch():
    code = (
        "import sys, time; start = time.perf_counter(); import strategies; "
        "strategies.parse_plans('qlora, lora(r=4)+amp')[0].plan.canonical(); took = time.perf_counter() - start; "
        "heavy = {'torch', 'peft', 'transformers', 'bitsandbytes'} & set(sys.modules); print(took, heavy); "
        "sys.exit(bool(heavy) or took > 1.0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_strategy_has_a_card():
    for strategy in catalogue().values():
        text = sys.modules[strategy.__module__].__doc__
        assert text.startswith(f"{strategy.name} — ")
        assert "When not to use" in text.replace("\n", " ")
        assert "https://" in text


def test_a_label_leaves_defaults_out():
    """Also those that are lists: they are kept as tuples and shown as lists."""
    for name, strategy in catalogue().items():
        if name != "peft":
            assert str(Recipe.of([strategy()])) == name
    assert str(compose("bucketing(fields=['a'])")) == "bucketing(fields=['a'])"
