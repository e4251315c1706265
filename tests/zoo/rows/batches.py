"""Batches of four examples: text, pictures, sound, series; where they can be padded, two of them are."""

import torch

SIZE, LENGTH, WORDS, CLASSES = 4, 10, 60, 3
LENGTHS = (10, 6, 10, 4)
PAD, EOS = 0, 2
PICTURE = 16


def words(generator, padded, *, length=LENGTH, end=False):
    """Give token ids with padding at the right, and where they are real; `end`: each example ends with EOS."""
    ids = torch.randint(5, WORDS, (SIZE, length), generator=generator)
    lengths = torch.tensor(LENGTHS if padded else [length] * SIZE).clamp(max=length)
    real = torch.arange(length) < lengths.unsqueeze(1)
    if end:
        ids[torch.arange(SIZE), lengths - 1] = EOS
    ids[~real] = PAD
    return ids, real


def tokens(generator, padded, **options):
    """Give the inputs of a text model; without padding there is no mask."""
    ids, real = words(generator, padded, **options)
    return {"input_ids": ids} | ({"attention_mask": real.long()} if padded else {})


def labels():
    return torch.arange(SIZE) % CLASSES


def sentences(generator, padded):
    return {**tokens(generator, padded), "labels": labels()}


def sentences_with_end(generator, padded):
    return {**tokens(generator, padded, end=True), "labels": labels()}


def unmasked_sentences(generator, padded):
    return {"input_ids": words(generator, padded)[0], "labels": labels()}


def tagged_words(generator, padded):
    ids, real = words(generator, padded)
    mask = {"attention_mask": real.long()} if padded else {}
    return {"input_ids": ids, **mask, "labels": (ids % CLASSES).masked_fill(~real, -100)}


def tagged_words_in_boxes(generator, padded):
    corners = torch.randint(0, 30, (SIZE, LENGTH, 2), generator=generator)
    return {**tagged_words(generator, padded), "bbox": torch.cat([corners, corners + 10], -1)}


def language(generator, padded):
    """Give text that is its own label; padding does not count."""
    ids, real = words(generator, padded)
    mask = {"attention_mask": real.long()} if padded else {}
    return {"input_ids": ids, **mask, "labels": ids.masked_fill(~real, -100)}


def translation(generator, padded):
    target, real = words(generator, padded, length=8, end=True)
    return {**tokens(generator, padded), "labels": target.masked_fill(~real, -100)}


def pictures(generator, size=PICTURE):
    return torch.randn(SIZE, 3, size, size, generator=generator)


def labelled_pictures(generator, padded):
    return {"pixel_values": pictures(generator), "labels": labels()}


def larger_pictures(generator, padded):
    return {"pixel_values": pictures(generator, 32), "labels": labels()}


def segmented_pictures(generator, padded, size=PICTURE):
    areas = torch.randint(0, CLASSES, (SIZE, size, size), generator=generator)
    return {"pixel_values": pictures(generator, size), "labels": areas}


def larger_segmented_pictures(generator, padded):
    return segmented_pictures(generator, padded, 32)


def pictures_with_boxes(generator, padded):
    """Give pictures with one or two boxes each: tensors that share no dimension."""
    found = []
    for number in (1, 2, 1, 2):
        corner = 0.3 + 0.4 * torch.rand(number, 4, generator=generator)
        found.append({"class_labels": torch.arange(number) % CLASSES, "boxes": corner})
    return {"pixel_values": pictures(generator, 32), "labels": found}


def waves(generator, padded, length=160):
    """Give sound; what is padded is silent."""
    sound = torch.randn(SIZE, length, generator=generator)
    if not padded:
        return {"input_values": sound}
    real = torch.arange(length) < torch.tensor([length, length // 2, length, length // 2]).unsqueeze(1)
    return {"input_values": sound * real, "attention_mask": real.long()}


def labelled_waves(generator, padded):
    return {**waves(generator, padded), "labels": labels()}


def transcribed_waves(generator, padded):
    text = torch.randint(3, 12, (SIZE, 3), generator=generator)
    if padded:
        text[1, 2:] = -100
    return {**waves(generator, padded), "labels": text}


def spectrograms(generator, padded):
    return {"input_values": torch.randn(SIZE, 16, 8, generator=generator), "labels": labels()}


def transcribed_spectrograms(generator, padded):
    target, real = words(generator, padded, length=8)
    sound = torch.randn(SIZE, 8, 16, generator=generator)
    return {"input_features": sound, "labels": target.masked_fill(~real, -100)}


def pairs(generator, padded):
    """Give pictures with their captions, for a contrastive loss."""
    return {**tokens(generator, padded, end=True), "pixel_values": pictures(generator), "return_loss": True}


def questions(generator, padded):
    wanted = torch.eye(CLASSES)[labels()]
    return {**tokens(generator, padded), "pixel_values": pictures(generator), "labels": wanted}


def answered_questions(generator, padded):
    answer, _ = words(generator, padded, length=5)
    return {**tokens(generator, padded), "pixel_values": pictures(generator), "labels": answer}


def pictures_in_text(generator, padded):
    """Give text that begins with four places for the patches of a picture (word 4)."""
    batch = language(generator, padded)
    batch["input_ids"][:, :4] = 4
    batch["labels"][:, :4] = -100
    return {**batch, "pixel_values": pictures(generator)}


def typed_pictures_in_text(generator, padded):
    batch = pictures_in_text(generator, padded)
    return {**batch, "token_type_ids": torch.zeros_like(batch["input_ids"])}


def captions(generator, padded):
    return {**language(generator, padded), "pixel_values": pictures(generator)}


def films(generator, padded):
    return {"pixel_values": torch.randn(SIZE, 2, 3, PICTURE, PICTURE, generator=generator), "labels": labels()}


def labelled_series(generator, padded):
    return {"past_values": torch.randn(SIZE, 16, 2, generator=generator), "target_values": labels()}


def continued_series(generator, padded):
    past, future = 8 + 3, 4
    seen = torch.ones(SIZE, past)
    if padded:
        seen[1, :3] = 0
    return {
        "past_values": torch.randn(SIZE, past, generator=generator) * seen,
        "past_time_features": torch.randn(SIZE, past, 2, generator=generator),
        "past_observed_mask": seen,
        "future_values": torch.randn(SIZE, future, generator=generator),
        "future_time_features": torch.randn(SIZE, future, 2, generator=generator),
    }


def plain_pictures(generator, padded):
    return {"inputs": (pictures(generator),), "labels": labels()}


def plain_segmented_pictures(generator, padded):
    batch = segmented_pictures(generator, padded)
    return {"inputs": (batch["pixel_values"],), "labels": batch["labels"]}


def plain_words(generator, padded):
    return {"inputs": (words(generator, padded=False)[0],), "labels": labels()}


def plain_vectors(generator, padded):
    return {"inputs": (torch.randn(SIZE, LENGTH, 32, generator=generator),), "labels": labels()}


def graphs(generator, padded):
    """Give one graph: features of nodes, and edges between them; a label for each node."""
    nodes, edges = 12, 30
    ends = torch.randint(0, nodes, (2, edges), generator=generator)
    return {"inputs": (torch.randn(nodes, 32, generator=generator), ends), "labels": torch.arange(nodes) % CLASSES}
