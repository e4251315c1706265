"""Which checkpoints can be a tower: one table per kind, from `model_type` to "takes a pooler option".

A pooler never gets a gradient here (the fusion reads tokens), so towers are always built without.
Supporting a new family is a new row, if its model maps `pixel_values` or `input_ids` to
`last_hidden_state`.
"""

from __future__ import annotations

VISION_FAMILIES = {
    "vit": True,
    "deit": True,
    "beit": True,
    "data2vec-vision": True,
    "ijepa": True,
    "dinov2": False,
    "dinov2_with_registers": False,
    "dinov3_vit": False,
    "vit_msn": False,
}
TEXT_FAMILIES = {
    "bert": True,  # MiniLM too
    "roberta": True,
    "xlm-roberta": True,
    "camembert": True,
    "ernie": True,
    "mpnet": True,
    "albert": True,
    "distilbert": False,
    "electra": False,
    "deberta-v2": False,
    "modernbert": False,
}
ANY_SIZE_FAMILIES = ("beit", "data2vec-vision", "dinov3_vit")  # find the positions of any picture size in every step
ROBERTA_FAMILIES = ("roberta", "xlm-roberta", "camembert", "mpnet")
SLIDING_FAMILIES = ("modernbert",)  # some layers see a window only, so the tower must make its own masks


def pooler_option(model_type: str) -> dict[str, bool]:
    """Keyword that leaves the pooler out, for families that have one."""
    return {"add_pooling_layer": False} if {**VISION_FAMILIES, **TEXT_FAMILIES}[model_type] else {}
