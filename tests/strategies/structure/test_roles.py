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
