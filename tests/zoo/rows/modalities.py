"""Sound, pictures with text, and time series."""

from tests.zoo.row import Layers, Row
from tests.zoo.rows import batches
from tests.zoo.rows.decoders import HIDDEN, LIMIT, LLAMA, SPECIAL, THREE
from tests.zoo.rows.encoders import STILL, TWO_STACKS
from tests.zoo.rows.pictures import OF_BERT, OF_VIT, VIT

WAV2VEC2 = {
    **HIDDEN, "intermediate_size": 64, "vocab_size": 12, "conv_dim": [32, 32], "conv_stride": [5, 2],
    "conv_kernel": [10, 3], "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4,
    "hidden_dropout": 0.0, "activation_dropout": 0.0, "attention_dropout": 0.0, "final_dropout": 0.0,
    "classifier_proj_size": 16, "apply_spec_augment": False,
}  # fmt: skip
OUT = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
OF_WAV2VEC2 = Layers(**OUT, up="intermediate_dense", down="output_dense")
TOWER = {**HIDDEN, "intermediate_size": 64}
TEXT_TOWER = {**TOWER, **SPECIAL, **LIMIT}
PICTURE_TOWER = {**TOWER, "image_size": 16, "patch_size": 8}
LAST_OF_TOWERS = ("text_model.encoder.layers.1", "vision_model.encoder.layers.1")
CLIP = {
    "text_config": {**TEXT_TOWER, "projection_dim": 16}, "vision_config": {**PICTURE_TOWER, "projection_dim": 16},
    "projection_dim": 16,
}  # fmt: skip

AUDIO = (
    Row(  # with its usual chance of one in ten to skip a layer
        name="wav2vec2", family="audio", base="Wav2Vec2Model", task="Wav2Vec2ForSequenceClassification",
        config=WAV2VEC2, options=THREE, data=batches.labelled_waves, layers=OF_WAV2VEC2,
        new=("projector", "classifier"), norms=14, biases=(21,), last=("wav2vec2.encoder.layers.1",), random=True,
    ),
    Row(
        name="hubert-ctc", family="audio", base="HubertModel", task="HubertForCTC",
        config={**WAV2VEC2, "layerdrop": 0.0},
        data=batches.transcribed_waves, layers=OF_WAV2VEC2,
        new=("lm_head",), norms=14, biases=(21,), last=("hubert.encoder.layers.1",),
    ),
    Row(
        name="ast", family="audio", base="ASTModel", task="ASTForAudioClassification",
        config={
            **HIDDEN, **STILL, "intermediate_size": 64, "patch_size": 4, "frequency_stride": 4, "time_stride": 4,
            "max_length": 16, "num_mel_bins": 8,
        },
        options=THREE, data=batches.spectrograms, layers=OF_VIT, padded=False,
        new=("classifier",), norms=10, biases=(18,), last=("audio_spectrogram_transformer.layers.1",),
    ),
)  # fmt: skip

MULTIMODAL = (
    Row(
        name="clip", family="multimodal", task="CLIPModel", config=CLIP, data=batches.pairs,
        layers=Layers(**OUT, up="fc1", down="fc2", attentions=4, feed_forwards=4),
        norms=22, biases=(35,), last=LAST_OF_TOWERS, both_last=True,
    ),
    Row(
        name="clip-classifier", family="multimodal", base="CLIPModel", task="CLIPForImageClassification", config=CLIP,
        options=THREE, data=batches.labelled_pictures, layers=Layers(**OUT, up="fc1", down="fc2"), padded=False,
        new=("classifier",), norms=12, biases=(18,), last=("vision_model.encoder.layers.1",),
    ),
    Row(  # pictures are pooled by a torch attention layer and a third feed-forward part
        name="siglip", family="multimodal", task="SiglipModel", data=batches.pairs,
        config={"text_config": {**TEXT_TOWER, "projection_size": 32}, "vision_config": PICTURE_TOWER},
        layers=Layers(
            query="q_proj", key="k_proj", value="v_proj", output="layers.?.self_attn.out_proj",
            up="layers.?.mlp.fc1", down="layers.?.mlp.fc2", others="head head.mlp.fc?", attentions=4, feed_forwards=4,
        ),
        norms=22, biases=(41, 42), last=LAST_OF_TOWERS, both_last=True,
    ),
    Row(
        name="vilt", family="multimodal", base="ViltModel", task="ViltForQuestionAnswering",
        config={**TEXT_TOWER, **VIT}, options=THREE, data=batches.questions, layers=OF_BERT,
        new=("classifier",), norms=12, biases=(20,), last=("vilt.encoder.layer.1",),
    ),
    Row(  # three stacks: pictures, questions (which look at them), answers (which look at the questions)
        name="blip", family="multimodal", task="BlipForQuestionAnswering", data=batches.answered_questions,
        config={
            "text_config": {**TEXT_TOWER, "encoder_hidden_size": 32, "sep_token_id": 2},
            "vision_config": {**PICTURE_TOWER, "initializer_range": 0.02},
        },
        layers=Layers(
            query="self_attn.qkv:2 self.query:8", key="self_attn.qkv:2 self.key:8",
            value="self_attn.qkv:2 self.value:8", output="self_attn.projection:2 *attention.output.dense:8",
            up="mlp.fc1:2 intermediate.dense:4", down="mlp.fc2:2 layer.?.output.dense:4",
        ),
        norms=40, biases=(71,),
        last=(
            "vision_model.encoder.layers.1", "text_encoder.encoder.layer.1", "text_decoder.bert.encoder.layer.1",
        ),
        tied="text_decoder.bert.embeddings.word_embeddings.weight",
    ),
    Row(  # CLIP's picture tower (its last layer and norm are not used) and a Llama
        name="llava", family="multimodal", task="LlavaForConditionalGeneration", data=batches.pictures_in_text,
        config={
            "text_config": {**LLAMA, "model_type": "llama"},
            "vision_config": {**PICTURE_TOWER, "model_type": "clip_vision_model"},
            "image_token_index": 4, "image_seq_length": 4,
        },
        layers=Layers(
            query="q_proj:4", key="k_proj:4", value="v_proj:4", output="out_proj:2 o_proj:2",
            up="fc1:2 gate_proj:2 up_proj:2", down="fc2:2 down_proj:2", others="linear_1 linear_2",
        ),
        norms=17, biases=(20,),
        last=("model.language_model.layers.1", "model.vision_tower.encoder.layers.1"),
    ),
)  # fmt: skip

TIME_SERIES = (
    Row(
        name="patchtst", family="time series", base="PatchTSTModel", task="PatchTSTForClassification",
        config={
            "num_input_channels": 2, "context_length": 16, "patch_length": 4, "patch_stride": 4, "d_model": 32,
            "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64, "use_cls_token": True,
            "num_targets": 3,
        },
        data=batches.labelled_series, layers=Layers(**OUT, up="ff.0", down="ff.3"), padded=False, batch_norm=True,
        new=("head",), norms=8, biases=(17,), last=("model.encoder.layers.1",),
    ),
    Row(
        name="time-series-transformer", family="time series", base="TimeSeriesTransformerModel",
        task="TimeSeriesTransformerForPrediction",
        config={
            "prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2, 3], "num_time_features": 2,
            "d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_layers": 2, "decoder_layers": 2, "dropout": 0.0,
            "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0,
        },
        data=batches.continued_series, layers=Layers(**OUT, up="fc1", down="fc2", **TWO_STACKS),
        new=("parameter_projection",), norms=24, biases=(44,),
        last=("model.encoder.layers.1", "model.decoder.layers.1"),
    ),
)  # fmt: skip
