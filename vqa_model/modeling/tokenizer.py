"""Finds the text tower's tokenizer, and says what it is: its hash, and the longest text it may make.

Only fast tokenizers are used: the questions of a whole data set are tokenised at once, when the
data is prepared. The slow files of older checkpoints are converted by transformers.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from vqa_model.modeling.families import ROBERTA_FAMILIES
from vqa_model.modeling.from_disk import FROM_DISK, first_line
from vqa_model.modeling.towers import SHIPPED, Tower

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer

_VOCABULARIES = ("vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")


def load_tokenizer(tower: Tower) -> Tokenizer:
    """Load the fast tokenizer that lies with the text tower, or the shipped one where there is no folder.

    It neither pads nor cuts, whatever its file says: both belong to the data.
    """
    folder = tower.folder or SHIPPED / "text"
    names = [name for name in ("tokenizer.json", *_VOCABULARIES) if (folder / name).is_file()]
    if not names:
        raise ValueError(
            f"{folder}: no tokenizer.json (nor {', '.join(_VOCABULARIES)}); save the tokenizer with the tower"
        )
    try:
        tokenizer = _read_tokenizer(folder, names[0])
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(f"{folder / names[0]}: cannot be read as a tokenizer: {first_line(error)}") from error
    if tokenizer.get_vocab_size() > tower.config.vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer has {tokenizer.get_vocab_size()} pieces, the tower only {tower.config.vocab_size}"
        )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _read_tokenizer(folder: Path, name: str) -> Tokenizer:
    if name == "tokenizer.json":
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(folder / name))
    from transformers import AutoTokenizer
    from transformers.utils import is_protobuf_available, is_sentencepiece_available

    if name.endswith(".model") and not (is_sentencepiece_available() and is_protobuf_available()):
        raise ImportError("it takes two packages (pip install sentencepiece protobuf), a tokenizer.json takes none")
    tokenizer: Tokenizer = AutoTokenizer.from_pretrained(folder, **FROM_DISK).backend_tokenizer
    return tokenizer


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """Hash what a tokenizer does to a text, without the truncation and padding set for the data."""
    content = json.loads(tokenizer.to_str()) | {"truncation": None, "padding": None}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def max_text_tokens(tower: Tower, requested: int = 0) -> int:
    """Word pieces that a text tower has positions for; RoBERTa's kin count theirs from behind the padding's.

    ValueError where more are `requested`.
    """
    config = tower.config
    offset = config.pad_token_id + 1 if config.model_type in ROBERTA_FAMILIES else 0
    max_tokens: int = config.max_position_embeddings - offset
    if requested > max_tokens:
        raise ValueError(f"max_length {requested} is above the text tower's {max_tokens} positions")
    return max_tokens
