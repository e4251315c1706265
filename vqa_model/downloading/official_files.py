"""What VQA v2 ("Balanced Real Images") consists of on its servers, and where each file belongs on disk.

Names and sizes are those of https://visualqa.org/download.html and https://cocodataset.org/#download. Sizes only tell
how much is ahead; what arrives is checked against what the server says. A mirror holds the same tree under one address:
the six archives of text at its root, `zips/`, `train2014/` and `val2014/` beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqa_model.data.official_files import PARTS

if TYPE_CHECKING:
    from pathlib import Path

TEXTS_URL = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa"
PICTURES_URL = "http://images.cocodataset.org"
PICTURE_BYTES = 164_000  # mean of both archives
UNPACKED = 16  # bytes of text per byte in its archive, about: names of fields repeat


@dataclass(frozen=True)
class TextArchive:
    """An archive with one JSON file of a part in it."""

    part: str
    name: str
    member: str
    num_bytes: int  # of the archive


@dataclass(frozen=True)
class PictureArchive:
    """All pictures of a part in one archive."""

    num_images: int
    num_bytes: int


TEXTS = (
    TextArchive("train", "v2_Questions_Train_mscoco.zip", "v2_OpenEnded_mscoco_train2014_questions.json", 7_239_401),
    TextArchive("val", "v2_Questions_Val_mscoco.zip", "v2_OpenEnded_mscoco_val2014_questions.json", 3_494_929),
    TextArchive("train", "v2_Annotations_Train_mscoco.zip", "v2_mscoco_train2014_annotations.json", 21_708_861),
    TextArchive("val", "v2_Annotations_Val_mscoco.zip", "v2_mscoco_val2014_annotations.json", 10_518_930),
    # Sizes of the last two are rough.
    TextArchive(
        "train", "v2_Complementary_Pairs_Train_mscoco.zip", "v2_mscoco_train2014_complementary_pairs.json", 1_500_000
    ),
    TextArchive("val", "v2_Complementary_Pairs_Val_mscoco.zip", "v2_mscoco_val2014_complementary_pairs.json", 750_000),
)
PICTURES = {"train": PictureArchive(82_783, 13_510_573_713), "val": PictureArchive(40_504, 6_645_013_297)}
assert tuple(PICTURES) == PARTS


def picture_member(part: str, image_id: int) -> str:
    """Where a picture lies: in the folder, on the server and in its archive alike."""
    return f"{part}2014/COCO_{part}2014_{image_id:012d}.jpg"


@dataclass(frozen=True)
class Source:
    """The addresses of everything, official or of one mirror."""

    texts: str = TEXTS_URL
    pictures: str = PICTURES_URL

    @classmethod
    def mirror(cls, url: str) -> Source:
        """The same tree under one address; ValueError when that is no web address."""
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"--base-url {url}: not a web address; write http://… or https://…")
        return cls(url.rstrip("/"), url.rstrip("/"))

    def text(self, archive: TextArchive) -> str:
        """Address of an archive of text."""
        return f"{self.texts}/{archive.name}"

    def picture(self, part: str, image_id: int) -> str:
        """Address of one picture."""
        return f"{self.pictures}/{picture_member(part, image_id)}"

    def picture_archive(self, part: str) -> str:
        """Address of the archive of all pictures of a part."""
        return f"{self.pictures}/zips/{part}2014.zip"


def text_path(folder: Path, archive: TextArchive) -> Path:
    """Where an archive's JSON file belongs."""
    return folder / archive.member
