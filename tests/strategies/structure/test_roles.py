"""Roles of layers by their names, on families that name them differently."""

from strategies.structure.roles import roles_of


def test_roles_of_t5_and_modernbert():
    found = {
        "encoder.block.0.layer.0.SelfAttention.q": ["query"],
        "encoder.block.0.layer.0.SelfAttention.o": ["output"],
        "decoder.block.0.layer.1.EncDecAttention.o": ["output"],
        "encoder.block.0.layer.1.DenseReluDense.wi_0": ["up"],
        "encoder.block.0.layer.1.DenseReluDense.wo": ["down"],
        "layers.3.attn.Wqkv": ["query", "key", "value"],
        "layers.3.attn.Wo": ["output"],
        "layers.3.mlp.Wi": ["up"],
        "layers.3.mlp.Wo": ["down"],
        "wo": ["output"],
    }
    assert {name: roles_of(name) for name in found} == found


def test_roles_of_attention_with_prefixes():
    found = {
        "encoder.layer.0.attention.self.layout_query": ["query"],
        "encoder.layer.0.attention.self.layout_key": ["key"],
        "encoder.layer.0.attention.self.layout_value": ["value"],
        "layers.0.self_attention.self_attention.project_q": ["query"],
        "layers.0.self_attention.self_attention.attention_out": ["output"],
        "fusion.attn.vision_proj": ["query"],
        "fusion.attn.text_proj": ["key"],
        "fusion.attn.values_vision_proj": ["value"],
        "fusion.attn.out_text_proj": ["output"],
        "vision_proj": [],
        "encoder.layer.0.attention.projection_layer": ["output"],
        "blocks.0.attn.final": ["output"],
        "model.layers.0.shared_mlp.input_linear": ["up"],
        "model.layers.0.shared_mlp.output_linear": ["down"],
        "layers.0.mlp.proj_in": ["up"],
        "layers.0.mlp.proj_out": ["down"],
        "stages.0.layers.0.pointwise_conv1": ["up"],
    }
    assert {name: roles_of(name) for name in found} == found
