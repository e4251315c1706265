"""The page of `vqa_model.demo`: laid out with gradio, served to this machine, fed by saved models.

gradio is imported when the page is made: it is an extra, and its absence is told in one line.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from PIL import Image

from vqa_model.answering.answerer import Answerer

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LONGEST_QUESTION = 300  # characters
MOST_PIXELS = 50_000_000
WAITING = 32  # questions in the queue before the page says it is busy
TITLE = "TuneMatrix: ask about a picture"


def answer(answerer: Answerer, picture: Image.Image | None, question: str, *, top: int) -> dict[str, float]:
    """Answers and their probabilities for the page; gradio.Error, shown there, for what cannot be answered."""
    import gradio

    question = (question or "").strip()
    if picture is None or not question:
        raise gradio.Error("Give a picture and a question.")
    if len(question) > LONGEST_QUESTION:
        raise gradio.Error(f"The question is longer than {LONGEST_QUESTION} characters.")
    return {found.text: found.probability for found in answerer.answer(picture, question, top)}


def build_page(answerers: Sequence[Answerer], examples: Sequence[Path], *, question: str, top: int) -> Any:
    """Lay out the page: picture and question left, one column of answers per model right."""
    import gradio

    with gradio.Blocks(title=TITLE, analytics_enabled=False) as page:
        gradio.Markdown(f"# {TITLE}\nAnswers come from a fixed list, learnt from the training data.")
        with gradio.Row():
            with gradio.Column():
                picture = gradio.Image(type="pil", label="Picture", sources=["upload", "clipboard"], height=320)
                question_box = gradio.Textbox(question, label="Question", max_length=LONGEST_QUESTION)
                ask = gradio.Button("Ask", variant="primary")
                if examples:
                    gradio.Examples([[str(path)] for path in examples], [picture], label="Pictures to try")
            with gradio.Column(scale=len(answerers)), gradio.Row():
                shown = [gradio.Label(label=one.name, num_top_classes=top, min_width=240) for one in answerers]
        for begin in (ask.click, question_box.submit):
            for one, label in zip(answerers, shown, strict=True):
                begin(partial(answer, one, top=top), [picture, question_box], label, api_name=False)
    page.queue(max_size=WAITING, default_concurrency_limit=1)
    return page


def example_pictures(folder: Path | None) -> list[Path]:
    """Find up to a dozen pictures of a folder; ValueError where it has none."""
    if folder is None:
        return []
    suffixes = {".jpg", ".jpeg", ".png", ".webp"}
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in suffixes) if folder.is_dir() else []
    if not found:
        raise ValueError(f"--examples {folder}: no folder with .jpg, .png or .webp pictures")
    return found[:12]


def serve(options: argparse.Namespace) -> None:
    """Load the models and serve the page until interrupted. ValueError for what cannot be loaded."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise ValueError(f"gradio is not installed ({error}); pip install 'tunematrix[demo]'") from error
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # PIL refuses twice this
    answerers = [Answerer.load(folder, options.device) for folder in options.model]
    page = build_page(answerers, example_pictures(options.examples), question=options.question, top=options.top)
    if options.host not in LOOPBACK:
        print(f"--host {options.host}: whoever reaches this address can use the page; it asks for no password")
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    page.launch(
        server_name=options.host, server_port=options.port, share=False, quiet=True, show_error=False,
        max_file_size=f"{options.max_upload_mb}mb", allowed_paths=[], theme=gradio.themes.Default(**fonts),
        footer_links=[], ssr_mode=False, mcp_server=False, prevent_thread_lock=True,
    )  # fmt: skip
    print(f"serving {page.local_url} (Ctrl-C ends it)", flush=True)
    page.block_thread()
