"""Further models of pictures, sound and series, chosen because their layers have other names or are called otherwise.

Of these the norms and biases are not counted.
"""

from tests.zoo.row import Layers, Row
from tests.zoo.rows import batches, homemade
from tests.zoo.rows.decoders import ATTENTION, HIDDEN, LIMIT, LLAMA, SPECIAL, THREE
from tests.zoo.rows.encoders import BERT, LAST_OF_BART, STILL, TWO_STACKS
from tests.zoo.rows.modalities import OF_WAV2VEC2, OUT, PICTURE_TOWER, WAV2VEC2
from tests.zoo.rows.pictures import RESNET, VIT, seeing

POSITIONS = "q_pos_proj k_pos_proj q_pos_sine_proj query_scale.layers.? ref_point_head.layers.?"
DETR = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_queries": 5, "dropout": 0.0,
}  # fmt: skip

PICTURES = (
    seeing(
        "levit", "LevitModel", "LevitForImageClassification",
        {
            "image_size": 32, "hidden_sizes": [32, 32, 32], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1],
            "key_dim": [8, 8, 8], "mlp_ratio": [2, 2, 2], "attention_ratio": [2, 2, 2],
        },
        Layers(
            query="queries_keys_values.linear:3 queries.linear:2",
            key="queries_keys_values.linear:3 keys_values.linear:2",
            value="queries_keys_values.linear:3 keys_values.linear:2", output="projection.linear",
            up="linear_up.linear", down="linear_down.linear", attentions=5, feed_forwards=5,
        ),
        data=batches.larger_pictures, last=("levit.encoder.stages.2",), batch_norm=True,
    ),
    seeing(
        "pvt-v2", "PvtV2Model", "PvtV2ForImageClassification",
        {
            "image_size": 32, "num_encoder_blocks": 2, "depths": [2, 2], "sr_ratios": [2, 1], "hidden_sizes": [32, 64],
            "patch_sizes": [3, 3], "strides": [4, 2], "num_attention_heads": [2, 4], "mlp_ratios": [2, 2],
        },
        Layers(
            query="attention.query", key="attention.key", value="attention.value", output="attention.proj",
            up="dense1", down="dense2", attentions=4, feed_forwards=4,
        ),
        data=batches.larger_pictures, last=("pvt_v2.encoder.layers.1", "pvt_v2.encoder.layers.1.blocks.1"),
    ),
    seeing(
        "poolformer", "PoolFormerModel", "PoolFormerForImageClassification",
        {
            "hidden_sizes": [16, 32], "depths": [2, 2], "num_encoder_blocks": 2, "patch_sizes": [3, 3],
            "strides": [2, 2], "padding": [1, 1], "drop_path_rate": 0.0, "layer_scale_init_value": 0.1,
        },
        Layers(alone="output.conv1:4 output.conv2:4", others="projection"),
        new=("norm", "classifier"), last=("poolformer.encoder.block.1", "poolformer.encoder.block.1.1"),
    ),
    seeing(  # its middle convolutions have groups
        "regnet", "RegNetModel", "RegNetForImageClassification",
        {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 2], "groups_width": 8},
        Layers(
            alone="layer.0.convolution:3 layer.3.convolution:3 attention.0:3 attention.2:3 shortcut.convolution:2"
        ),
        last=("regnet.encoder.stages.1", "regnet.encoder.stages.1.layers.1"), batch_norm=True,
    ),
    seeing(
        "swinv2", "Swinv2Model", "Swinv2ForImageClassification",
        {
            **STILL, "image_size": 16, "patch_size": 2, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4],
            "window_size": 4, "mlp_ratio": 2.0, "drop_path_rate": 0.0,
        },
        Layers(
            query="self.query", key="self.key", value="self.value", output="attention.output.dense",
            up="intermediate.dense", down="blocks.?.output.dense", attentions=4, feed_forwards=4,
            others="reduction continuous_position_bias_mlp.?",
        ),
        last=("swinv2.encoder.layers.1", "swinv2.encoder.layers.1.blocks.1"),
    ),
    seeing(
        "focalnet", "FocalNetModel", "FocalNetForImageClassification",
        {
            "image_size": 16, "patch_size": 2, "embed_dim": 16, "hidden_sizes": [16, 32], "depths": [1, 2],
            "focal_levels": [1, 1], "focal_windows": [3, 3], "drop_path_rate": 0.0, "mlp_ratio": 2.0,
        },
        Layers(up="fc1", down="fc2", alone="projection_in:3 projection_out:3", feed_forwards=3),
        last=("focalnet.encoder.stages.1", "focalnet.encoder.stages.1.layers.1"),
    ),
    seeing(
        "timesformer", "TimesformerModel", "TimesformerForVideoClassification", {**VIT, "num_frames": 2},
        Layers(
            query="attention.qkv:4", key="attention.qkv:4", value="attention.qkv:4", output="*attention.output.dense:4",
            up="intermediate.dense", down="layer.?.output.dense", others="temporal_dense",
        ),
        data=batches.films, last=("timesformer.encoder.layer.1",),
    ),
    Row(  # a picture model that comes without any head
        name="dinov3-in-own-module", family="vision", base="DINOv3ViTModel",
        config={**VIT, "num_register_tokens": 1, "pos_embed_rescale": None},
        around=homemade.Pooled, layers=Layers(**ATTENTION, up="up_proj", down="down_proj"),
        data=batches.plain_pictures, new=("pool", "answer"), head=("pool", "answer"), last=("base.model.layer.1",),
        padded=False,
    ),
    seeing(
        "conditional-detr", "ConditionalDetrModel", "ConditionalDetrForObjectDetection",
        {**DETR, "backbone_config": {"model_type": "resnet", **RESNET, "out_features": ["stage2"]}},
        Layers(
            query="q_proj:2 q_content_proj:4", key="k_proj:2 k_content_proj:4", value="v_proj:6", output="o_proj:6",
            up="mlp.fc1:4", down="mlp.fc2:4", others=f"{POSITIONS} convolution input_projection",
        ),
        family="detection", data=batches.pictures_with_boxes, new=("class_labels_classifier", "bbox_predictor"),
        last=(
            "model.backbone.model.encoder.stages.1.layers.1", "model.encoder.layers.1", "model.decoder.layers.1",
        ),
    ),
    seeing(
        "deformable-detr", "DeformableDetrModel", "DeformableDetrForObjectDetection",
        {
            **DETR, "backbone_config": {"model_type": "resnet", **RESNET, "out_features": ["stage1", "stage2"]},
            "num_feature_levels": 2,
        },
        Layers(
            query="q_proj:2", key="k_proj:2", value="v_proj:2 value_proj:4", output="o_proj:2 output_proj:4",
            up="mlp.fc1:4", down="mlp.fc2:4", others="sampling_offsets attention_weights reference_points convolution",
        ),
        family="detection", data=batches.pictures_with_boxes, new=("class_embed", "bbox_embed"),
        last=(
            "model.backbone.model.encoder.stages.1.layers.1", "model.encoder.layers.1", "model.decoder.layers.1",
        ),
    ),
    Row(  # trained before, head and all: nothing is new, which its user has to say
        name="upernet", family="segmentation", task="UperNetForSemanticSegmentation",
        config={
            "backbone_config": {
                "model_type": "convnext", "num_stages": 2, "hidden_sizes": [16, 32], "depths": [1, 2], "patch_size": 2,
                "out_features": ["stage1", "stage2"], "layer_scale_init_value": 0.1,
            },
            "hidden_size": 16, "pool_scales": [1, 2], "use_auxiliary_head": False, "num_labels": 3,
        },
        data=batches.segmented_pictures, layers=Layers(up="pwconv1", down="pwconv2", feed_forwards=3), padded=False,
        last=("backbone.encoder.stages.1", "backbone.encoder.stages.1.layers.1"), batch_norm=True, head=None,
    ),
)  # fmt: skip

OTHERS = (
    Row(  # its attention reads the weights of the four projections: adapters there would be lost
        name="wavlm", family="audio", base="WavLMModel", task="WavLMForSequenceClassification", options=THREE,
        config={**WAV2VEC2, "layerdrop": 0.0, "num_buckets": 8, "max_bucket_distance": 16},
        data=batches.labelled_waves,
        layers=Layers(up="intermediate_dense", down="output_dense", others="gru_rel_pos_linear"),
        new=("projector", "classifier"), last=("wavlm.encoder.layers.1",),
    ),
    Row(
        name="data2vec-audio-ctc", family="audio", base="Data2VecAudioModel", task="Data2VecAudioForCTC",
        config={**WAV2VEC2, "layerdrop": 0.0, "conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 2},
        data=batches.transcribed_waves, layers=OF_WAV2VEC2, new=("lm_head",), last=("data2vec_audio.encoder.layers.1",),
    ),
    Row(
        name="wav2vec2-conformer", family="audio", base="Wav2Vec2ConformerModel",
        task="Wav2Vec2ConformerForSequenceClassification", options=THREE,
        config={**WAV2VEC2, "layerdrop": 0.0, "conv_depthwise_kernel_size": 3, "conformer_conv_dropout": 0.0},
        data=batches.labelled_waves,
        layers=Layers(
            query="linear_q", key="linear_k", value="linear_v", output="linear_out", up="intermediate_dense",
            down="output_dense", others="linear_pos", feed_forwards=4,
        ),
        new=("projector", "classifier"), last=("wav2vec2_conformer.encoder.layers.1",), batch_norm=True,
    ),
    Row(
        name="git", family="multimodal", task="GitForCausalLM", config={**BERT, "vision_config": PICTURE_TOWER},
        data=batches.captions,
        layers=Layers(
            query="self.query:2 q_proj:2", key="self.key:2 k_proj:2", value="self.value:2 v_proj:2",
            output="attention.output.dense:2 out_proj:2", up="intermediate.dense:2 fc1:2",
            down="encoder.layer.?.output.dense:2 fc2:2", others="visual_projection.0",
        ),
        last=("git.encoder.layer.1", "git.image_encoder.vision_model.encoder.layers.1"),
    ),
    Row(
        name="paligemma", family="multimodal", task="PaliGemmaForConditionalGeneration",
        data=batches.typed_pictures_in_text,
        config={
            "text_config": {**LLAMA, "head_dim": 8, "model_type": "gemma"},
            "vision_config": {**PICTURE_TOWER, "model_type": "siglip_vision_model", "vision_use_head": False},
            "image_token_index": 4, "projection_dim": 32,
        },
        layers=Layers(
            query="q_proj:4", key="k_proj:4", value="v_proj:4", output="out_proj:2 o_proj:2",
            up="fc1:2 gate_proj:2 up_proj:2", down="fc2:2 down_proj:2", others="multi_modal_projector.linear",
        ),
        last=("model.language_model.layers.1", "model.vision_tower.encoder.layers.1"),
        tied="model.language_model.embed_tokens.weight",
    ),
    Row(
        name="blip2", family="multimodal", task="Blip2ForConditionalGeneration", data=batches.pictures_in_text,
        config={
            "vision_config": PICTURE_TOWER,
            "qformer_config": {**BERT, "encoder_hidden_size": 32, "cross_attention_frequency": 1},
            "text_config": {
                **SPECIAL, **HIDDEN, **LIMIT, "ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0,
                "model_type": "opt",
            },
            "num_query_tokens": 4, "image_token_index": 4,
        },
        layers=Layers(
            query="self_attn.qkv:2 attention.query:4 q_proj:2", key="self_attn.qkv:2 attention.key:4 k_proj:2",
            value="self_attn.qkv:2 attention.value:4 v_proj:2",
            output="self_attn.projection:2 *attention.output.dense:4 out_proj:2",
            up="fc1:4 intermediate_query.dense:2", down="fc2:4 output_query.dense:2", others="language_projection",
        ),
        last=(
            "vision_model.encoder.layers.1", "qformer.encoder.layer.1", "language_model.model.decoder.layers.1",
        ),
        tied="language_model.model.decoder.embed_tokens.weight",
    ),
    Row(  # it looks at random keys
        name="informer", family="time series", base="InformerModel", task="InformerForPrediction",
        config={
            "prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2, 3], "num_time_features": 2,
            "d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_layers": 2, "decoder_layers": 2, "dropout": 0.0,
            "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0,
            "distil": False,
        },
        data=batches.continued_series, layers=Layers(**OUT, up="fc1", down="fc2", **TWO_STACKS),
        new=("parameter_projection",), last=LAST_OF_BART, random=True,
    ),
    Row(
        name="patchtsmixer", family="time series", base="PatchTSMixerModel",
        task="PatchTSMixerForTimeSeriesClassification",
        config={
            "context_length": 16, "patch_length": 4, "patch_stride": 4, "num_input_channels": 2, "d_model": 32,
            "num_layers": 2, "dropout": 0.0, "head_dropout": 0.0, "num_targets": 3,
        },
        data=batches.labelled_series,
        layers=Layers(up="mlp.fc1", down="mlp.fc2", alone="attn_layer:4", feed_forwards=4), padded=False,
        new=("head", "inject_scale"), last=("model.encoder.mlp_mixer_encoder.mixers.1",),
    ),
)  # fmt: skip
FURTHER_MODALITIES = (*PICTURES, *OTHERS)
