"""What a task must offer to be benchmarked, and how one is found by its import path.

The suite knows no task by name: `--task "package.module:Class(option='value')"` names any class of this shape.
Structural typing: a task imports nothing from here.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from strategies.language.grammar import Call, parse_call

if TYPE_CHECKING:
    from torch import Tensor, nn

DEFAULT_TASK = "vqa_model.task:VQATask"
Prediction = Mapping[str, Any]


class Task(Protocol):
    """A frozen dataclass whose fields are its options, with these methods.

    Optional: `path_fields`, names of fields that only say where something lies; they never enter a run's identity,
    because `data_fingerprint` and `model_fingerprint` hash what lies there. `controls()`, other tasks by name, run
    as sanity rows. `describe()`, `chosen_images()` and `examples(n)`, written beside the CSVs for the report.
    `submission(predictions)`, the predictions in the form that the data's own evaluation reads, kept as results.json.
    `packages`, modules that its methods import: they are imported before any clock starts.
    `save_model(model, folder, facts)`, a folder from which the model can be used; facts are those of the run.
    """

    default_epochs: float
    default_batch_size: int

    @property
    def dataset_name(self) -> str:
        """Short name for tables."""

    @property
    def model_name(self) -> str:
        """Short name for tables."""

    def prepare(self) -> None:
        """Check, generate and decode data, once per sweep. ValueError: one line saying what, where, what else."""

    def data_fingerprint(self) -> str:
        """Hash of the data's contents."""

    def model_fingerprint(self) -> str:
        """Hash of the model's configuration and starting weights."""

    def build_model(self) -> nn.Module:
        """The model, fp32, on CPU; new parts are drawn from the global random state."""

    def train_set(self) -> Sequence[Mapping[str, Any]]:
        """Items to train on: mappings with `id`, maybe `keys` and `length`.

        `keys: {scope: hashable}` says what of it others share, such as a picture; `length` how long it is (in tokens).
        """

    def tune_set(self) -> Sequence[Mapping[str, Any]]:
        """The only items that may choose anything: rates, early choices, defaults."""

    def eval_set(self) -> Sequence[Mapping[str, Any]]:
        """Items the results are reported on."""

    def collate(self, items: Sequence[Mapping[str, Any]]) -> Mapping[str, Tensor]:
        """Items to one batch of tensors.

        What items with equal keys share may stand in it once, in the order of their first appearance.
        """

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean loss of a batch, 0-dim, or the loss of each item, (items,), of which the mean is taken."""

    def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> list[Prediction]:
        """Per item: `id`, `prediction`, `target` (both labels, as text) and `probability`."""

    def evaluate(self, predictions: Sequence[Prediction]) -> tuple[dict[str, float], dict[Any, float]]:
        """The task's own metrics (0 to 1) and each example's score by id."""


def load_task(text: str, overrides: Mapping[str, Any] | None = None) -> Task:
    """Build the task named by `package.module:Class(option=value)`, options replaced by `overrides`.

    ValueError when the module, the class or an option does not exist; it names those that do.
    """
    module_name, _, call_text = text.partition(":")
    if not call_text:
        raise ValueError(f"--task {text!r}: expected 'package.module:Class' or 'package.module:Class(option=value)'")
    call = parse_call(call_text)
    task_class = _task_class(module_name, call)
    names = [f.name for f in dataclasses.fields(task_class)]
    options = {**call.arguments, **(overrides or {})}
    if unknown := [name for name in options if name not in names]:
        raise ValueError(f"{call.name} has no option {', '.join(unknown)}; it has: {', '.join(names) or 'none'}")
    return cast("Task", task_class(**options))


def _task_class(module_name: str, call: Call) -> Any:
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            raise  # the task's own import is missing: say which
        raise ValueError(
            f"--task: no module {module_name!r} on the Python path (run from the folder that has it)"
        ) from error
    task_class = getattr(module, call.name, None)
    if not dataclasses.is_dataclass(task_class):
        found = [
            name
            for name, value in vars(module).items()
            if dataclasses.is_dataclass(value) and hasattr(value, "build_model")
        ]
        raise ValueError(f"--task: {module_name} has no task class {call.name!r}; it has: {', '.join(found) or 'none'}")
    return task_class


def task_text(task: Task) -> str:
    """The text that `load_task` reads back to an equal task; options at their defaults are left out."""
    described = [f"{name}={value!r}" for name, value in _options(task, lambda f, value: value != f.default).items()]
    return f"{task_path(task)}({', '.join(described)})"


def changed_options(task: Task) -> dict[str, Any]:
    """The options that decide the result and are not at their defaults."""
    identity = identity_options(task)
    return _options(task, lambda f, value: f.name in identity and value != f.default)


def task_path(task: Task) -> str:
    """Import path of the task's class."""
    return f"{type(task).__module__}:{type(task).__qualname__}"


def identity_options(task: Task) -> dict[str, Any]:
    """The options that decide the result: all but those that only say where something lies."""
    path_fields = getattr(task, "path_fields", ())
    return _options(task, lambda f, _: f.name not in path_fields)


def _options(task: Task, keep: Callable[[dataclasses.Field[Any], Any], bool]) -> dict[str, Any]:
    values = {f: getattr(task, f.name) for f in dataclasses.fields(cast("Any", task))}
    return {f.name: value for f, value in values.items() if keep(f, value)}
