"""Small folders of many families of transformers, each with the tokenizer or processor that its pipeline takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from scipy.io import wavfile
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "play", "a", "the", "was"]
TEXTS = ["good film", "the play was bad", "a film"]
RATE = 16000

TEXT = {
    "vocab_size": 16, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 40, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip
SEQ2SEQ = {
    "vocab_size": 16, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 40,
    "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
IMAGE = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
SOUND = {
    "vocab_size": 12, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "conv_dim": [16, 16], "conv_stride": [16, 8], "conv_kernel": [32, 8], "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 2, "classifier_proj_size": 8, "pad_token_id": 0,
    "mask_time_prob": 0.0, "apply_spec_augment": False,
}  # fmt: skip


@dataclass(frozen=True)
class Served:
    """A family, and how small it is here.

    Attributes:
        kind: ``text``, ``image`` or ``sound``.
        sizes: What its config says.
        lm: The auto class of a network without classes that a new head is put on; the base class if left out.
    """

    kind: str
    sizes: dict[str, Any] = field(default_factory=dict)
    processor: str = ""


def _text(**more: Any) -> Served:
    return Served("text", {**TEXT, **more})


FEW = {
    "bert": _text(),
    "roberta": _text(max_position_embeddings=44),
    "distilbert": _text(dim=16, hidden_dim=24, n_layers=2, n_heads=2),
    "electra": _text(embedding_size=16),
    "albert": _text(embedding_size=8),
    "deberta-v2": _text(relative_attention=True, pos_att_type=["p2c", "c2p"]),
    "bart": Served("text", SEQ2SEQ),
    "gpt2": _text(n_embd=16, n_layer=2, n_head=2, n_positions=40),
    "llama": _text(num_key_value_heads=1),
    "qwen2": _text(num_key_value_heads=1),
    "vit": Served("image", IMAGE, "ViTImageProcessor"),
    "deit": Served("image", IMAGE, "DeiTImageProcessor"),
    "beit": Served("image", {**IMAGE, "out_indices": [0, 1]}, "BeitImageProcessor"),
    "dinov2": Served("image", {**IMAGE, "mlp_ratio": 2}, "BitImageProcessor"),
    "swin": Served(
        "image",
        {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
        "ViTImageProcessor",
    ),
    "convnext": Served("image", {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2}, "ConvNextImageProcessor"),
    "resnet": Served(
        "image", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}, "ConvNextImageProcessor"
    ),
    "mobilevit": Served(
        "image",
        {"image_size": 32, "hidden_sizes": [16, 20, 24], "neck_hidden_sizes": [8, 8, 12, 12, 16, 16, 24]},
        "MobileViTImageProcessor",
    ),
    "siglip": Served("image", {"vision_config": IMAGE, "text_config": TEXT}, "SiglipImageProcessor"),
    "wav2vec2": Served("sound", SOUND),
    "hubert": Served("sound", SOUND),
    "wavlm": Served("sound", SOUND),
    "audio-spectrogram-transformer": Served(
        "sound", {**IMAGE, "max_length": 64, "num_mel_bins": 32, "frequency_stride": 8, "time_stride": 8}
    ),
    "whisper": Served("sound", {**SEQ2SEQ, "num_mel_bins": 80, "max_source_positions": 50, "classifier_proj_size": 8}),
}
MANY = {
    "mpnet": _text(max_position_embeddings=44),
    "camembert": _text(max_position_embeddings=44),
    "xlm-roberta": _text(max_position_embeddings=44),
    "modernbert": _text(global_attn_every_n_layers=1, cls_token_id=2, sep_token_id=3),
    "xlnet": _text(d_model=16, n_layer=2, n_head=2, d_inner=24),
    "convbert": _text(embedding_size=16, conv_kernel_size=3),
    "squeezebert": _text(embedding_size=16, q_groups=1, k_groups=1, v_groups=1, post_attention_groups=1,
                         intermediate_groups=1, output_groups=1),
    "opt": _text(ffn_dim=24, word_embed_proj_dim=16),
    "bloom": _text(n_layer=2, n_head=2),
    "gpt_neox": _text(),
    "mistral": _text(num_key_value_heads=1),
    "qwen3": _text(num_key_value_heads=1, head_dim=8),
    "gemma": _text(num_key_value_heads=1, head_dim=8),
    "phi": _text(),
    "t5": Served("text", {"vocab_size": 16, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2,
                          "pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 0}),
    "regnet": Served("image", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 8},
                     "ConvNextImageProcessor"),
    "segformer": Served("image", {"hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4, "decoder_hidden_size": 16,
                                  "num_attention_heads": [1, 1, 2, 2]}, "SegformerImageProcessor"),
    "poolformer": Served("image", {"hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4}, "PoolFormerImageProcessor"),
    "clip": Served("image", {"vision_config": IMAGE, "text_config": TEXT}, "CLIPImageProcessor"),
    "swinv2": Served("image", {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1],
                               "num_heads": [1, 2], "window_size": 4}, "ViTImageProcessor"),
    "unispeech-sat": Served("sound", SOUND),
    "sew": Served("sound", {**SOUND, "squeeze_factor": 2}),
    "data2vec-audio": Served("sound", {**SOUND, "conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 1}),
}  # fmt: skip
ALL = {**FEW, **MANY}
DECODERS = ("gpt2", "llama", "qwen2", "opt", "bloom", "gpt_neox", "mistral", "qwen3", "gemma", "phi")
PIPELINES = {"text": "text-classification", "image": "image-classification", "sound": "audio-classification"}
CLASSES = {
    "text": "AutoModelForSequenceClassification",
    "image": "AutoModelForImageClassification",
    "sound": "AutoModelForAudioClassification",
}


def config(name: str, **more: Any) -> Any:
    return transformers.AutoConfig.for_model(name, **{**ALL[name].sizes, **more})


def stock_class(name: str, auto: str) -> Any:
    """The class that an auto class of transformers has for a family; the first, where it has several."""
    cls = getattr(transformers, auto)._model_mapping[type(config(name))]
    return cls[0] if isinstance(cls, (tuple, list)) else cls


def beside(name: str, folder: Path) -> None:
    """Save the tokenizer, image processor or feature extractor of a family."""
    family = ALL[name]
    if family.kind == "text":
        tokenizer().save_pretrained(folder)
    elif family.kind == "image":
        cls = getattr(transformers, family.processor)
        size = {"shortest_edge": 32} if "size" in vars(cls) and "shortest_edge" in (cls.size or {}) else None
        cls(size=size or {"height": 32, "width": 32}, do_center_crop=False).save_pretrained(folder)
    elif name == "whisper":
        transformers.WhisperFeatureExtractor(chunk_length=1).save_pretrained(folder)
    elif name == "audio-spectrogram-transformer":
        transformers.ASTFeatureExtractor(max_length=64, num_mel_bins=32).save_pretrained(folder)
    else:
        transformers.Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)


def tokenizer() -> Any:
    """A tokenizer of twelve words for any network of text."""
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=32, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def source(name: str, folder: Path, auto: str, **more: Any) -> Path:
    """Save a network of a family with what its pipeline takes."""
    torch.manual_seed(0)
    model = stock_class(name, auto)(config(name, **more)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # heads that start at zero tell nothing apart
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    beside(name, folder)
    return folder


def samples(kind: str, folder: Path) -> list[Any]:
    """What a pipeline of a kind reads: texts, pictures, sounds."""
    if kind == "text":
        return TEXTS
    draw = np.random.default_rng(0)
    if kind == "image":
        return [Image.fromarray(draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(2)]
    return [tone(pitch) for pitch in (300, 2000)]


def tone(pitch: float) -> np.ndarray:
    return np.sin(2 * np.pi * pitch * np.arange(8000) / RATE).astype(np.float32)


def data(kind: str, folder: Path) -> dict[str, Any]:
    """Write a dozen labelled samples, and say as a recipe's ``data`` where they are."""
    classes = ("left", "middle", "right")
    folder.mkdir()
    if kind == "image":
        for number in range(12):
            place = folder / classes[number % 3]
            place.mkdir(exist_ok=True)
            Image.new("RGB", (40, 36), (number * 20, 90, 250 - number * 20)).save(place / f"{number}.png")
        return {"source": "images", "path": str(folder)}
    lines = ["sample,kind"]
    for number in range(12):
        sample = TEXTS[number % 3]
        if kind == "sound":
            sample = f"{number}.wav"
            wavfile.write(folder / sample, RATE, tone(300 + 500 * (number % 3)))
        lines.append(f"{sample},{classes[number % 3]}")
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    column = "text" if kind == "text" else "audio"
    return {"source": "table", "path": str(folder / "t.csv"), column: "sample", "targets": {"labels": "kind"}}
