"""Finds and loads the two towers: shipped, random from a preset's shape, local folder, or hub id.

A name that exists as a path is that folder; anything else is a hub id, fetched once into the
Hugging Face cache. After that only local files are read, so no network is touched unless a hub id
was named. Checks read `config.json` alone and say what is wrong before any weight is loaded.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from vqa_model.data.pictures import ImageSettings
from vqa_model.modeling.families import TEXT_FAMILIES, VISION_FAMILIES, pooler_option
from vqa_model.modeling.from_disk import FROM_DISK, first_line
from vqa_model.modeling.position_embeddings import interpolate_positions, picture_size, with_image_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn
    from transformers.configuration_utils import PreTrainedConfig
    from transformers.modeling_utils import PreTrainedModel

SHIPPED = Path(__file__).resolve().parents[1] / "towers"
FAMILIES = {"vision": VISION_FAMILIES, "text": TEXT_FAMILIES}
# width, layers, heads, image size, patch size, vocabulary rows (BERT's own, so that sizes compare)
PRESETS: dict[str, tuple[int, int, int, int, int, int]] = {
    "tiny": (96, 2, 4, 48, 16, 0),
    "small": (256, 6, 4, 96, 12, 30522),
    "base": (768, 12, 12, 224, 16, 30522),
    "large": (1024, 24, 16, 224, 16, 30522),
}
_DISPENSABLE = ("mask_token", "pooler")  # weights that nothing here reads
_BLOCK_BYTES = 1 << 22
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")  # the first only where it has such a section
_FILES = ["config.json", *_PROCESSORS, "*token*", "vocab*", "merges.txt", "*.model"]


@dataclass(frozen=True)
class Tower:
    """One tower: its configuration, its folder if it has one, and whether its weights start at random.

    stored: the configuration of the weights in the folder, where they are for pictures of another size.
    """

    kind: str
    config: PreTrainedConfig
    folder: Path | None
    random: bool = False
    stored: PreTrainedConfig | None = None

    def load(self) -> nn.Module | None:
        """Load weights in fp32 without pooler, ValueError where one is missing.

        None where the tower is random, or under `torch.device("meta")`, where its shape is all there is.
        """
        import torch

        if self.folder is None or self.random or torch.get_default_device().type == "meta":
            return None
        from safetensors import SafetensorError
        from transformers import AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()  # a bar for a local file is noise; downloads have shown theirs before
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # so is a table of the heads that are left out; what is missing is checked below
        option = pooler_option(self.config.model_type)
        try:
            tower: PreTrainedModel
            tower, found = AutoModel.from_pretrained(
                self.folder,
                config=self.stored or self.config,
                dtype=torch.float32,
                **FROM_DISK,
                ignore_mismatched_sizes=True,  # reported below, with the tensor's name
                output_loading_info=True,
                **option,
            )
        except (OSError, RuntimeError, EOFError, UnpicklingError, SafetensorError) as error:
            path = _damaged_file(self.folder) or self.folder
            raise ValueError(f"{path}: cannot load the {self.kind} tower: {first_line(error)}") from error
        finally:
            logging.set_verbosity(verbosity)
        self._check(sorted(found["missing_keys"]), sorted(found["mismatched_keys"]))
        loaded: nn.Module = interpolate_positions(tower, self.config) if self.stored else tower
        return loaded

    def _check(self, missing: list[str], mismatched: list[tuple[str, Any, Any]]) -> None:
        missing = [name for name in missing if not any(part in name for part in _DISPENSABLE)]
        if missing:
            raise ValueError(
                f"{self.folder}: {len(missing)} weights of the {self.kind} tower missing, first {missing[0]}"
            )
        if mismatched:
            name, stored, expected = mismatched[0]
            raise ValueError(
                f"{self.weights()[0]}: {len(mismatched)} weights do not fit config.json, "
                f"first {name}: {tuple(stored)}, not {tuple(expected)}"
            )

    def weights(self) -> list[Path]:
        """Files of the weights that this starts from; none where they are random."""
        return _weight_files(self.folder) if self.folder and not self.random else []

    def fingerprint(self) -> str:
        """Hash configuration and weights (none where they are random), not where they lie."""
        digest = hashlib.sha256(json.dumps(_shape(self.config), sort_keys=True, default=str).encode())
        for file in self.weights():
            with file.open("rb") as stream:
                while block := stream.read(_BLOCK_BYTES):
                    digest.update(block)
        return digest.hexdigest()


def _named_errors(tower: Tower, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of the tower's configuration; its error names the folder, where there is one."""
    try:
        return function(*arguments)
    except ValueError as error:
        raise ValueError(f"{tower.folder}: {error}" if tower.folder else str(error)) from error


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))


def _damaged_file(folder: Path) -> Path | None:
    """First weight file that cannot be read, or the only one there is."""
    from safetensors import SafetensorError, safe_open

    files = _weight_files(folder)
    for file in files:
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, framework="pt"):
                    pass
        except (OSError, SafetensorError):
            return file
    return files[0] if len(files) == 1 else None


def _shape(config: PreTrainedConfig) -> dict[str, Any]:
    noise = {"_name_or_path", "transformers_version", "dtype", "architectures"}
    return {key: value for key, value in config.to_dict().items() if key not in noise}


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
        raise ValueError(f"{config}: not a checkpoint configuration: {first_line(error)}") from error
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
            f"--{kind} {source}: no such folder, and the hub did not give it: {first_line(error)}"
        ) from error
    return folder


def find_tower(kind: str, preset: str, source: str, *, random: bool, image_size: int = 0) -> Tower:
    """Choose a tower: the named checkpoint, else the preset's shipped weights, else its shape at random.

    image_size: of the pictures that a vision tower is to take; 0 is what its preprocessor says.
    """
    if preset not in PRESETS:
        raise ValueError(f"--model {preset!r} is not known; choose from {', '.join(PRESETS)}")
    tower = _find(kind, preset, source, random=random)
    return _resized(tower, image_size) if kind == "vision" else tower


def _find(kind: str, preset: str, source: str, *, random: bool) -> Tower:
    if not source and preset != "tiny":
        return Tower(kind, preset_config(kind, preset), None)
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    folder = checkpoint_folder(source or str(SHIPPED / kind), kind)
    try:
        config = AutoConfig.from_pretrained(folder, **FROM_DISK)
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        raise ValueError(f"{folder / 'config.json'}: not a checkpoint configuration: {first_line(error)}") from error
    return Tower(kind, config, folder, random)


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


def _resized(tower: Tower, image_size: int) -> Tower:
    size = image_settings(tower, image_size).size
    config = _named_errors(tower, with_image_size, tower.config, size)
    return tower if config == tower.config else replace(tower, config=config, stored=tower.config)


def image_settings(tower: Tower, image_size: int = 0) -> ImageSettings:
    """How pictures must be cut and scaled for a vision tower; `image_size` replaces the preprocessor's."""
    size = _named_errors(tower, picture_size, tower.config)
    file, fields = Path(), dict[str, Any]()
    try:
        for file in (tower.folder / name for name in _PROCESSORS if tower.folder):
            content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            fields = fields or content.get("image_processor") or (content if file.name == _PROCESSORS[-1] else {})
        return ImageSettings.from_preprocessor(fields, size, image_size)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file}: not a preprocessor configuration: {first_line(error)}") from error
