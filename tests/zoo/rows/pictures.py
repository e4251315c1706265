"""Vision models: classifiers, detectors, and models that give a number or a class for each pixel."""

from tests.zoo.row import Layers, Row
from tests.zoo.rows import batches
from tests.zoo.rows.decoders import HIDDEN, THREE
from tests.zoo.rows.encoders import DENSE, STILL, TWO_STACKS

VIT = {**HIDDEN, **STILL, "intermediate_size": 64, "image_size": 16, "patch_size": 8}
ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
OF_VIT = Layers(**ATTENTION, up="fc1", down="fc2")
OF_BERT = Layers(query="attention.query", key="attention.key", value="attention.value", **DENSE)
RESNET = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [2, 2], "layer_type": "basic"}


def seeing(name, base, task, config, layers, **facts):
    """Give a vision model with a new head."""
    facts = {"family": "vision", "data": batches.labelled_pictures, "new": ("classifier",)} | facts
    return Row(name=name, base=base, task=task, config=config, options=THREE, layers=layers, padded=False, **facts)


VISION = (
    seeing(
        "vit", "ViTModel", "ViTForImageClassification", VIT, OF_VIT, norms=10, biases=(18,), last=("vit.layers.1",),
    ),
    seeing(
        "deit", "DeiTModel", "DeiTForImageClassification", VIT, OF_VIT,
        norms=10, biases=(18,), last=("deit.layers.1",),
    ),
    seeing(  # two stages of two blocks
        "swin", "SwinModel", "SwinForImageClassification",
        {
            **STILL, "image_size": 16, "patch_size": 2, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4],
            "window_size": 4, "mlp_ratio": 2.0, "drop_path_rate": 0.0,
        },
        Layers(**ATTENTION, up="fc1", down="fc2", others="reduction", attentions=4, feed_forwards=4),
        norms=22, biases=(36,), last=("swin.encoder.layers.1", "swin.encoder.layers.1.blocks.1"),
    ),
    seeing(
        "beit", "BeitModel", "BeitForImageClassification", {**VIT, "drop_path_rate": 0.0}, OF_VIT,
        norms=10, biases=(16,), last=("beit.layers.1",),
    ),
    seeing(  # `mask_token` is there and unused
        "dinov2", "Dinov2Model", "Dinov2ForImageClassification", {**VIT, "mlp_ratio": 2}, OF_VIT,
        norms=10, biases=(18,), last=("dinov2.encoder.layer.1",),
    ),
    seeing(
        "convnext", "ConvNextModel", "ConvNextForImageClassification",
        {"num_stages": 2, "hidden_sizes": [32, 64], "depths": [2, 2], "patch_size": 2, "layer_scale_init_value": 0.1},
        Layers(up="pwconv1", down="pwconv2", feed_forwards=4),
        norms=14, biases=(21,), last=("convnext.encoder.stages.1", "convnext.encoder.stages.1.layers.1"),
    ),
    seeing(
        "resnet", "ResNetModel", "ResNetForImageClassification", RESNET,
        Layers(alone="layer.?.convolution:8 shortcut.convolution:1"),
        norms=20, biases=(10,), last=("resnet.encoder.stages.1", "resnet.encoder.stages.1.layers.1"), batch_norm=True,
    ),
    seeing(  # stages of two, four and three transformer layers
        "mobilevit", "MobileViTModel", "MobileViTForImageClassification",
        {
            **STILL, "image_size": 32, "hidden_sizes": [32, 32, 32], "neck_hidden_sizes": [8, 8, 8, 16, 16, 16, 32],
            "num_attention_heads": 4, "expand_ratio": 1.0, "classifier_dropout_prob": 0.0,
        },
        Layers(
            query="attention.query", key="attention.key", value="attention.value", **DENSE,
            attentions=9, feed_forwards=9,
        ),
        data=batches.larger_pictures, last=("mobilevit.encoder.layer.4",), batch_norm=True,
    ),
)  # fmt: skip

SEGMENTATION = (
    seeing(
        "segformer", "SegformerModel", "SegformerForSemanticSegmentation",
        {
            **STILL, "num_encoder_blocks": 2, "depths": [2, 2], "sr_ratios": [2, 1], "hidden_sizes": [32, 64],
            "patch_sizes": [3, 3], "strides": [2, 2], "num_attention_heads": [2, 4], "mlp_ratios": [2, 2],
            "classifier_dropout_prob": 0.0, "drop_path_rate": 0.0, "decoder_hidden_size": 32,
        },
        Layers(**ATTENTION, up="mlp.fc1", down="mlp.fc2", attentions=4, feed_forwards=4),
        family="segmentation", data=batches.segmented_pictures, new=("decode_head",), batch_norm=True,
        norms=28, biases=(46,), last=("segformer.stages.1", "segformer.stages.1.blocks.1"),
    ),
    seeing(
        "dpt", "DPTModel", "DPTForSemanticSegmentation",
        {
            **VIT, "num_hidden_layers": 4, "image_size": 32, "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 16, "semantic_classifier_dropout": 0.0,
        },
        Layers(
            query="attention.query", key="attention.key", value="attention.value", **DENSE,
            attentions=4, feed_forwards=4,
        ),
        family="segmentation", data=batches.larger_segmented_pictures, new=("neck", "head", "auxiliary_head"),
        batch_norm=True, random=True,  # a tenth of the auxiliary head is dropped
        norms=18, biases=(34,), last=("dpt.encoder.layer.3",),
    ),
)  # fmt: skip

DETECTION = (
    seeing(  # its backbone is a ResNet whose batch norms are fixed, and whose first stages never train
        "detr", "DetrModel", "DetrForObjectDetection",
        {
            "backbone_config": {"model_type": "resnet", **RESNET, "out_features": ["stage2"]}, "d_model": 32,
            "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_queries": 5, "dropout": 0.0,
        },
        Layers(
            **ATTENTION, up="mlp.fc1", down="mlp.fc2", others="convolution input_projection", **TWO_STACKS
        ),
        family="detection", data=batches.pictures_with_boxes, new=("class_labels_classifier", "bbox_predictor"),
        norms=22, biases=(44,),
        last=(
            "model.backbone.model.encoder.stages.1.layers.1", "model.encoder.layers.1", "model.decoder.layers.1",
        ),
    ),
    seeing(
        "yolos", "YolosModel", "YolosForObjectDetection",
        {**VIT, "image_size": [32, 32], "num_detection_tokens": 5, "use_mid_position_embeddings": False}, OF_BERT,
        family="detection", data=batches.pictures_with_boxes, new=("class_labels_classifier", "bbox_predictor"),
        norms=10, biases=(18,), last=("vit.encoder.layer.1",),
    ),
)  # fmt: skip
