"""Text from data as LaTeX that pdflatex can set: nothing in it is markup, and no letter stops the run."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MARKUP: Final = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", '"': r"\textquotedbl{}", "'": "'", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "`": r"\textasciigrave{}", "-": "-",
}  # fmt: skip
SIGNS: Final = {
    "×": r"$\times$", "·": r"$\cdot$\allowbreak{}", "⊙": r"$\odot$", "⊗": r"$\otimes$",
    "→": r"$\rightarrow$", "≥": r"$\geq$", "≤": r"$\leq$", "≈": r"$\approx$",
    "√": r"$\surd$", "±": r"$\pm$", "°": r"$^{\circ}$", "−": r"$-$", "–": "--", "—": "---", "…": r"\ldots{}",
    "“": "``", "”": "''", "‘": "`", "’": "'", "²": r"$^2$", "³": r"$^3$", "¹": r"$^1$", "⁻": r"$^-$",
    "ᵀ": r"$^{\mathsf{T}}$", "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}",
    "Ł": r"\L{}", "ı": r"\i{}", "œ": r"\oe{}", "Œ": r"\OE{}", "€": "EUR", "\u00a0": "~", "½": r"$\frac12$",
    "←": r"$\leftarrow$", "∈": r"$\in$", "∞": r"$\infty$", "∥": r"$\|$", "‖": r"$\|$", "ⁿ": "$^n$",
    "ᵢ": "$_i$", "ⱼ": "$_j$", "ₙ": "$_n$", "₀": "$_0$", "₁": "$_1$", "₂": "$_2$", "₃": "$_3$",
}  # fmt: skip
ACCENTS: Final = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c", "\u0328": "k",
}  # fmt: skip
GREEK: Final = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau",
    "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega", "Δ": "Delta", "Σ": "Sigma", "Ω": "Omega", "Φ": "Phi",
    "Λ": "Lambda", "Γ": "Gamma", "Θ": "Theta",
}  # fmt: skip
LAST_ASCII: Final = 127


class Tex(str):
    """LaTeX already: not escaped again."""

    __slots__ = ()


def escape(text: object) -> Tex:
    """Write text as LaTeX; a sign that cannot be set stands as its code point. LaTeX stays as it is."""
    if isinstance(text, Tex):
        return text
    words = " ".join(unicodedata.normalize("NFC", str(text)).split())
    signs = zip(words, f"{words} "[1:], strict=True)
    return Tex("".join(_sign(sign) + (r"\/" if sign == after == "-" else "") for sign, after in signs))  # no dash


def _sign(sign: str) -> str:
    if sign in MARKUP or sign in SIGNS:
        return MARKUP.get(sign) or SIGNS[sign]
    if ord(" ") <= ord(sign) < LAST_ASCII:
        return sign
    if sign in GREEK:
        return rf"$\{GREEK[sign]}$"
    base, *marks = list(unicodedata.normalize("NFD", sign))
    if len(marks) == 1 and marks[0] in ACCENTS and base.isascii() and base.isalpha():
        return rf"\{ACCENTS[marks[0]]}{{{base}}}"
    return rf"\texttt{{[U+{ord(sign):04X}]}}"


def code(text: str) -> Tex:
    """Write a name in a typewriter face that may be broken where its parts end."""
    parts = re.split(r"(?<=[+,(_=])", " ".join(text.split()))
    return Tex(r"\texttt{" + r"\allowbreak{}".join(map(escape, parts)) + "}")


def prose(text: str) -> Tex:
    """Write running text in which `words` between backticks are code and *words* between stars are stressed."""
    rendered = []
    for index, piece in enumerate(text.split("`")):
        rendered.append(code(piece) if index % 2 else _stressed(piece))
    return Tex("".join(rendered))


def _stressed(text: str) -> Tex:
    """Escape text, keeping the spaces at its ends."""
    ends = [" " if text[:1].isspace() else "", " " if text[-1:].isspace() and text.strip() else ""]
    pieces = re.split(r"(?<!\S)\*(\w[^*]*\w)\*(?!\w)", text)
    words = [rf"\emph{{{escape(piece)}}}" if index % 2 else _spaced(piece) for index, piece in enumerate(pieces)]
    return Tex(ends[0] + "".join(words).strip() + ends[1])


def _spaced(text: str) -> str:
    return f"{' ' if text[:1].isspace() else ''}{escape(text)}{' ' if text[-1:].isspace() else ''}"
