"""Finds and loads the two towers: shipped, random from a preset's shape, local folder, or hub id.

A name that exists as a path is that folder; anything else is a hub id, fetched once into the
Hugging Face cache. After that only local files are read, so no network is touched unless a hub id
was named. Checks read `config.json` alone and say what is wrong before any weight is loaded.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqa_model.families import TEXT_FAMILIES, VISION_FAMILIES, pooler_option
from vqa_model.pictures import ImageSettings

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import nn
    from transformers.configuration_utils import PreTrainedConfig

SHIPPED = Path(__file__).parent / "towers"
FAMILIES = {"vision": VISION_FAMILIES, "text": TEXT_FAMILIES}
# width, layers, heads, image size, patch size, vocabulary rows (BERT's own, so that sizes compare)
PRESETS: dict[str, tuple[int, int, int, int, int, int]] = {
    "tiny": (96, 2, 4, 48, 16, 0),
    "small": (256, 6, 4, 96, 12, 30522),
    "base": (768, 12, 12, 224, 16, 30522),
    "large": (1024, 24, 16, 224, 16, 30522),
}
_BLOCK_BYTES = 1 << 22
_VOCABULARIES = ("vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")
_FILES = ["config.json", "preprocessor_config.json", "*token*", "vocab*", "merges.txt", "*.model"]


@dataclass(frozen=True)
class Tower:
    """One tower: its configuration and, if it has weights, the folder they are read from."""

    kind: str
    config: PreTrainedConfig
    folder: Path | None

    def load(self) -> nn.Module | None:
        """Load weights in fp32 without pooler; None where the tower starts at random."""
        if self.folder is None:
            return None
        import torch
        from transformers import AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()  # a bar for a local file is noise; downloads have shown theirs before
        option = pooler_option(self.config.model_type)
        try:
            tower: nn.Module = AutoModel.from_pretrained(
                self.folder, config=self.config, dtype=torch.float32, local_files_only=True, **option
            )
        except OSError as error:
            raise ValueError(f"{self.folder}: cannot load the {self.kind} tower: {_first_line(error)}") from error
        return tower

    def fingerprint(self) -> str:
        """Hash configuration and weights, not where they lie."""
        digest = hashlib.sha256(json.dumps(_shape(self.config), sort_keys=True, default=str).encode())
        for file in (
            sorted(self.folder.glob("*.safetensors")) or sorted(self.folder.glob("*.bin")) if self.folder else ()
        ):
            with file.open("rb") as stream:
                while block := stream.read(_BLOCK_BYTES):
                    digest.update(block)
        return digest.hexdigest()


def _shape(config: PreTrainedConfig) -> dict[str, Any]:
    noise = {"_name_or_path", "transformers_version", "dtype", "architectures"}
    return {key: value for key, value in config.to_dict().items() if key not in noise}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def checkpoint_folder(source: str, kind: str) -> Path:
    """Local folder of a checkpoint named by folder or hub id; checks that its family fits `kind`."""
    folder = Path(source).expanduser()
    if not folder.exists():
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source) or source.startswith("."):
            raise ValueError(f"--{kind} {source}: no such folder; name a checkpoint folder or a hub id (owner/name)")
        folder = _download(source, kind)
    config = folder / "config.json"
    if not config.is_file():
        raise ValueError(f"{folder}: no config.json; --{kind} wants a Hugging Face checkpoint folder or a hub id")
    try:
        family = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise ValueError(f"{config}: not a checkpoint configuration: {_first_line(error)}") from error
    if family not in FAMILIES[kind]:
        known = ", ".join(FAMILIES[kind])
        raise ValueError(f"{config}: family {family!r} cannot be the {kind} tower; it takes one of: {known}")
    return folder


def _download(source: str, kind: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(source, allow_patterns=[*_FILES, "model*.safetensors*"]))
        if not list(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(source, allow_patterns=[*_FILES, "pytorch_model*.bin*"]))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--{kind} {source}: no such folder, and the hub did not give it: {_first_line(error)}"
        ) from error
    return folder


def find_tower(kind: str, preset: str, source: str, *, random: bool) -> Tower:
    """Choose a tower: the named checkpoint, else the preset's shipped weights, else its shape at random."""
    if preset not in PRESETS:
        raise ValueError(f"--model {preset!r} is not known; choose from {', '.join(PRESETS)}")
    if not source and preset != "tiny":
        return Tower(kind, preset_config(kind, preset), None)
    from transformers import AutoConfig

    folder = checkpoint_folder(source or str(SHIPPED / kind), kind)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    return Tower(kind, config, None if random else folder)


def preset_config(kind: str, preset: str, **changes: Any) -> PreTrainedConfig:
    """Configuration of a preset's ViT or BERT."""
    from transformers import BertConfig, ViTConfig

    width, layers, heads, image_size, patch_size, vocab_size = PRESETS[preset]
    shape = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
    }
    if kind == "vision":
        return ViTConfig(**{**shape, "image_size": image_size, "patch_size": patch_size, **changes})
    return BertConfig(**{**shape, "vocab_size": vocab_size, **changes})


def image_settings(tower: Tower) -> ImageSettings:
    """How pictures must be cut and scaled for a vision tower."""
    file = tower.folder / "preprocessor_config.json" if tower.folder else None
    fields = json.loads(file.read_text(encoding="utf-8")) if file and file.is_file() else {}
    size = tower.config.image_size
    return ImageSettings.from_preprocessor(fields, size if isinstance(size, int) else size[0])


def load_tokenizer(tower: Tower) -> Tokenizer:
    """Load the fast tokenizer that lies with the text tower, or the shipped one for a random tower."""
    from tokenizers import Tokenizer

    folder = tower.folder or SHIPPED / "text"
    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    elif any((folder / name).is_file() for name in _VOCABULARIES):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    else:
        raise ValueError(
            f"{folder}: no tokenizer.json (nor {', '.join(_VOCABULARIES)}); save the tokenizer with the tower"
        )
    if tokenizer.get_vocab_size() > tower.config.vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer has {tokenizer.get_vocab_size()} pieces, the tower only {tower.config.vocab_size}"
        )
    return tokenizer
