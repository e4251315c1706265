"""Pairs that do not work together, each seen to fail, each with its reason and where it is discussed.

Keep this short: what follows from slots and capabilities does not belong here. Every row has a test that expects
the failure, strictly: when an upstream release fixes it, that test fails and the row goes.
"""

from __future__ import annotations

from typing import NamedTuple


class Conflict(NamedTuple):
    """Two strategies by name (not order), why they fail together, and the upstream thread."""

    one: str
    other: str
    reason: str
    link: str


CONFLICTS: tuple[Conflict, ...] = ()
