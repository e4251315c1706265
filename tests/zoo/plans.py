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


def update(text, **facts):
    """Give a plan that only changes how everything is updated."""
    return Plan(text=text, kind="update", **facts)


LORA = ("LoraConfig", {"r": 8, "lora_alpha": 16})
DORA = ("LoraConfig", {"r": 8, "lora_alpha": 16, "use_dora": True})
ROUNDED = 1.0  # the sum is rounded again to 4 or 8 bits, which a tiny model feels
COMPILED = ("bert", "llama", "resnet")
PLANS: dict[str, Plan] = {
    plan.text: plan
    for plan in (
        Plan(text="full", kind="weights"),
        Plan(text="freeze", kind="weights", trains="new"),
        Plan(text="freeze(last_n=1)", kind="weights", trains="last"),
        Plan(text="bitfit", kind="weights", trains="biases"),
        Plan(text="layernorm", kind="weights", trains="norms"),
        Plan(text="lisa(n=1)", kind="weights", trains="some"),
        adapter("lora", QUERY_VALUE, peft=LORA),
        adapter(f"lora({ROLES})", LINEAR, peft=LORA),
        adapter("dora", QUERY_VALUE, peft=DORA),
        adapter("pissa", QUERY_VALUE, rewrites_base=True),
        adapter("adalora", LINEAR),
        adapter("ia3", ("key", "value", "down"), peft=("IA3Config", {})),
        adapter("vera(r=8)", QUERY_VALUE),
        adapter("oft(oft_block_size=8)", QUERY_VALUE, peft=("OFTConfig", {"oft_block_size": 8})),
        adapter("lokr(r=4)", QUERY_VALUE),
        adapter("houlsby(r=8)", ("output", "down"), merges=None),
        adapter("adaptformer(r=8)", ("up", "down"), merges=None),
        Plan(text="amp(dtype='bf16')", kind="numerics", start=0.1),
        Plan(text="pure_bf16", kind="numerics", start=0.2, rewrites_base=True),
        adapter("nf4+lora", QUERY_VALUE, kind="numerics", merges=ROUNDED),
        adapter("int8+lora", QUERY_VALUE, kind="numerics", merges=ROUNDED),
        Plan(text="checkpointing", kind="memory", like="full"),
        adapter(f"checkpointing+lora({ROLES})", LINEAR, kind="memory", like=f"lora({ROLES})"),
        Plan(text="offload_activations(to='disk')", kind="memory", like="full"),
        Plan(text="attention", kind="speed", like="full"),
        Plan(text="compile(backend='aot_eager')", kind="speed", like="full", only=COMPILED),
        update("muon"),
        update("galore(r=8)"),
        update("adafactor"),
        update("lion8bit(min_8bit_size=256)"),
        update("schedule_free"),
        update("ema"),
        update("layer_decay"),
        update("optimizer_in_backward"),
        Plan(text="accumulate(n=2)", kind="data", like="full", per_example=True),
        adapter(f"lora({ROLES})+muon", LINEAR, kind="together"),
        adapter(
            f"accumulate(n=2)+amp(dtype='bf16')+checkpointing+lora({ROLES})+nf4", LINEAR, kind="together",
            start=None, merges=ROUNDED,
        ),
        Plan(text="checkpointing+ema+layernorm", kind="together", trains="norms"),
    )
}  # fmt: skip
