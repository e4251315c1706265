"""Imports transformers without what torchao logs on the way, which no reader can act on.

Where torchao is installed, transformers imports it, and it tells of kernels that this machine lacks and nothing here
uses. Only what the table names is left out, and only inside the block: other messages and errors are shown as before.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# Who logs it, and a part of its text: torchao's kernels for other GPUs; a hint to torchao's authors about their enums.
USELESS: Final = {
    "torchao": "Failed to load /",
    "torch.utils._pytree": "is an Enum subclass and is now natively",
}


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Leave out the messages of `USELESS` as long as the block runs."""
    loggers = {logging.getLogger(name) for name in USELESS}

    def is_news(record: logging.LogRecord) -> bool:
        return USELESS[record.name] not in str(record.msg)

    for logger in loggers:
        logger.addFilter(is_news)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_news)
