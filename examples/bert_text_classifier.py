"""Fine-tune a BERT classifier under several plans, and compare what each one costs and gives.

    python examples/bert_text_classifier.py --strategies "full(lr=1e-3), lora(lr=1e-2), freeze"

The base knows which adjectives are kind. The new task turns them around after "nobody says" or "i doubt", which no
single word gives away: a frozen body cannot do it, adapters can. One learns to start every plan from the same weights,
to train with `tuned.step`, to read `describe()`, to save and load, and to merge adapters into the weights.
"""

import argparse
import copy
import itertools
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from strategies import PlanError, Tuned, compose, load, parse_plans

NOUNS = ["film", "book", "song", "meal", "hotel", "garden", "game", "play"]
MOODS = {"good": 1, "lovely": 1, "great": 1, "fine": 1, "bad": 0, "awful": 0, "dull": 0, "poor": 0}
OPENINGS = {"i think": 0, "everyone says": 0, "nobody says": 1, "i doubt": 1}  # 1 turns the sentence around
WORDS = ["<pad>", *dict.fromkeys(" ".join([*OPENINGS, "the was very quite", *NOUNS, *MOODS]).split())]
EPOCHS, BATCH, TRAINING = 6, 32, 576


def make_sentences(openings: list[str]) -> list[dict]:
    made = []
    for first, noun, how, mood in itertools.product(openings, NOUNS, ["", "very", "quite"], MOODS):
        words = f"{first} the {noun} was {how} {mood}".split()
        made.append({"ids": [WORDS.index(word) for word in words], "label": OPENINGS[first] ^ MOODS[mood]})
    return [made[index] for index in torch.randperm(len(made), generator=torch.Generator().manual_seed(0))]


def collate(items: list[dict]) -> dict[str, torch.Tensor]:
    ids = nn.utils.rnn.pad_sequence([torch.tensor(item["ids"]) for item in items], batch_first=True)
    labels = torch.tensor([item["label"] for item in items])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}


def build() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertForSequenceClassification(BertConfig(**sizes, **still, vocab_size=len(WORDS), initializer_range=0.1))


def train(tuned: Tuned, sentences: list[dict]) -> None:
    loader = tuned.loader(sentences, batch_size=BATCH, collate=collate, generator=torch.Generator().manual_seed(0))
    for batch in itertools.chain(*[loader] * EPOCHS):
        tuned.step(lambda model, batch: model(**batch).loss, batch)


def main(strategies: str) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base, simple = build(), make_sentences(["i think", "everyone says"])
    train(compose("full(lr=1e-3)").apply(base, total_steps=EPOCHS * 12), simple)  # stands for a downloaded checkpoint
    sentences = make_sentences(list(OPENINGS))
    held_out = {key: tensor.to(device) for key, tensor in collate(sentences[TRAINING:]).items()}

    def logits_of(model: nn.Module) -> torch.Tensor:
        return model(**held_out).logits.float()

    rows = [f"{'plan':<24} {'accuracy':>8} {'trainable':>10} {'seconds':>8} {'saved bytes':>12}  same after loading"]
    for name, plan in [(named.text, named.plan) for named in parse_plans(strategies)]:
        steps = EPOCHS * (TRAINING // BATCH)
        tuned = plan.apply(copy.deepcopy(base), device=device, total_steps=steps, head_lr=1e-2)
        print(tuned.describe())
        start = time.perf_counter()
        train(tuned, sentences[:TRAINING])
        seconds, trained = time.perf_counter() - start, tuned.counts()["trainable_parameters"]
        with tempfile.TemporaryDirectory() as folder:
            size = tuned.save(Path(folder))
            again = load(Path(folder), copy.deepcopy(base), device=device)
        with tuned.evaluating(), again.evaluating():
            logits, same = logits_of(tuned.model), torch.allclose(logits_of(again.model), logits_of(tuned.model))
        accuracy = (logits.argmax(-1) == held_out["labels"]).float().mean()
        rows.append(f"{name:<24} {accuracy:>8.2f} {trained:>10,} {seconds:>8.1f} {size:>12,}  {same}")
        try:
            print(f"  merge      {tuned.merge(logits_of)}")  # a plain BERT from here on
        except PlanError as refusal:
            print(f"  merge      {refusal}")
    print(*rows, sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", default="full(lr=1e-3), lora(lr=1e-2), freeze", help="plans to compare")
    main(**vars(parser.parse_args()))
