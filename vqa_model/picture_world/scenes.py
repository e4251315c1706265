"""The picture world: small scenes of coloured shapes, in pairs that differ by a few edits.

A benchmark that needs a 25 GB download is one that nobody runs. This world is generated in
seconds, yet it is a real fine-tuning problem: objects vary in colour, shape, size and place,
colours are jittered and backgrounds shaded, and shapes have favourite colours, so that language
carries a prior. Scenes come in *similar pairs*, on which `world_questions` asks questions whose
answers differ: that is VQA v2's balancing. Every number is in `Settings`, frozen by a test.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Iterator

COLORS = {
    "red": (215, 45, 40),
    "green": (45, 165, 60),
    "blue": (50, 80, 215),
    "yellow": (228, 205, 50),
    "purple": (145, 60, 185),
    "orange": (240, 135, 30),
}
SHAPES = ("circle", "square", "triangle", "cross", "star")
SIZES = {"small": 4.0, "large": 6.5}
GRID = 3
CELL_PIXELS = 16
PICTURE_PIXELS = GRID * CELL_PIXELS
_STAR = (
    (0, -1),
    (0.3, -0.3),
    (1, -0.3),
    (0.45, 0.2),
    (0.7, 1),
    (0, 0.5),
    (-0.7, 1),
    (-0.45, 0.2),
    (-1, -0.3),
    (-0.3, -0.3),
)
_CROSS = ((-0.35, -1), (0.35, -1), (0.35, -0.35), (1, -0.35), (1, 0.35), (0.35, 0.35))
_OUTLINES = {
    "triangle": ((0, -1), (-1, 1), (1, 1)),
    "cross": (*_CROSS, *((-x, -y) for x, y in _CROSS)),
    "star": _STAR,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides what is generated; frozen by a golden hash in the tests."""

    seed: int = 2026
    train_pairs: int = 1800
    val_pairs: int = 200
    draws: tuple[int, int] = (4, 8)  # questions drawn per pair; some draws find none to ask
    objects: tuple[int, int] = (2, 4)  # per picture, both ends included
    edits: tuple[int, int] = (3, 5)  # between the pictures of a pair
    repeated_shape: float = 0.4  # chance that a thing may wear a shape that is there already
    favourite_color: float = 0.25  # chance that a shape wears its favourite colour
    disagreement: float = 0.35  # share of questions on which annotators differ
    color_jitter: int = 22  # of 255, per channel
    place_jitter: int = 2  # pixels
    jpeg_quality: int = 92


@dataclass(frozen=True)
class Thing:
    """One object: `cell` counts the 3 × 3 grid row by row."""

    color: str
    shape: str
    size: str
    cell: int

    @property
    def column(self) -> int:
        """Column of the grid, 0 at the left."""
        return self.cell % GRID

    @property
    def row(self) -> int:
        """Row of the grid, 0 at the top."""
        return self.cell // GRID


Scene = tuple[Thing, ...]


def _thing(rng: random.Random, settings: Settings, cell: int, others: Scene) -> Thing:
    taken = {thing.shape for thing in others} if rng.random() > settings.repeated_shape else set()
    shape = rng.choice([shape for shape in SHAPES if shape not in taken])
    colors = list(COLORS)
    favourite = colors[SHAPES.index(shape)]
    color = favourite if rng.random() < settings.favourite_color else rng.choice(colors)
    return Thing(color, shape, rng.choice(list(SIZES)), cell)


def make_scene(rng: random.Random, settings: Settings) -> Scene:
    """Draw one scene: some objects in distinct cells."""
    cells = rng.sample(range(GRID * GRID), rng.randint(*settings.objects))
    scene: Scene = ()
    for cell in sorted(cells):
        scene = (*scene, _thing(rng, settings, cell, scene))
    return scene


def edit_scene(rng: random.Random, settings: Settings, scene: Scene) -> Scene:
    """Change one thing about a scene: a look, a place, or one object more or less."""
    things, index = list(scene), rng.randrange(len(scene))
    old, (low, high) = scene[index], settings.objects
    free = [cell for cell in range(GRID * GRID) if cell not in {thing.cell for thing in scene}]
    edits = ["color"] * 4 + ["shape"] * 4 + ["size", "cell", "swap"]
    edits += ["add"] * (len(scene) < high) + ["remove"] * (len(scene) > low)
    edit, new = rng.choice(edits), _thing(rng, settings, rng.choice(free), scene)
    if edit == "add":
        things.append(new)
    elif edit == "remove":
        del things[index]
    elif edit == "swap":
        other = (index + 1) % len(scene)
        things[index], things[other] = replace(old, cell=scene[other].cell), replace(scene[other], cell=old.cell)
    else:
        things[index] = replace(old, **{edit: getattr(new, edit)})
    return tuple(sorted(things, key=lambda thing: thing.cell))


def scene_pairs(settings: Settings, seed: int, num_pairs: int) -> Iterator[tuple[Scene, Scene]]:
    """Yield pairs of similar scenes, a few edits apart; a pair depends on (seed, place) only."""
    for number in range(num_pairs):
        rng = random.Random(f"{seed}/{number}")
        first = second = make_scene(rng, settings)
        for _ in range(rng.randint(*settings.edits)):
            second = edit_scene(rng, settings, second)
        yield (first, second) if rng.random() < 0.5 else (second, first)  # noqa: PLR2004 -- a fair coin


def draw(scene: Scene, settings: Settings, rng: random.Random) -> Image.Image:
    """Paint a scene as an RGB picture of 48 × 48 pixels on a softly shaded background."""
    base, tilt = rng.randint(165, 240), rng.uniform(-0.5, 0.5)
    picture = Image.new("RGB", (PICTURE_PIXELS, PICTURE_PIXELS))
    brush = ImageDraw.Draw(picture)
    for y in range(PICTURE_PIXELS):
        shade = round(base + tilt * (y - PICTURE_PIXELS / 2))
        brush.line((0, y, PICTURE_PIXELS, y), fill=(shade, shade, shade))
    for thing in scene:
        x = thing.column * CELL_PIXELS + CELL_PIXELS // 2 + rng.randint(-settings.place_jitter, settings.place_jitter)
        y = thing.row * CELL_PIXELS + CELL_PIXELS // 2 + rng.randint(-settings.place_jitter, settings.place_jitter)
        radius = SIZES[thing.size]
        jitter = settings.color_jitter
        fill = tuple(min(255, max(0, part + rng.randint(-jitter, jitter))) for part in COLORS[thing.color])
        box = (x - radius, y - radius, x + radius, y + radius)
        if thing.shape == "circle":
            brush.ellipse(box, fill=fill)
        elif thing.shape == "square":
            brush.rectangle(box, fill=fill)
        else:
            brush.polygon([(x + radius * dx, y + radius * dy) for dx, dy in _OUTLINES[thing.shape]], fill=fill)
    return picture
