"""Further language models, chosen because their layers have other names or are called in other ways.

Of these the norms and biases are not counted.
"""

from tests.zoo.row import Layers, Row, fused
from tests.zoo.rows import batches, homemade
from tests.zoo.rows.decoders import (
    ATTENTION,
    EXPERTS,
    GATED,
    GPT2,
    LIMIT,
    LLAMA,
    NEOX,
    SPECIAL,
    classifying,
    generating,
)
from tests.zoo.rows.encoders import BART, BERT, DENSE, IN_T5, T5_STILL, TWO_STACKS, masked, translating

JUST_IN_HEADS = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}

DECODERS = (
    classifying(
        "gptj-classifier", "GPTJModel", "GPTJForSequenceClassification", {**GPT2, "rotary_dim": 4},
        Layers(**JUST_IN_HEADS, output="attn.out_proj", up="fc_in", down="fc_out"),
        new=("score",), last=("transformer.h.1",),
    ),
    generating(
        "codegen", "CodeGenForCausalLM", {**GPT2, "rotary_dim": 4},
        fused("qkv_proj", "attn.out_proj", "fc_in", "fc_out"), last=("transformer.h.1",),
    ),
    generating(
        "gpt-neo", "GPTNeoForCausalLM",
        {
            **SPECIAL, **LIMIT, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 64,
            "attention_types": [[["global", "local"], 1]], "window_size": 4,
        },
        Layers(**JUST_IN_HEADS, output="attention.out_proj", up="c_fc", down="mlp.c_proj"),
        last=("transformer.h.1",), tied="transformer.wte.weight",
    ),
    classifying(
        "persimmon-classifier", "PersimmonModel", "PersimmonForSequenceClassification", LLAMA,
        fused(**NEOX, output="self_attn.dense"), new=("score",), last=("model.layers.1",),
    ),
    generating(
        "ctrl", "CTRLLMHeadModel",
        {
            **SPECIAL, "n_embd": 32, "dff": 64, "n_layer": 2, "n_head": 4, "n_positions": 32, "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
        },
        Layers(query="Wq", key="Wk", value="Wv", output="multi_head_attention.dense", up="ffn.0", down="ffn.2"),
        last=("transformer.h.1",), tied="transformer.w.weight",
    ),
    generating(  # divides weights for evaluation, in place
        "rwkv", "RwkvForCausalLM",
        {
            **SPECIAL, "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "intermediate_size": 64,
            "context_length": 32,
        },
        Layers(
            query="attention.receptance", key="attention.key", value="attention.value", up="feed_forward.key",
            others="feed_forward.receptance attention.output feed_forward.value",
        ),
        family="state space", last=("rwkv.blocks.1",), padded=False,
    ),
    generating(
        "gpt-oss", "GptOssForCausalLM", {**EXPERTS, "head_dim": 8, "num_local_experts": 4}, Layers(**ATTENTION),
        family="mixture of experts", routed=True, last=("model.layers.1",),
    ),
    generating(  # attention through small layers: query and key-value each go down and up again
        "deepseek-v3", "DeepseekV3ForCausalLM",
        {
            **EXPERTS, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 8, "v_head_dim": 8, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
            "moe_intermediate_size": 32, "first_k_dense_replace": 1, "n_shared_experts": 1,
        },
        Layers(
            query="q_b_proj", key="kv_b_proj", value="kv_b_proj", output="o_proj", up="gate_proj up_proj",
            down="down_proj", others="q_a_proj kv_a_proj_with_mqa",
        ),
        family="mixture of experts", routed=True, last=("model.layers.1",),
    ),
    generating(  # a layer of Mamba, a layer of attention
        "jamba", "JambaForCausalLM",
        {
            **EXPERTS, "num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
            "expert_layer_offset": 1, "mamba_d_state": 4, "use_mamba_kernels": False,
        },
        Layers(
            **ATTENTION, up="gate_proj up_proj", down="down_proj", attentions=1, feed_forwards=1,
            others="mamba.in_proj mamba.x_proj mamba.out_proj",
        ),
        family="state space", last=("model.layers.1",), routed=True,
    ),
    generating(  # two recurrent layers, one of attention
        "recurrent-gemma", "RecurrentGemmaForCausalLM",
        {**LLAMA, "lru_width": 32, "attention_window_size": 8, "num_hidden_layers": 3},
        Layers(
            **ATTENTION, up="gate_proj up_proj", down="down_proj", attentions=1, feed_forwards=3,
            others="linear_x linear_y linear_out",
        ),
        family="state space", last=("model.layers.2",), tied="model.embed_tokens.weight",
    ),
    generating(
        "llama-bf16", "LlamaForCausalLM", LLAMA, GATED, options={"dtype": "bfloat16"}, half=True,
        last=("model.layers.1",),
    ),
)  # fmt: skip

ENCODERS = (
    masked(  # convolutions in place of linear layers, but for the pooler
        "squeezebert", "SqueezeBertModel", "SqueezeBertForSequenceClassification",
        {**BERT, "embedding_size": 32, "q_groups": 2, "k_groups": 2, "v_groups": 2}, Layers(alone="pooler.dense:1"),
        new=("classifier",), last=("transformer.encoder.layers.1",),
    ),
    masked(
        "mobilebert", "MobileBertModel", "MobileBertForSequenceClassification",
        {
            **BERT, "embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32,
            "num_feedforward_networks": 2,
        },
        Layers(
            query="self.query", key="self.key", value="self.value", output="attention.output.dense",
            up="intermediate.dense:4", down="layer.?.output.dense:2 ffn.?.output.dense:2",
            others="bottleneck.dense bottleneck.input.dense bottleneck.attention.dense",
        ),
        new=("classifier",), last=("mobilebert.encoder.layer.1",),
    ),
    masked(
        "convbert", "ConvBertModel", "ConvBertForSequenceClassification", {**BERT, "embedding_size": 32},
        Layers(
            query="self.query", key="self.key", value="self.value", **DENSE, others="conv_kernel_layer conv_out_layer"
        ),
        new=("classifier",), last=("convbert.encoder.layer.1",),
    ),
    masked(
        "funnel", "FunnelBaseModel", "FunnelForSequenceClassification",
        {
            **SPECIAL, "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64, "block_sizes": [1, 1],
            "num_decoder_layers": 1, "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0,
        },
        Layers(
            query="q_head", key="k_head", value="v_head", output="post_proj", up="ffn.linear_1", down="ffn.linear_2"
        ),
        new=("classifier",), last=("funnel.encoder.blocks.1",),
    ),
    masked(
        "deberta", "DebertaModel", "DebertaForSequenceClassification",
        {
            **BERT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
            "type_vocab_size": 0,
        },
        Layers(query="self.in_proj", key="self.in_proj", value="self.in_proj", **DENSE, others="pos_proj pos_q_proj"),
        new=("pooler", "classifier"), last=("deberta.encoder.layer.1",),
    ),
    masked(  # two streams: of words and of their places
        "lilt", "LiltModel", "LiltForTokenClassification",
        {**BERT, "hidden_size": 48, "max_2d_position_embeddings": 64, "channel_shrink_ratio": 2},
        Layers(
            query="self.query self.layout_query", key="self.key self.layout_key", value="self.value self.layout_value",
            output="attention.output.dense attention.layout_output.dense", up="intermediate.dense",
            down="layer.?.output.dense", others="*layout* *box*",
        ),
        data=batches.tagged_words_in_boxes, new=("classifier",), last=("lilt.encoder.layer.1",),
    ),
    Row(  # a user's own head around BERT
        name="bert-in-own-module", family="masked", base="BertModel", config=BERT, around=homemade.Pooled,
        layers=Layers(query="self.query", key="self.key", value="self.value", **DENSE), data=batches.plain_words,
        new=("pool", "answer"), head=("pool", "answer"), last=("base.encoder.layer.1",), padded=False,
    ),
)  # fmt: skip

BOTH = (
    translating(
        "prophetnet", "ProphetNetForConditionalGeneration",
        {
            **SPECIAL, **LIMIT, "hidden_size": 32, "num_encoder_layers": 2, "num_decoder_layers": 2,
            "num_encoder_attention_heads": 4, "num_decoder_attention_heads": 4, "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64, "dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0,
            "decoder_start_token_id": 1, "ngram": 2,
        },
        Layers(
            query="query_proj", key="key_proj", value="value_proj", output="out_proj", up="feed_forward.intermediate",
            down="feed_forward.output", others="relative_pos_embeddings", **TWO_STACKS,
        ),
        last=("prophetnet.encoder.layers.1", "prophetnet.decoder.layers.1"),
        tied="prophetnet.word_embeddings.weight",
    ),
    translating(
        "led", "LEDForConditionalGeneration",
        {
            **{name: value for name, value in BART.items() if name not in LIMIT}, "attention_window": 4,
            "max_encoder_position_embeddings": 32, "max_decoder_position_embeddings": 32,
        },
        Layers(
            query="longformer_self_attn.query:2 q_proj:4", key="longformer_self_attn.key:2 k_proj:4",
            value="longformer_self_attn.value:2 v_proj:4",
            output="self_attn.output:2 out_proj:4", up="fc1", down="fc2", feed_forwards=4,
            others="query_global key_global value_global",
        ),
        last=("led.encoder.layers.1", "led.decoder.layers.1"), tied="led.shared.weight",
    ),
    translating(  # an expert is a module: some get no word
        "switch-transformers", "SwitchTransformersForConditionalGeneration",
        {
            **T5_STILL, "num_decoder_layers": 2, "num_experts": 4, "num_sparse_encoder_layers": 1,
            "num_sparse_decoder_layers": 1, "router_jitter_noise": 0.0,
        },
        Layers(
            **IN_T5, up="mlp.wi:2 expert_?.wi:8", down="mlp.wo:2 expert_?.wo:8", others="router.classifier",
            attentions=6,
        ),
        last=("encoder.block.1", "decoder.block.1"), tied="shared.weight", routed=True,
    ),
)  # fmt: skip

FURTHER_LANGUAGE = (*DECODERS, *ENCODERS, *BOTH)
