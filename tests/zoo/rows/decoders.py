"""Causal language models, mixtures of experts and state-space models, and what a reader knows of each."""

from tests.zoo.row import Layers, Row, fused
from tests.zoo.rows import batches

HIDDEN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SPECIAL = {"vocab_size": 60, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LIMIT = {"max_position_embeddings": 32}
LLAMA = {**SPECIAL, **HIDDEN, **LIMIT, "intermediate_size": 64, "num_key_value_heads": 2}
GPT2 = {**SPECIAL, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
GPT2_STILL = {**GPT2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
EXPERTS = {**LLAMA, "num_experts_per_tok": 2}
THREE = {"num_labels": batches.CLASSES}
ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
GATED = Layers(**ATTENTION, up="gate_proj up_proj", down="down_proj")
NEOX = {"name": "query_key_value", "up": "dense_h_to_4h", "down": "dense_4h_to_h"}


def generating(name, task, config, layers, **facts):
    """Give a language model that goes on as one: every weight is pretrained, the output embedding too."""
    family = facts.pop("family", "causal")
    return Row(name=name, family=family, task=task, config=config, layers=layers, data=batches.language, **facts)


def classifying(name, base, task, config, layers, *, data=batches.sentences, **facts):
    """Give a language model with a new layer for classes."""
    return Row(
        name=name, family="causal", base=base, task=task, config=config, options=THREE, layers=layers, data=data,
        **facts,
    )  # fmt: skip


CAUSAL = (
    generating("llama", "LlamaForCausalLM", LLAMA, GATED, norms=5, last=("model.layers.1",)),
    classifying(
        "llama-classifier", "LlamaModel", "LlamaForSequenceClassification", LLAMA, GATED,
        new=("score",), norms=5, last=("model.layers.1",),
    ),
    generating(
        "gpt2", "GPT2LMHeadModel", GPT2_STILL, fused("attn.c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"),
        norms=10, biases=(13,), last=("transformer.h.1",), tied="transformer.wte.weight",
    ),
    classifying(
        "gpt2-classifier", "GPT2Model", "GPT2ForSequenceClassification", GPT2_STILL,
        fused("attn.c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"),
        new=("score",), norms=10, biases=(13,), last=("transformer.h.1",),
    ),
    generating(
        "gpt-neox", "GPTNeoXForCausalLM", {**SPECIAL, **HIDDEN, **LIMIT, "intermediate_size": 64},
        fused(**NEOX, output="attention.dense"), norms=10, biases=(13,), last=("gpt_neox.layers.1",),
    ),
    generating(
        "opt", "OPTForCausalLM",
        {**SPECIAL, **HIDDEN, **LIMIT, "ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0},
        Layers(query="q_proj", key="k_proj", value="v_proj", output="out_proj", up="fc1", down="fc2"),
        norms=10, biases=(17,), last=("model.decoder.layers.1",), tied="model.decoder.embed_tokens.weight",
    ),
    classifying(
        "bloom-classifier", "BloomModel", "BloomForSequenceClassification",
        {**SPECIAL, "hidden_size": 32, "n_layer": 2, "n_head": 4}, fused(**NEOX, output="self_attention.dense"),
        new=("score",), norms=12, biases=(14,), last=("transformer.h.1",),
    ),
    generating(
        "falcon", "FalconForCausalLM", {**SPECIAL, **HIDDEN}, fused(**NEOX, output="self_attention.dense"),
        norms=6, biases=(3,), last=("transformer.h.1",), tied="transformer.word_embeddings.weight",
    ),
    generating(
        "phi", "PhiForCausalLM", LLAMA,
        Layers(query="q_proj", key="k_proj", value="v_proj", output="self_attn.dense", up="fc1", down="fc2"),
        norms=6, biases=(16,), last=("model.layers.1",),
    ),
    generating(
        "phi3", "Phi3ForCausalLM", LLAMA, fused("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
        norms=5, last=("model.layers.1",),
    ),
    classifying(
        "qwen2-classifier", "Qwen2Model", "Qwen2ForSequenceClassification", LLAMA, GATED,
        new=("score",), norms=5, biases=(6,), last=("model.layers.1",),
    ),
    generating("qwen3", "Qwen3ForCausalLM", {**LLAMA, "head_dim": 8}, GATED, norms=9, last=("model.layers.1",)),
    generating(
        "gemma2", "Gemma2ForCausalLM", {**LLAMA, "head_dim": 8, "query_pre_attn_scalar": 8}, GATED,
        norms=9, last=("model.layers.1",), tied="model.embed_tokens.weight",
    ),
    classifying(
        "mistral-tagger", "MistralModel", "MistralForTokenClassification", LLAMA, GATED, data=batches.tagged_words,
        new=("score",), norms=5, last=("model.layers.1",),
    ),
    generating(
        "mpt", "MptForCausalLM",
        {**SPECIAL, "d_model": 32, "n_heads": 4, "n_layers": 2, "expansion_ratio": 2, "max_seq_len": 32},
        fused("Wqkv", "out_proj", "ffn.up_proj", "ffn.down_proj"),
        norms=5, last=("transformer.blocks.1",), tied="transformer.wte.weight",
    ),
    generating(
        "starcoder2", "Starcoder2ForCausalLM", LLAMA, Layers(**ATTENTION, up="c_fc", down="mlp.c_proj"),
        norms=10, biases=(17,), last=("model.layers.1",), tied="model.embed_tokens.weight",
    ),
    classifying(
        "gpt-bigcode-classifier", "GPTBigCodeModel", "GPTBigCodeForSequenceClassification", GPT2_STILL,
        fused("attn.c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"),
        new=("score",), norms=10, biases=(13,), last=("transformer.h.1",),
    ),
    generating("olmo2", "Olmo2ForCausalLM", LLAMA, GATED, norms=9, last=("model.layers.1",)),
)  # fmt: skip

# The experts of a layer are one three-dimensional parameter, and routers are parameters too: neither is a linear layer.
MIXTURES = (
    generating(
        "mixtral", "MixtralForCausalLM", {**EXPERTS, "num_local_experts": 4}, Layers(**ATTENTION),
        family="mixture of experts", routed=True, norms=5, last=("model.layers.1",),
    ),
    generating(
        "qwen2-moe", "Qwen2MoeForCausalLM",
        {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 64},
        Layers(
            **ATTENTION, up="shared_expert.gate_proj shared_expert.up_proj", down="shared_expert.down_proj",
            others="shared_expert_gate",
        ),
        family="mixture of experts", routed=True, norms=5, biases=(6,), last=("model.layers.1",),
    ),
    generating(
        "olmoe", "OlmoeForCausalLM", {**EXPERTS, "num_experts": 4}, Layers(**ATTENTION),
        family="mixture of experts", routed=True, norms=9, last=("model.layers.1",),
    ),
)  # fmt: skip

# Mamba's kernels for GPUs read the weights of all but in_proj without calling the layers: adapters would be lost.
STATE_SPACE = (
    generating(
        "mamba", "MambaForCausalLM", {**SPECIAL, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
        Layers(alone="in_proj:2"),
        family="state space", norms=3, biases=(4,), last=("backbone.layers.1",), tied="backbone.embeddings.weight",
    ),
    generating(
        "mamba2", "Mamba2ForCausalLM",
        {
            **SPECIAL, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "num_heads": 8, "head_dim": 8,
            "n_groups": 1, "chunk_size": 8,
        },
        Layers(alone="in_proj:2"),
        family="state space", norms=5, biases=(2, 4), last=("backbone.layers.1",),
    ),
)  # fmt: skip
