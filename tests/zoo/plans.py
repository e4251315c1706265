"""The plans of the zoo, each with what has to be true of it on any model."""

import dataclasses

QUERY_VALUE = ("query", "value")
LINEAR = ("query", "key", "value", "output", "up", "down")
ROLES = "roles=['query','key','value','output','up','down']"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan.

    `trains`: "all"; "new", which nothing outside the head does; "last", the last block of each stack; "biases";
    "norms"; "some", which is known only in training; or the roles of the layers that get adapters.
    """

    text: str
    kind: str
    trains: str | tuple[str, ...] = "all"
    start: float | None = 1e-4  # how far its outputs may be from the base's before training, relative; None: any
    like: str = ""  # a plan whose losses it has to repeat
    per_example: bool = False  # `like` holds only where an example's output does not depend on its batch
    peft: tuple[str, dict] | None = None  # PEFT's configuration for the same
    rewrites_base: bool = False  # base weights change when it is applied, and outputs do not
    merges: float | None = None  # how far merging may move the outputs, relative; None: it cannot or need not merge
    only: tuple[str, ...] = ()  # names of architectures; empty: all

    @property
    def adapts(self):
        """Say whether it puts adapters into layers."""
        return isinstance(self.trains, tuple)


def adapter(text, trains, *, kind="weights", merges=1e-4, **facts):
    """Give a plan with adapters."""
    return Plan(text=text, kind=kind, trains=trains, merges=merges, **facts)


def lora(**options):
    """Give PEFT's configuration of LoRA at the rank and scale that are the default here."""
    return "LoraConfig", {"r": 8, "lora_alpha": 16, **options}


BF16 = "amp(dtype='bf16')"
ALL_LINEAR = f"lora({ROLES})"
LEAN = f"accumulate(n=2)+{BF16}+checkpointing+{ALL_LINEAR}+nf4"
ROUNDED = 1.0  # the sum is rounded again to 4 or 8 bits, which a tiny model feels
COMPILED = ("bert", "llama", "resnet")
WEIGHTS = (
    Plan(text="full", kind="weights"),
    Plan(text="freeze", kind="weights", trains="new"),
    Plan(text="freeze(last_n=1)", kind="weights", trains="last"),
    Plan(text="bitfit", kind="weights", trains="biases"),
    Plan(text="layernorm", kind="weights", trains="norms"),
    Plan(text="lisa(n=1)", kind="weights", trains="some"),
    Plan(text="progressive_freezing", kind="weights", trains="some"),
    adapter("lora", QUERY_VALUE, peft=lora()),
    adapter(ALL_LINEAR, LINEAR, peft=lora()),
    adapter("rslora(r=4)", QUERY_VALUE, peft=lora(r=4, use_rslora=True)),
    adapter("loraplus", QUERY_VALUE),
    adapter("lorafa", QUERY_VALUE),
    adapter("dora", QUERY_VALUE, peft=lora(use_dora=True)),
    adapter("pissa", QUERY_VALUE, rewrites_base=True),
    adapter("olora", QUERY_VALUE, rewrites_base=True),
    adapter("adalora", LINEAR),
    adapter("ia3", ("key", "value", "down"), peft=("IA3Config", {})),
    adapter("vera(r=8)", QUERY_VALUE),
    adapter("randlora(r=8)", QUERY_VALUE, start=1e-3),
    adapter("oft(oft_block_size=8)", QUERY_VALUE, peft=("OFTConfig", {"oft_block_size": 8})),
    adapter("boft", QUERY_VALUE),
    adapter("hra(r=4)", QUERY_VALUE),
    adapter("loha(r=4)", QUERY_VALUE),
    adapter("lokr(r=4)", QUERY_VALUE),
    adapter("fourierft(n_frequency=64)", QUERY_VALUE, start=None),
    adapter("miss(r=4)", QUERY_VALUE),
    adapter("shira(r=2)", QUERY_VALUE),
    adapter("peft(type='road', options={'group_size': 4})", QUERY_VALUE),
    adapter("houlsby(r=8)", ("output", "down"), merges=None),
    adapter("adaptformer(r=8)", ("up", "down"), merges=None),
)
NUMERICS = (
    Plan(text=BF16, kind="numerics", start=0.1),
    Plan(text="pure_bf16", kind="numerics", start=0.2, rewrites_base=True),
    Plan(text="fp8(emulate=True)", kind="numerics", start=0.5),
    adapter("nf4+lora", QUERY_VALUE, kind="numerics", merges=ROUNDED),
    adapter("fp4+lora", QUERY_VALUE, kind="numerics", merges=ROUNDED),
    adapter("int8+lora", QUERY_VALUE, kind="numerics", merges=ROUNDED),
)
UPDATES = (
    "muon", "galore(r=8)", "apollo(r=8)", "adafactor", "adamw8bit(min_8bit_size=256)", "lion",
    "lion8bit(min_8bit_size=256)", "schedule_free", "schedule(shape='wsd')", "clip(norm=0.5)", "ema", "layer_decay",
    "optimizer_in_backward",
)  # fmt: skip
OTHERS = (
    Plan(text="checkpointing", kind="memory", like="full"),
    adapter(f"checkpointing+{ALL_LINEAR}", LINEAR, kind="memory", like=ALL_LINEAR),
    Plan(text="offload_activations(to='disk')", kind="memory", like="full"),
    Plan(text="attention", kind="speed", like="full"),
    Plan(text="attention(backend='eager')", kind="speed", like="full"),
    Plan(text="compile(backend='aot_eager')", kind="speed", like="full", only=COMPILED),
    Plan(text="accumulate(n=2)", kind="data", like="full", per_example=True),
    *(Plan(text=text, kind="update") for text in UPDATES),
)
TOGETHER = (
    adapter(f"{ALL_LINEAR}+muon", LINEAR, kind="together"),
    adapter(f"ema+{ALL_LINEAR}+schedule(shape='wsd')", LINEAR, kind="together"),
    adapter(LEAN, LINEAR, kind="together", start=None, merges=ROUNDED),
    Plan(text="checkpointing+ema+layernorm", kind="together", trains="norms"),
    Plan(text=f"adafactor+{BF16}+optimizer_in_backward", kind="together", start=0.1),
    Plan(
        text=f"adamw8bit(min_8bit_size=256)+{BF16}+checkpointing+freeze(last_n=1)",
        kind="together",
        trains="last",
        start=0.1,
    ),
)
PLANS: dict[str, Plan] = {plan.text: plan for plan in (*WEIGHTS, *NUMERICS, *OTHERS, *TOGETHER)}
