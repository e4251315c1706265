"""Every entry of what is asked for must match; what cannot have an adapter is left or refused; both are said."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from strategies import compose
from strategies.errors import PlanError
from strategies.protocol import Context
from strategies.structure.adapters import chosen_layers
from strategies.structure.find_layout import find_layout
from strategies.structure.roles import ALL_LINEAR, EVERY_ROLE
from strategies.training.adapted import compact


def choose(model, scope=None, default=("query", "value"), head="auto", **asked):
    """Give the layers that options would choose, and the notes."""
    context = Context(find_layout(model, head), torch.device("cpu"))
    options = {"name": "lora", "scope": scope, "roles": None, "target_modules": None, **asked}
    chosen = chosen_layers(SimpleNamespace(**options), model, context, default, convolutions=False)
    return [name for names in chosen.values() for name in names], context.notes["lora"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"target_modules": ("query", "valeu")}, r"'valeu', which matches none of the linear layers; there is: value"),
        ({"target_modules": ("self.quer",)}, r"there is: self.query"),
        ({"target_modules": ("re:.*qeury",)}, r"'re:.\*qeury', which matches none"),
        ({"target_modules": ("re:(",)}, r"'re:\(', which is no regular expression"),
        ({"target_modules": ("intermediate",)}, r"is a BertIntermediate, none of.*name the layers in it: dense"),
        ({"target_modules": ("word_embeddings",)}, r"is a Embedding, none of the linear layers"),
        ({"target_modules": ("word_embeddings.weight",)}, r"is a parameter of shape \(40, 32\)"),
        ({"target_modules": ("query", "classifier")}, r"'classifier' lies outside the scope"),
        ({"target_modules": ("all-linear", "query")}, r"'all-linear' beside others"),
        ({"target_modules": ("query",), "roles": ("key",)}, r"give one of them"),
        ({"exclude_modules": ("quer",)}, r"exclude_modules has 'quer', which matches nothing; there is: query"),
        ({"layers_to_transform": (0, 2)}, r"layers_to_transform has 2; there are blocks 0 to 1"),
        (
            {"target_modules": ("query",), "exclude_modules": ("encoder",)},
            r"with exclude_modules=\['encoder'\] matches",
        ),
    ],
)
def test_an_entry_that_matches_nothing_is_named(asked, words, foreign):
    with pytest.raises(PlanError, match=words):
        choose(foreign.build("text"), **asked)


def test_a_role_that_no_layer_has_is_named():
    model = nn.Sequential(nn.ModuleDict({"q_proj": nn.Linear(4, 4), "v_proj": nn.Linear(4, 4)}), nn.Linear(4, 2))
    with pytest.raises(PlanError, match=r"no layer to adapt as 'up': roles found are \['query', 'value'\]"):
        choose(model, roles=("query", "up"))


@pytest.mark.parametrize(
    ("asked", "endings"),
    [
        ({"target_modules": ("query", "output.dense")}, "query attention.output.dense output.dense"),
        ({"target_modules": (r"re:.*\.layer\.1\..*(query|key)",)}, "1.attention.self.query 1.attention.self.key"),
        ({"exclude_modules": ("query",)}, "value"),
        ({"exclude_modules": (r"re:.*layer\.0.*",)}, "1.attention.self.query 1.attention.self.value"),
        ({"layers_to_transform": (1,)}, "1.attention.self.query 1.attention.self.value"),
        (
            {"default": ("all-linear",), "exclude_modules": ("attention",)},
            "intermediate.dense 0.output.dense 1.output.dense",
        ),
        ({"target_modules": ("all-linear",), "layers_to_transform": (0,), "exclude_modules": ("self", "dense")}, ""),
    ],
)
def test_names_expressions_exclusions_and_blocks(asked, endings, foreign):
    model = foreign.build("text")
    linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and name.startswith("bert.e")]
    expected = [name for name in linear if any(name.endswith("." + ending) for ending in endings.split())]
    if not expected:
        with pytest.raises(PlanError, match="no layer to adapt"):
            choose(model, **asked)
        return
    assert choose(model, **asked)[0] == expected


def test_every_role_means_every_linear_layer(foreign):
    names = [name for name in choose(foreign.build("text"), default=ALL_LINEAR)[0] if "pooler" not in name]
    assert choose(foreign.build("text"), roles=EVERY_ROLE)[0] == names
    assert choose(Model(), roles=EVERY_ROLE)[0] == choose(Model(), default=ALL_LINEAR)[0]


def test_an_entry_need_not_match_in_every_tower_but_each_needs_an_adapter(foreign):
    names, _ = choose(foreign.build("two"), target_modules=("q_proj", "query"))
    assert len(names) == 4
    with pytest.raises(PlanError, match="no layer to adapt in 'text'"):
        choose(foreign.build("two"), target_modules=("q_proj",))


class Scaled(nn.Linear):
    """A linear layer of somebody's own that computes as it likes, with the right shape."""

    def forward(self, x):
        return 2 * nn.functional.linear(x, self.weight, self.bias)


class Router(nn.Linear):
    """A linear layer that gives two things."""

    def forward(self, x):
        scores = super().forward(x)
        return scores, scores.argmax(-1)


class Block(nn.Module):
    """A block with attention, a router and experts in one parameter."""

    def __init__(self):
        super().__init__()
        self.q_proj, self.v_proj, self.o_proj = Scaled(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.router, self.norm = Router(8, 2), nn.LayerNorm(8)
        self.experts = nn.Parameter(torch.randn(2, 8, 8) / 8)

    def forward(self, x):
        x = self.norm(x + self.o_proj(self.q_proj(x) * self.v_proj(x)))
        scores, _ = self.router(x)
        return x + torch.einsum("bd,edf,be->bf", x, self.experts, scores.softmax(-1))


class Model(nn.Module):
    """Two blocks, a layer that stands in two places, and a head."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.shared = nn.Linear(8, 8)
        self.again = nn.Sequential(self.shared, nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(self.again(self.shared(x)))


def test_subclasses_are_adapted_where_they_are_linear_and_left_where_they_are_not():
    torch.manual_seed(0)
    names, notes = choose(Model(), default=ALL_LINEAR)
    assert names == [f"blocks.{number}.{layer}" for number in (0, 1) for layer in ("q_proj", "v_proj", "o_proj")]
    assert notes["blocks.0.router"] == "not adapted: it is a Router, whose forward does not make (…, 2) of (…, 8)"
    assert notes["blocks.1.experts"] == "not adapted: it is a parameter of Block, no layer"
    assert "stands in several places" in notes["shared"]
    for name in ("router", "shared", "blocks.1.experts"):
        with pytest.raises(PlanError, match=r"cannot have an adapter: it|is a parameter of shape \(2, 8, 8\)"):
            choose(Model(), target_modules=(name,))


def test_a_feed_forward_part_without_names_is_scaled_at_its_second_layers_input():
    parts = [nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8)) for _ in range(2)]
    model = nn.Sequential(nn.ModuleDict({"blocks": nn.Sequential(*parts)}), nn.Linear(8, 3))
    tuned = compose("ia3").apply(model)
    assert list(tuned.adapted_layers()) == ["0.blocks.0.3", "0.blocks.1.3"]
    assert model.get_submodule("0.blocks.1.3").ia3_l["default"].shape == (1, 32)


def test_the_description_tells_what_was_adapted_and_what_was_not():
    torch.manual_seed(0)
    tuned = compose("lora(r=2)").apply(Model())
    text = tuned.describe()
    assert "  adapters   2 Scaled → lora: blocks 0–1 × (q_proj)" in text
    assert "  adapters   2 Linear → lora: blocks 0–1 × (v_proj)" in text
    assert "  note       blocks 0–1 × (experts) (256 values): not adapted: it is a parameter of Block, no layer" in text
    assert "outside" not in text
    assert tuned.adapted_layers() == {
        f"blocks.{number}.{name}": f"{kind} → lora"
        for number in (0, 1)
        for name, kind in (("q_proj", "Scaled"), ("v_proj", "Linear"))
    }
    x, y = torch.randn(6, 8), torch.arange(6) % 3
    start = {name: p.detach().clone() for name, p in tuned.model.named_parameters()}
    for _ in range(2):
        tuned.step(lambda model, batch: nn.functional.cross_entropy(model(batch["x"]), batch["y"]), {"x": x, "y": y})
    moved = {name for name, p in tuned.model.named_parameters() if not torch.equal(p, start[name])}
    assert moved == set(tuned.trained)


def test_a_block_that_is_used_several_times_is_adapted_once_for_all():
    class Repeated(nn.Module):
        def __init__(self):
            super().__init__()
            block = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
            self.blocks, self.head = nn.ModuleList([block, block]), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.blocks[1](self.blocks[0](x)))

    tuned = compose("lora(r=2)").apply(Repeated())
    assert list(tuned.adapted_layers()) == ["blocks.0.0"]
    assert tuned.model.blocks[1][0] is tuned.model.blocks[0][0]


def test_parameters_outside_the_plan_are_named():
    text = compose("lora(scope='blocks.1', r=2)").apply(Model()).describe()
    assert "parameters in no scope of the plan train: blocks 0 × (experts, q_proj.weight" in text
    assert compose("freeze").apply(Model()).adapted_layers() == {}


def test_quantised_layers_say_so(foreign):
    tuned = compose("nf4+lora").apply(foreign.build("two"))
    assert set(tuned.adapted_layers().values()) == {"Linear4bit → lora"}


def test_names_are_written_shortly():
    blocks = [f"h.{number}" for number in (0, 1, 2, 4)]
    names = [f"h.{number}.{layer}" for number in (0, 1, 2, 4) for layer in ("q", "v")] + ["h.4.w", "pool"]
    assert compact(names, blocks) == ["h 0–2 × (q, v)", "h 4 × (q, v, w)", "pool"]
    assert compact([f"a.{e}.w1" for e in (*range(8), 9)], []) == ["a.0–7,9.w1"]
    assert compact([f"x{n}" for n in range(12)], []) == [*(f"x{n}" for n in range(8)), "… 4 more"]


def test_a_lone_attention_beside_blocks_belongs_to_all_linear_layers():
    def residual():
        return nn.ModuleDict({"norm": nn.LayerNorm(4), "conv": nn.Conv2d(4, 4, 3), "time": nn.Linear(4, 4)})

    class Unet(nn.Module):
        def __init__(self):
            super().__init__()
            self.time_embed = nn.Linear(4, 4)
            self.middle = nn.ModuleList(residual() for _ in range(2))
            self.attn = nn.ModuleDict({"to_q": nn.Linear(4, 4), "to_kv": nn.Linear(4, 8), "proj": nn.Linear(4, 4)})

    names, notes = choose(Unet(), head=None, target_modules=ALL_LINEAR)
    assert names == ["middle.0.time", "middle.1.time", "attn.to_q", "attn.to_kv", "attn.proj"]
    assert notes["time_embed"].endswith("it lies outside the repeated blocks")
