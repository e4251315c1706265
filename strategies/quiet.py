"""What packages log that no reader can act on, left out by logger and wording while `quiet()` lasts.

Where torchao, bitsandbytes or DeepSpeed are installed, peft and transformers import them, and they tell of kernels and
devices that this machine lacks and nothing here uses. Only what the table names is left out: every other message, and
every error, is shown as before. Nothing is changed by importing this module, and nothing stays after the block.
"""

from __future__ import annotations

import importlib
import logging
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Message(NamedTuple):
    """A message of a package: who logs it, how it goes (a part of its text), and why nobody can act on it."""

    logger: str
    part: str
    why: str


USELESS: Final = (
    Message("torchao", "Failed to load /", "its kernels for other GPUs; `fp8` and `pure_bf16` use torch's own"),
    Message("torch.utils._pytree", "is an Enum subclass and is now natively", "for torchao's authors, at its import"),
    Message("bitsandbytes.backends.cpu.ops", "Failed to load CPU gemm_4bit_forward", "layers here never call it"),
    Message("torch._subclasses.fake_tensor", "failed while attempting to run meta", "a prediction tells it in a line"),
    Message("DeepSpeed", "Setting accelerator to CPU. If you have", "a run's device is chosen, and said, before"),
)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out the messages of `USELESS` as long as the block runs."""
    with ExitStack() as stack:
        for message in USELESS:
            stack.enter_context(_left_out(message))
        yield


@contextmanager
def _left_out(message: Message) -> Iterator[None]:
    """Keep one message from its logger."""
    logger = logging.getLogger(message.logger)

    def is_news(record: logging.LogRecord) -> bool:
        return message.part not in str(record.msg)

    logger.addFilter(is_news)
    try:
        yield
    finally:
        logger.removeFilter(is_news)


def import_packages(owners: Iterable[object]) -> None:
    """Import what strategies (or tasks) list as their `packages` without the messages of `USELESS`.

    ImportError where one is missing.
    """
    with quiet():
        for name in {package for owner in owners for package in getattr(owner, "packages", ())}:
            importlib.import_module(name)
