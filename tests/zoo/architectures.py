"""The zoo: every architecture there is a row for, by name."""

from tests.zoo.row import Layers, Row
from tests.zoo.rows import batches, homemade
from tests.zoo.rows.decoders import CAUSAL, MIXTURES, STATE_SPACE
from tests.zoo.rows.encoders import ENCODER_DECODER, MASKED
from tests.zoo.rows.further_language import FURTHER_LANGUAGE
from tests.zoo.rows.further_modalities import FURTHER_MODALITIES
from tests.zoo.rows.modalities import AUDIO, MULTIMODAL, TIME_SERIES
from tests.zoo.rows.pictures import DETECTION, SEGMENTATION, VISION


def plain(name, make, data, layers, **facts):
    """Give a model of plain torch with a new last layer."""
    facts = {"new": ("classifier",)} | facts
    return Row(name=name, family="plain torch", make=make, data=data, layers=layers, padded=False, **facts)


OF_TIMM = Layers(query="attn.qkv", key="attn.qkv", value="attn.qkv", output="attn.proj", up="mlp.fc1", down="mlp.fc2")
PLAIN = (
    plain(
        "u-net", homemade.UNet, batches.plain_segmented_pictures, Layers(alone="?*.0:4 ?*.3:4"),
        new=("outc",), norms=16, biases=(17,),
    ),
    plain(  # nothing to adapt: the weights of an LSTM are no layers
        "lstm", homemade.Lstm, batches.plain_words, Layers(), biases=(4,),
    ),
    plain(
        "torch-encoder", homemade.TorchEncoder, batches.plain_words,
        Layers(up="linear1", down="linear2", others="out_proj"),
        norms=8, biases=(12,), last=("encoder.layers.1",),
    ),
    plain(
        "graph", homemade.GraphNetwork, batches.graphs, Layers(alone="own:2 message:2"),
        new=("readout",), biases=(4,), last=("layers.1",), batch_norm=True,  # as an example's neighbours count
    ),
    plain(
        "weight-norm", homemade.Normed, batches.plain_vectors, Layers(up="blocks.?.0", down="blocks.?.2"),
        biases=(4,), last=("blocks.1",),
    ),
    plain(
        "timm-vit", homemade.TimmVit, batches.plain_pictures, OF_TIMM,
        new=("head",), norms=10, biases=(14,), last=("blocks.1",),
    ),
    plain(
        "shared-block", homemade.Shared, batches.plain_words,
        Layers(
            query="attn.qkv", key="attn.qkv", value="attn.qkv", output="attn.proj", up="mlp.fc1", down="mlp.fc2",
            attentions=1, feed_forwards=1,
        ),
        norms=4, biases=(6,), last=("layers.0",),
    ),
    plain(
        "in-pieces", homemade.InPieces, batches.plain_words,
        Layers(
            query="to_q", key="to_kv", value="to_kv", output="to_out", up="layers.?.1.1", down="layers.?.1.3",
        ),
        norms=8, biases=(14,), last=("layers.1",),
    ),
    plain(
        "derived-linear", homemade.Derived, batches.plain_words,
        Layers(query="to_q", key="to_k", value="to_v", output="to_out"), biases=(8,), last=("layers.1",),
    ),
    plain(
        "functional", homemade.Functional, batches.plain_vectors, Layers(), new=(), head=None, biases=(0, 1),
    ),
    plain(
        "experts", homemade.Experts, batches.plain_vectors,
        Layers(up="experts.?.0", down="experts.?.2", others="router", feed_forwards=8),
        biases=(18,), last=("layers.1",), routed=True,
    ),
)  # fmt: skip

ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        *CAUSAL, *MIXTURES, *STATE_SPACE, *MASKED, *ENCODER_DECODER, *VISION, *SEGMENTATION, *DETECTION, *AUDIO,
        *MULTIMODAL, *TIME_SERIES, *FURTHER_LANGUAGE, *FURTHER_MODALITIES, *PLAIN,
    )
}  # fmt: skip

# Models that compute attention, if they have any, in code of their own; a few of them stay in, to be refused.
NO_KERNEL = frozenset({
    "bloom-classifier", "mpt", "mamba2", "deberta-v2", "longformer", "xlnet", "mpnet", "convnext", "mobilevit", "vilt",
    "blip", "time-series-transformer", "gptj-classifier", "codegen", "gpt-neo", "gpt-oss", "squeezebert", "convbert",
    "funnel", "deberta", "prophetnet", "led", "switch-transformers", "levit", "pvt-v2", "poolformer", "regnet",
    "swinv2", "focalnet", "timesformer", "upernet", "wavlm", "git", "informer", "patchtsmixer", "experts", "graph",
    "u-net", "weight-norm", "rwkv", "lilt",
})  # fmt: skip
