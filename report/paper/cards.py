"""Method cards as a paper needs them: what a strategy does, and the papers it rests on as BibTeX.

Cards are strategies.json's: a title line, then parts that begin with a word and a colon. A card without such parts
keeps its summary.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from report.paper.tex import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HEADS: Final = {
    "What": "what", "Why it helps": "why", "What it costs": "costs", "When not to use it": "unless", "Paper": "papers",
}  # fmt: skip
HEAD: Final = re.compile(rf"(?:^|(?<=\s))({'|'.join(HEADS)}):\s")
URL: Final = re.compile(r"https?://[^\s;,)]+")
# "Hu et al., LoRA: …, 2021, " before its address; names may themselves hold commas before an "and". NAMED is a paper
# called by its method: "Fast R-CNN (Girshick, 2015, ".
CITED: Final = re.compile(
    r"(?P<authors>[^,;:()]+? et al\.|(?:[^,;:()]+, )*[^,;:()]+ and [^,;:()]+?|[^,;:()]+?), "
    r"(?:(?P<title>[^;]+?), )?(?P<year>\d{4}), $"
)
KINDS: Final = {
    "weights": "Which weights train", "numerics": "Number types", "memory": "What is kept in memory",
    "speed": "The same computation, faster", "update": "The update", "data": "How the model is fed",
}  # fmt: skip


NAMED: Final = re.compile(r"(?P<title>[^;()]+) \((?P<authors>[^,;()]+), (?P<year>\d{4}), $")


class Reference(NamedTuple):
    """A paper: its BibTeX key, and what is known of it; `authors` is empty where the card names an address alone."""

    key: str
    authors: str
    title: str
    year: str
    url: str


class Card(NamedTuple):
    """A strategy's card in parts, each a plain text or empty."""

    name: str
    kind: str
    options: str
    summary: str
    what: str
    why: str
    costs: str
    unless: str
    references: tuple[Reference, ...]


def read_card(name: str, facts: Mapping[str, Any]) -> Card:
    """Take one entry of strategies.json apart."""
    text = str(facts.get("text", ""))
    body = text.partition("\n\n")[2].partition("\n\n")[0]  # the part after the title; notes on the code come later
    pieces = HEAD.split(" ".join(body.split()))
    found = {HEADS[head]: content.strip() for head, content in zip(pieces[1::2], pieces[2::2], strict=True)}
    papers = found.pop("papers", "")
    parts = {key: found.get(key, "") for key in ("what", "why", "costs", "unless")}
    summary, options = (str(facts.get(key, "")) for key in ("summary", "options"))
    return Card(name, str(facts.get("kind", "")), options, summary, **parts, references=references(name, papers))


def references(name: str, papers: str) -> tuple[Reference, ...]:
    """Every address a card's last part names, with what stands before it."""
    found, begin = [], 0
    for match in URL.finditer(papers):
        url, before = match[0].rstrip("."), papers[begin : match.start()].lstrip(" ;,.()")
        begin = match.end()
        citation = re.sub(r"^[^,:]*: ", "", before.strip()) + " "  # without "as adapter: " and the like
        cited = NAMED.search(citation) or CITED.search(citation)
        key = re.sub(r"\W+", "-", url.partition("//")[2]).strip("-")  # one entry for a paper, whatever card names it
        if cited:
            title = cited["title"] or name
            found.append(Reference(key, cited["authors"].strip(), title.strip(), cited["year"], url))
        else:
            found.append(Reference(key, "", citation.split(";")[-1].strip(" ,") or name, "", url))
    return tuple(found)


def bibtex(cited: Iterable[Reference]) -> str:
    """BibTeX entries, one for each key."""
    entries = []
    for reference in {reference.key: reference for reference in cited}.values():
        authors = " and ".join(re.split(r", | and ", reference.authors.replace(" et al.", " and others")))
        lines = [
            f"  title = {{{{{escape(reference.title)}}}}}",
            rf"  howpublished = {{\url{{{_address(reference.url)}}}}}",
        ]
        lines += [f"  author = {{{escape(authors)}}}"] if authors else []
        lines += [f"  year = {{{reference.year}}}"] if reference.year else []
        entries.append(f"@misc{{{reference.key},\n" + ",\n".join(lines) + "\n}\n")
    return "\n".join(entries)


def _address(url: str) -> str:
    """An address for LaTeX: signs that it would act on are written in hexadecimal, the others stay."""
    quoted = re.sub(r"[^\x21-\x7e]|[\\{}^\"]", lambda sign: "".join(f"%{byte:02X}" for byte in sign[0].encode()), url)
    return quoted.replace("%", r"\%").replace("#", r"\#")
