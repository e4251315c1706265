"""Tiny configurations of transformers' families, and what a reader of each architecture would name in it.

`blocks`: how many repeated blocks it has; `adapted`: endings of the layers that make queries and values, or of all
linear layers where it has no such; `pairs`: endings of feed-forward parts, first > last; `left`: endings of linear
layers in the blocks around which no adapter may be put.
"""

import inspect
from typing import NamedTuple

from transformers.models.jamba import modeling_jamba as jamba


class Family(NamedTuple):
    """A model type's configuration, and what is in it."""

    config: dict
    blocks: int
    adapted: str
    pairs: str
    left: str = ""


SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
WORDS = {**SIZE, "vocab_size": 60}
PICTURE = {**SIZE, "image_size": 32, "patch_size": 8}
SEVEN = {"d_model": 16, "vocab_size": 60} | {
    f"{side}_{what}": size
    for side in ("encoder", "decoder")
    for what, size in {"layers": 2, "attention_heads": 2, "ffn_dim": 32}.items()
}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 60}
GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 60}
SPEECH = {
    **SIZE, "conv_dim": (8, 8, 8), "conv_stride": (2, 2, 2), "conv_kernel": (3, 3, 3), "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
STAGES = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 2], "num_heads": [2, 2], "window_size": 4}
SERIES = {**SEVEN, "prediction_length": 4, "lags_sequence": [1, 2]}
PYRAMID = {"depths": [1, 1, 1, 2], "hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 2, 2, 2]}
RESNET = {
    "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_type": "basic",
    "out_features": ["stage2"],
}  # fmt: skip
EXPERTS = {**WORDS, "num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
MLA = {
    **WORDS, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "q_lora_rank": 8,
    "moe_intermediate_size": 16, "first_k_dense_replace": 1, "kv_lora_rank": 8, "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4, "v_head_dim": 8,
}  # fmt: skip
MAMBA = {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "vocab_size": 60}
HYBRID = {
    **WORDS, "attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_period": 2, "expert_layer_offset": 1,
    "num_experts": 2, "mamba_d_state": 4, "use_mamba_kernels": False,
}  # fmt: skip
# Newer releases multiply by this layer's weight, older ones call it.
READ_BY_JAMBA = "dt_proj" if " time_step = self.dt_proj.weight" in inspect.getsource(jamba.JambaMambaMixer) else ""
SPECIAL = {f"{name}_token_id": place for place, name in enumerate(("pad", "bos", "eos", "cls", "sep"))}

QKV, QV, BERT = "q_proj v_proj", "query value", "intermediate.dense>output.dense"
GATED = "up_proj>down_proj"
FC = "fc1>fc2"

# fmt: off
FAMILIES = {
    # encoders of text
    "bert": Family(WORDS, 2, QV, BERT),
    "distilbert": Family(
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 60}, 2, "q_lin v_lin", "lin1>lin2"
    ),
    "albert": Family({**WORDS, "embedding_size": 8}, 0, QV, "ffn>ffn_output"),
    "modernbert": Family({**WORDS, **SPECIAL}, 2, "Wqkv", "Wi>Wo"),
    "deberta": Family({**WORDS, "relative_attention": True, "pos_att_type": ["c2p"]}, 2, "in_proj", BERT),
    "deberta-v2": Family({**WORDS, "relative_attention": True}, 2, "query_proj value_proj", BERT),
    "longformer": Family({**WORDS, "attention_window": 4}, 2, "query value query_global value_global", BERT),
    "xlnet": Family({"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32}, 2, "layer_1 layer_2", "layer_1>layer_2"),
    "funnel": Family(
        {
            "d_model": 16,
            "n_head": 2,
            "d_head": 8,
            "d_inner": 32,
            "block_sizes": [1, 2],
            "num_decoder_layers": 1,
            "architectures": ["FunnelModel"],
        },
        3,
        "q_head v_head",
        "linear_1>linear_2",
    ),
    "reformer": Family(
        {
            "hidden_size": 16,
            "feed_forward_size": 32,
            "attn_layers": ["local", "lsh"],
            "num_attention_heads": 2,
            "attention_head_size": 8,
            "axial_pos_embds": False,
            "vocab_size": 60,
        },
        2,
        "query query_key value",
        "feed_forward.dense.dense>feed_forward.output.dense",
    ),
    "fnet": Family(WORDS, 2, "intermediate.dense output.dense", BERT),
    "mobilebert": Family(
        {**WORDS, "embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16}, 2, QV, BERT
    ),
    "xlm": Family({"emb_dim": 16, "n_layers": 2, "n_heads": 2}, 4, "q_lin v_lin", "lin1>lin2"),
    "canine": Family(SIZE, 2, QV, BERT),
    "perceiver": Family(
        {
            "d_latents": 16,
            "d_model": 8,
            "num_latents": 4,
            "num_self_attends_per_block": 2,
            "num_self_attention_heads": 2,
            "num_cross_attention_heads": 2,
        },
        2,
        QV,
        "dense1>dense2",
    ),
    # decoders of text
    "gpt2": Family(GPT, 2, "c_attn", "c_fc>c_proj"),
    "gptj": Family({**GPT, "rotary_dim": 4}, 2, QKV, "fc_in>fc_out"),
    "gpt_neox": Family(WORDS, 2, "query_key_value", "dense_h_to_4h>dense_4h_to_h"),
    "falcon": Family(WORDS, 2, "query_key_value", "dense_h_to_4h>dense_4h_to_h"),
    "bloom": Family(
        {"hidden_size": 16, "n_layer": 2, "n_head": 2, "vocab_size": 60},
        2,
        "query_key_value",
        "dense_h_to_4h>dense_4h_to_h",
    ),
    "mpt": Family({"d_model": 16, "n_layers": 2, "n_heads": 2, "vocab_size": 60}, 2, "Wqkv", GATED),
    "ctrl": Family({"n_embd": 16, "dff": 32, "n_layer": 2, "n_head": 2}, 2, "Wq Wv", "ffn.0>ffn.2"),
    "opt": Family({**WORDS, "ffn_dim": 32, "word_embed_proj_dim": 16}, 2, QKV, FC),
    "llama": Family(WORDS, 2, QKV, GATED),
    "phi": Family(WORDS, 2, QKV, FC),
    "phi3": Family({**WORDS, "pad_token_id": 0}, 2, "qkv_proj", "gate_up_proj>down_proj"),
    # mixtures of experts
    "mixtral": Family({**WORDS, "num_local_experts": 4}, 2, QKV, ""),
    "qwen2_moe": Family(EXPERTS, 2, QKV, GATED),
    "deepseek_v3": Family(MLA, 2, "q_a_proj q_b_proj kv_a_proj_with_mqa kv_b_proj", GATED),
    "phimoe": Family({**WORDS, "num_local_experts": 4}, 2, QKV, "", "router"),
    # state spaces and hybrids
    "mamba": Family(MAMBA, 2, "in_proj", "", "x_proj dt_proj out_proj"),
    "mamba2": Family({**MAMBA, "num_heads": 4, "head_dim": 8, "n_groups": 1}, 2, "in_proj", "", "out_proj"),
    "jamba": Family(HYBRID, 2, QKV, GATED, READ_BY_JAMBA),
    "rwkv": Family(
        {**WORDS, "attention_hidden_size": 16},
        2,
        "attention.receptance attention.value",
        "",
        "attention.output feed_forward.value",
    ),
    # encoder-decoders
    "t5": Family(T5, 4, "q v", "wi>wo"),
    "umt5": Family(T5, 4, "q v", "wi_1>wo"),
    "bart": Family(SEVEN, 4, QKV, FC),
    "led": Family(SEVEN, 4, "query value query_global value_global q_proj v_proj", FC),
    # speech
    "whisper": Family({**SEVEN, **SPECIAL, "num_mel_bins": 8, "decoder_start_token_id": 1}, 4, QKV, FC),
    "wav2vec2": Family(SPEECH, 2, QKV, "intermediate_dense>output_dense"),
    "hubert": Family(SPEECH, 2, QKV, "intermediate_dense>output_dense"),
    "wavlm": Family(
        SPEECH,
        2,
        "gru_rel_pos_linear intermediate_dense output_dense",
        "intermediate_dense>output_dense",
        "q_proj k_proj v_proj out_proj",
    ),
    "wav2vec2-bert": Family(
        {**SIZE, "feature_projection_input_dim": 8}, 2, "linear_q linear_v", "intermediate_dense>output_dense"
    ),
    # vision
    "vit": Family(PICTURE, 2, QKV, FC),
    "beit": Family(PICTURE, 2, QKV, FC),
    "dinov2": Family(PICTURE, 2, f"{QKV} {QV}", FC),  # older releases: query, value
    "swin": Family(STAGES, 3, QKV, FC),
    "swinv2": Family(STAGES, 3, QV, BERT),
    "convnext": Family(
        {"hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2}, 3, "pwconv1 pwconv2", "pwconv1>pwconv2"
    ),
    "segformer": Family(
        {
            "num_encoder_blocks": 2,
            "depths": [1, 2],
            "sr_ratios": [2, 1],
            "hidden_sizes": [8, 16],
            "num_attention_heads": [1, 2],
            "patch_sizes": [7, 3],
            "strides": [4, 2],
            "mlp_ratios": [2, 2],
        },
        3,
        QKV,
        FC,
    ),
    "levit": Family(
        {
            "image_size": 32, "hidden_sizes": [16] * 3, "num_attention_heads": [2] * 3, "depths": [1, 1, 2],
            "key_dim": [8] * 3,
        },
        3, "queries_keys_values.linear queries.linear keys_values.linear", "linear_up.linear>linear_down.linear",
    ),
    "pvt": Family({**PYRAMID, "image_size": 32}, 5, QV, "dense1>dense2"),
    "pvt_v2": Family(PYRAMID, 5, QV, "dense1>dense2"),
    "hiera": Family(
        {"image_size": [32, 32], "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}, 4, "qkv", FC
    ),
    "detr": Family({**SEVEN, "use_timm_backbone": False, "backbone_config": RESNET}, 7, QKV, FC),
    # pictures with words
    "clip": Family({"text_config": WORDS, "vision_config": PICTURE}, 4, QKV, FC),
    "lxmert": Family(
        {**SIZE, "l_layers": 2, "x_layers": 2, "r_layers": 2, "visual_feat_dim": 8, "vocab_size": 60},
        6,
        QV,
        f"{BERT} lang_inter.dense>lang_output.dense visn_inter.dense>visn_output.dense",
    ),
    # time series
    "patchtst": Family(
        {
            "d_model": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "ffn_dim": 32,
            "patch_length": 4,
            "context_length": 16,
            "num_input_channels": 2,
        },
        2,
        QKV,
        "ff.0>ff.3",
    ),
    "timesfm": Family({**SIZE, "head_dim": 8}, 2, QKV, "gate_proj>down_proj"),
    "informer": Family(SERIES, 4, QKV, FC),
}
# fmt: on
