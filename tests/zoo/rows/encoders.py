"""Masked language models with the heads people put on them, and encoder-decoder models."""

from tests.zoo.row import Layers, Row
from tests.zoo.rows import batches
from tests.zoo.rows.decoders import HIDDEN, LIMIT, SPECIAL, THREE

STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
BERT = {**SPECIAL, **HIDDEN, **LIMIT, **STILL, "intermediate_size": 64}
DECODER = {**SPECIAL, "decoder_start_token_id": 1, "forced_eos_token_id": None}
BART = {
    **DECODER, **LIMIT, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "dropout": 0.0,
}  # fmt: skip
T5 = {**SPECIAL, "decoder_start_token_id": 0, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
T5_STILL = {**T5, "dropout_rate": 0.0}
DENSE = {"output": "attention.output.dense", "up": "intermediate.dense", "down": "layer.?.output.dense"}
OF_BERT = Layers(query="self.query", key="self.key", value="self.value", **DENSE)
TWO_STACKS = {"attentions": 6, "feed_forwards": 4}  # self-attention in both, attention to the encoder in the decoder
OF_BART = Layers(
    query="q_proj", key="k_proj", value="v_proj", output="out_proj", up="fc1", down="fc2", **TWO_STACKS
)  # fmt: skip
IN_T5 = {"query": "*Attention.q", "key": "*Attention.k", "value": "*Attention.v", "output": "*Attention.o"}
LAST_OF_BART = ("model.encoder.layers.1", "model.decoder.layers.1")


def masked(name, base, task, config, layers, *, data=batches.sentences, options=THREE, **facts):
    """Give an encoder with a new head."""
    return Row(
        name=name, family="masked", base=base, task=task, config=config, options=options, layers=layers, data=data,
        **facts,
    )  # fmt: skip


def translating(name, task, config, layers, **facts):
    """Give an encoder-decoder that goes on as one: nothing is new, embeddings in and out are one parameter."""
    data = facts.pop("data", batches.translation)
    return Row(name=name, family="encoder-decoder", task=task, config=config, layers=layers, data=data, **facts)


MASKED = (
    masked(
        "bert", "BertModel", "BertForSequenceClassification", BERT, OF_BERT,
        new=("classifier",), norms=10, biases=(18,), last=("bert.encoder.layer.1",),
    ),
    masked(
        "bert-mlm", "", "BertForMaskedLM", BERT, OF_BERT, data=batches.language, options={},
        norms=12, biases=(20,), last=("bert.encoder.layer.1",), tied="bert.embeddings.word_embeddings.weight",
    ),
    masked(
        "roberta-tagger", "RobertaModel", "RobertaForTokenClassification", BERT, OF_BERT, data=batches.tagged_words,
        new=("classifier",), norms=10, biases=(17,), last=("roberta.encoder.layer.1",),
    ),
    masked(
        "distilbert", "DistilBertModel", "DistilBertForSequenceClassification",
        {
            **SPECIAL, **LIMIT, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "dropout": 0.0,
            "attention_dropout": 0.0, "seq_classif_dropout": 0.0,
        },
        Layers(query="q_lin", key="k_lin", value="v_lin", output="out_lin", up="lin1", down="lin2"),
        new=("pre_classifier", "classifier"), norms=10, biases=(17,), last=("distilbert.transformer.layer.1",),
    ),
    masked(
        "deberta-v2", "DebertaV2Model", "DebertaV2ForSequenceClassification",
        {
            **BERT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8,
            "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0,
        },
        Layers(query="query_proj", key="key_proj", value="value_proj", **DENSE),
        new=("pooler", "classifier"), norms=12, biases=(18,), last=("deberta.encoder.layer.1",),
    ),
    masked(  # one block, called twice
        "albert", "AlbertModel", "AlbertForSequenceClassification",
        {**BERT, "embedding_size": 16, "classifier_dropout_prob": 0.0},
        Layers(
            query="attention.query", key="attention.key", value="attention.value", output="attention.dense",
            up="albert_layers.0.ffn", down="ffn_output", attentions=1, feed_forwards=1,
        ),
        new=("classifier",), norms=6, biases=(11,), last=("albert.encoder.albert_layer_groups.0",),
    ),
    masked(
        "electra", "ElectraModel", "ElectraForSequenceClassification", {**BERT, "embedding_size": 16}, OF_BERT,
        new=("classifier",), norms=10, biases=(18,), last=("electra.encoder.layer.1",),
    ),
    masked(
        "modernbert", "ModernBertModel", "ModernBertForSequenceClassification",
        {**SPECIAL, **HIDDEN, **LIMIT, "intermediate_size": 64, "cls_token_id": 1, "sep_token_id": 2},
        Layers(query="Wqkv", key="Wqkv", value="Wqkv", output="attn.Wo", up="mlp.Wi", down="mlp.Wo"),
        new=("head", "classifier"), norms=5, last=("model.layers.1",),
    ),
    masked(
        "longformer", "LongformerModel", "LongformerForSequenceClassification", {**BERT, "attention_window": 4},
        Layers(
            query="self.query", key="self.key", value="self.value", **DENSE,
            others="query_global key_global value_global",
        ),
        new=("classifier",), norms=10, biases=(23,), last=("longformer.encoder.layer.1",),
    ),
    masked(  # query, key, value and output are bare parameters; biases of its attention are matrices, one row a head
        "xlnet", "XLNetModel", "XLNetForSequenceClassification",
        {
            **SPECIAL, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "dropout": 0.0,
            "summary_last_dropout": 0.0,
        },
        Layers(up="ff.layer_1", down="ff.layer_2"),
        new=("sequence_summary", "logits_proj"), norms=8, biases=(8, 14), last=("transformer.layer.1",),
    ),
    masked(  # no attention: Fourier transforms
        "fnet", "FNetModel", "FNetForSequenceClassification", {**BERT, "type_vocab_size": 2},
        Layers(up="intermediate.dense", down="layer.?.output.dense"), data=batches.unmasked_sentences,
        new=("classifier",), norms=10, biases=(11,), last=("fnet.encoder.layer.1",),
    ),
    masked(
        "mpnet", "MPNetModel", "MPNetForSequenceClassification", BERT,
        Layers(
            query="attn.q", key="attn.k", value="attn.v", output="attn.o", up="intermediate.dense",
            down="layer.?.output.dense",
        ),
        new=("classifier",), norms=10, biases=(17,), last=("mpnet.encoder.layer.1",),
    ),
)  # fmt: skip

ENCODER_DECODER = (
    translating(
        "t5", "T5ForConditionalGeneration", T5_STILL,
        Layers(**IN_T5, up="DenseReluDense.wi", down="DenseReluDense.wo", **TWO_STACKS),
        norms=12, last=("encoder.block.1", "decoder.block.1"), tied="shared.weight",
    ),
    translating(
        "t5-classifier", "T5ForSequenceClassification", {**T5_STILL, "feed_forward_proj": "gated-gelu"},
        Layers(**IN_T5, up="wi_0 wi_1", down="DenseReluDense.wo", **TWO_STACKS), data=batches.sentences_with_end,
        base="T5Model", options=THREE, new=("classification_head",), norms=12,
        last=("transformer.encoder.block.1", "transformer.decoder.block.1"),
    ),
    translating(
        "bart-classifier", "BartForSequenceClassification", BART, OF_BART, data=batches.sentences_with_end,
        base="BartModel", options=THREE, new=("classification_head",), norms=24, biases=(44,), last=LAST_OF_BART,
    ),
    translating(
        "marian", "MarianMTModel", BART, OF_BART, norms=20, biases=(42,), last=LAST_OF_BART,
        tied="model.shared.weight",
    ),
    translating(
        "pegasus", "PegasusForConditionalGeneration", BART, OF_BART, norms=24, biases=(44,), last=LAST_OF_BART,
        tied="model.shared.weight",
    ),
    translating(
        "mbart", "MBartForConditionalGeneration", BART, OF_BART, norms=28, biases=(46,), last=LAST_OF_BART,
        tied="model.shared.weight",
    ),
    translating(
        "whisper", "WhisperForConditionalGeneration",
        {
            **BART, "num_mel_bins": 8, "max_source_positions": 8, "max_target_positions": 16,
            "begin_suppress_tokens": None,
        },
        OF_BART, data=batches.transcribed_spectrograms, norms=24, biases=(40,), last=LAST_OF_BART,
        tied="model.decoder.embed_tokens.weight",
    ),
)  # fmt: skip
