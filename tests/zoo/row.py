"""A row of the zoo: an architecture with its tiny configuration, and what a reader of its paper expects of it.

What stands in a row comes from papers and from the modeling files of the libraries, never from what TuneMatrix did:
which parameters are new, which layers play which role, how many norms and biases there are, which block is the last.
"""

import dataclasses
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import torch
import transformers
from torch import nn

ROLES = ("query", "key", "value", "output", "up", "down")
PASSES = 30  # after which a batch norm knows its inputs
INPUTS = ("pixel_values", "past_values", "input_values")
NOISE = 0.1  # added to each weight of a "pretrained" model: nothing is left at zero or one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layers:
    """The layers of the pretrained part by role: endings of names (globs), a number behind a colon says how many.

    Without a number they are as many as `attentions` or `feed_forwards`. A fused projection stands in three roles.
    `alone`: layers with none of these roles; adapters that ask for all roles, or for one that is not there, go on them.
    `others`: further layers, which nobody wants to adapt or minds adapted.
    """

    query: str = ""
    key: str = ""
    value: str = ""
    output: str = ""
    up: str = ""
    down: str = ""
    alone: str = ""
    others: str = ""
    attentions: int = 2
    feed_forwards: int = 2

    def endings(self, role):
        """Give (ending, how many) of a role."""
        usual = self.feed_forwards if role in ("up", "down") else self.attentions
        for ending in getattr(self, role).split():
            name, _, number = ending.partition(":")
            yield name, int(number or usual)

    def named(self, names, role):
        """Give those of `names` that have a role."""
        return {name for name in names for ending, _ in self.endings(role) if ends(name, ending)}

    def every(self, names):
        """Give the names with any role, and those that stand alone."""
        return set().union(*(self.named(names, role) for role in (*ROLES, "alone")))

    def chosen(self, names, roles):
        """Give the names with one of `roles`; where none has, or every role is asked for, all."""
        some = set().union(*(self.named(names, role) for role in roles))
        return self.every(names) if set(roles) == set(ROLES) else some or self.every(names)

    def miscounted(self, names):
        """Give the endings that are not as many as the row says."""
        for role in (*ROLES, "alone"):
            for ending, number in self.endings(role):
                found = sum(ends(name, ending) for name in names)
                if found != number:
                    yield f"{role}: {ending} is there {found} times, not {number}"


def ends(name, ending):
    """Say whether a name ends so, at a dot."""
    return fnmatchcase(name, ending) or fnmatchcase(name, f"*.{ending}")


def fused(name, output, up, down, **numbers):
    """Give layers with one projection for query, key and value."""
    return Layers(query=name, key=name, value=name, output=output, up=up, down=down, **numbers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """An architecture.

    `base` is what was pretrained and saved, `task` what a user loads from it; without a base it is the same class, and
    nothing is new. A model of plain torch has `make` in their place, and a state dict without its new parts. `around`
    makes a user's own module around the base that is loaded.
    """

    name: str
    family: str
    data: Callable  # (generator, padded) -> batch
    task: str = ""
    base: str = ""
    config: dict = dataclasses.field(default_factory=dict)
    options: dict = dataclasses.field(default_factory=dict)  # of `task.from_pretrained`
    make: Callable[[], nn.Module] | None = None
    around: Callable[[nn.Module], nn.Module] | None = None
    new: tuple[str, ...] = ()  # modules or parameters that the saved base lacks
    layers: Layers = Layers()
    norms: int | None = None  # tensors of the pretrained part's normalisation layers; None: too many to count
    biases: tuple[int, ...] = ()  # its bias vectors; several where "what is a bias" has several answers
    last: tuple[str, ...] = ()  # the last block of each stack
    both_last: bool = False  # stacks are towers of their own: `last_n=1` is one block in each
    head: object = "auto"
    tied: str = ""  # the parameter that the output embedding shares
    random: bool = False  # two passes in training differ
    batch_norm: bool = False  # an example's output depends on the others of its batch
    routed: bool = False  # a small change can send a word to another expert
    half: bool = False  # loaded in 16 bits
    padded: bool = True  # batches can be padded

    def pretrain(self, folder: Path):
        """Save the pretrained base."""
        torch.manual_seed(0)
        if self.make:
            model = self.make()
        else:
            kind = getattr(transformers, self.base or self.task)
            model = kind(kind.config_class(**self.config))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(NOISE * torch.randn(parameter.shape))
            for part in model.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.weight.add_(part.weight.abs().mean() < NOISE)  # some begin at zero
            if self.batch_norm and not self.make:  # statistics that fit the weights
                batch = self.batch(0, padded=False)
                for _ in range(PASSES):
                    model.train()(**{name: batch[name] for name in INPUTS if name in batch})
        if self.make:
            state = {name: value for name, value in model.state_dict().items() if not self.is_new(name)}
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(state, folder / "state.pt")
        else:
            model.save_pretrained(folder)

    def load(self, folder: Path, seed: int):
        """Build the model with the pretrained weights; its new parts are drawn from `seed`."""
        torch.manual_seed(seed)
        if not self.make:
            model = getattr(transformers, self.task or self.base).from_pretrained(folder, **self.options)
            return self.around(model) if self.around else model
        model = self.make()
        missing, unexpected = model.load_state_dict(torch.load(folder / "state.pt"), strict=False)
        assert all(map(self.is_new, missing)), missing
        assert not unexpected
        return model

    def lacking(self, folder: Path):
        """Name the parameters that the saved base lacks, as the library that loads it says."""
        if self.around:
            return {name for name in dict(self.load(folder, 0).named_parameters()) if not name.startswith("base.")}
        if not self.make:
            kind = getattr(transformers, self.task)
            return set(kind.from_pretrained(folder, output_loading_info=True, **self.options)[1]["missing_keys"])
        return set(dict(self.make().named_parameters())) - set(torch.load(folder / "state.pt"))

    @property
    def is_plain(self):
        """Say whether the user's own code calls the model and gives scores."""
        return bool(self.make or self.around)

    def is_new(self, name):
        """Say whether a parameter is new."""
        return any(name == new or name.startswith(f"{new}.") for new in self.new)

    def batch(self, seed, *, padded):
        """Make a batch."""
        return self.data(torch.Generator().manual_seed(seed), padded)

    def loss(self, model, batch):
        """Give the mean loss of a batch, as a user computes it."""
        if not self.is_plain:
            return model(**batch).loss
        scores = model(*batch["inputs"])
        return nn.functional.cross_entropy(scores.float(), batch["labels"])

    def outputs(self, model, batch):
        """Give every number that the model puts out for a batch, in one vector."""
        if not self.is_plain:
            found = model(**batch)
            parts = [part for part in found.values() if isinstance(part, torch.Tensor) and part.is_floating_point()]
        else:
            parts = [model(*batch["inputs"])]
        return torch.cat([part.detach().float().flatten() for part in parts])

    def applying(self):
        """Give the arguments of `Recipe.apply` that a user would give."""
        return {} if self.head == "auto" else {"head": self.head}


def is_conv1d(layer):
    """Say whether a layer is GPT-2's linear layer, whose weight is transposed."""
    return type(layer).__name__ == "Conv1D"


def linear_names(model):
    """Name what an adapter could sit on: linear layers and two-dimensional convolutions."""
    return [name for name, part in model.named_modules() if isinstance(part, nn.Linear | nn.Conv2d) or is_conv1d(part)]


def plain_name(name):
    """Give the name that a parameter of an adapted layer had before."""
    return re.sub(r"\.base_layer\b", "", name)
