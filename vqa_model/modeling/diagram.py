"""The model as a picture, drawn from its configuration: boxes and arrows as data, written as SVG and as TikZ.

Both writers place the same boxes on the same grid, two columns that meet in the fusion, which fits a text column. The
SVG has no background and says every colour, so it reads in light and in dark; the TikZ picture is 3.4 inches wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqa_model.modeling.vqa import VQAConfig

COLORS: Final = {"input": "#e8e8e8", "vision": "#cfe2f3", "text": "#fde2c4", "joint": "#d5ead0"}  # fill by kind
FUSION_LABELS: Final = {
    "concat": "joined pooled vectors",
    "hadamard": "product of pooled vectors",
    "guided_attention": "question chooses patches, then product",
    "cross_attention": "words query patches",
    "co_attention": "words and patches query each other",
}


@dataclass(frozen=True)
class Box:
    """A box on the grid: column 0 or 1, or None across both; its first line is its title."""

    name: str
    lines: tuple[str, ...]
    kind: str
    row: int
    column: int | None = None


@dataclass(frozen=True)
class Diagram:
    """Boxes from the inputs down to the answers, and arrows as pairs of names."""

    boxes: tuple[Box, ...]
    arrows: tuple[tuple[str, str], ...]


def millions(number: int) -> str:
    """Write a number of parameters as people say it."""
    return f"{number / 1e6:.1f} M parameters" if number >= 1e5 else f"{number / 1e3:.1f} k parameters"  # noqa: PLR2004 -- 0.1 M and more


def draw(config: VQAConfig, parameters: Mapping[str, int]) -> Diagram:
    """Lay out a model. parameters: of the parts vision, text, fusion and head."""
    vision, text = config.vision_config, config.text_config
    size, patch = _edge(vision.image_size), _edge(vision.patch_size)
    layers = f", {config.fusion_layers} layers" if config.fusion in {"cross_attention", "co_attention"} else ""
    name = config.fusion.replace("_", " ")
    boxes = (
        Box("picture", ("Picture", f"{size} × {size} × 3"), "input", 0, 0),
        Box("question", ("Question", f"at most {text.max_position_embeddings} pieces"), "input", 0, 1),
        Box("patches", ("Patches", f"{(size // patch) ** 2} of {patch} × {patch}"), "vision", 1, 0),
        Box("words", ("Word pieces", f"{text.vocab_size:,} known"), "text", 1, 1),
        Box("vision", (vision.model_type, *_tower(vision), millions(parameters["vision"])), "vision", 2, 0),
        Box("text", (text.model_type, *_tower(text), millions(parameters["text"])), "text", 2, 1),
        Box(
            "fusion",
            (f"Fusion: {name}", f"{FUSION_LABELS[config.fusion]}{layers}",
             f"width {config.fusion_dim}, {millions(parameters['fusion'])}"),
            "joint", 3,
        ),
        Box("head", ("Answer head", f"{config.fusion_dim} → {config.fusion_dim} → {config.num_labels:,}",
                     millions(parameters["head"])), "joint", 4),
        Box("answers", ("Answers", f"{config.num_labels:,} scores"), "input", 5),
    )  # fmt: skip
    arrows = (
        ("picture", "patches"), ("question", "words"), ("patches", "vision"), ("words", "text"), ("vision", "fusion"),
        ("text", "fusion"), ("fusion", "head"), ("head", "answers"),
    )  # fmt: skip
    return Diagram(boxes, arrows)


def _edge(size: int | tuple[int, int]) -> int:
    return size if isinstance(size, int) else size[0]


def _tower(config: VQAConfig) -> tuple[str, str]:
    return f"{config.num_hidden_layers} layers, width {config.hidden_size}", f"{config.num_attention_heads} heads"


@dataclass(frozen=True)
class Grid:
    """Where boxes stand, in the units of a writer."""

    width: float  # of the whole picture
    line: float  # height of a line of text
    pad: float  # above and below a box's text
    gap: float  # between boxes

    def layout(self, diagram: Diagram) -> tuple[dict[str, tuple[float, float, float, float]], float]:
        """Left, top, width and height of every box, and the height of the picture."""
        rows = range(1 + max(box.row for box in diagram.boxes))
        lines = [max(len(box.lines) for box in diagram.boxes if box.row == row) for row in rows]
        heights = [count * self.line + 2 * self.pad for count in lines]
        tops = [sum(heights[:row]) + row * self.gap for row in rows]
        column = (self.width - self.gap) / 2
        positions = {}
        for box in diagram.boxes:
            left, width = (0.0, self.width) if box.column is None else (box.column * (column + self.gap), column)
            positions[box.name] = left, tops[box.row], width, heights[box.row]
        return positions, tops[-1] + heights[-1]

    def arrow(
        self, positions: Mapping[str, tuple[float, float, float, float]], one: str, other: str
    ) -> tuple[float, ...]:
        """Start and end (x, y, x, y) of an arrow down from a box to the next."""
        (left, top, width, height), (_, below, _, _) = positions[one], positions[other]
        return left + width / 2, top + height, left + width / 2, below


_TIP = """<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<path d="M0,0 L8,4 L0,8 z" fill="#7a7a7a"/></marker></defs>"""


def to_svg(diagram: Diagram) -> str:
    """Write a diagram as SVG, 420 pixels wide."""
    grid = Grid(width=420, line=17, pad=9, gap=24)
    positions, height = grid.layout(diagram)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-2 -2 424 {height + 4:g}" width="424" role="img">',
        "<title>The model, from picture and question to answers</title>",
        _TIP,
        '<g font-family="Helvetica, Arial, sans-serif" font-size="13" text-anchor="middle" fill="#111111">',
    ]
    for box in diagram.boxes:
        left, top, wide, high = positions[box.name]
        parts.append(
            f'<rect x="{left:g}" y="{top:g}" width="{wide:g}" height="{high:g}" rx="6" fill="{COLORS[box.kind]}" '
            'stroke="#7a7a7a"/>'
        )
        first = top + high / 2 - (len(box.lines) - 1) * grid.line / 2 + 4.5
        for number, line in enumerate(box.lines):
            weight = ' font-weight="bold"' if number == 0 else ""
            attributes = f'x="{left + wide / 2:g}" y="{first + number * grid.line:g}"'
            parts.append(f"<text {attributes}{weight}>{escape(line)}</text>")
    for one, other in diagram.arrows:
        x, y, to_x, to_y = grid.arrow(positions, one, other)
        parts.append(
            f'<line x1="{x:g}" y1="{y:g}" x2="{to_x:g}" y2="{to_y - 1:g}" stroke="#7a7a7a" stroke-width="1.5" '
            'marker-end="url(#tip)"/>'
        )
    return "\n".join([*parts, "</g>", "</svg>"]) + "\n"


def to_tikz(diagram: Diagram) -> str:
    """Write a diagram as a TikZ picture, 8.6 cm wide, to be input by a document that loads the package tikz."""
    grid = Grid(width=8.6, line=0.38, pad=0.14, gap=0.45)
    positions, _ = grid.layout(diagram)
    parts = [r"\begin{tikzpicture}[x=1cm, y=-1cm, every node/.style={align=center, font=\footnotesize, inner sep=0pt}]"]
    parts += [rf"\definecolor{{vqa{kind}}}{{HTML}}{{{color[1:].upper()}}}" for kind, color in COLORS.items()]
    for box in diagram.boxes:
        left, top, wide, high = positions[box.name]
        title, *rest = map(_tex, box.lines)
        words = r"\\".join([rf"\textbf{{{title}}}", *rest])
        parts.append(
            rf"\draw[rounded corners=2pt, draw=black!55, fill=vqa{box.kind}] ({left:.2f},{top:.2f}) rectangle "
            rf"({left + wide:.2f},{top + high:.2f});"
        )
        parts.append(rf"\node at ({left + wide / 2:.2f},{top + high / 2:.2f}) {{{words}}};")
    for one, other in diagram.arrows:
        x, y, to_x, to_y = grid.arrow(positions, one, other)
        parts.append(rf"\draw[-latex, draw=black!55] ({x:.2f},{y:.2f}) -- ({to_x:.2f},{to_y:.2f});")
    return "\n".join([*parts, r"\end{tikzpicture}"]) + "\n"


def _tex(text: str) -> str:
    for mark, escaped in {"\\": r"\textbackslash ", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#"}.items():
        text = text.replace(mark, escaped)
    return text.replace("×", r"$\times$").replace("→", r"$\to$")
