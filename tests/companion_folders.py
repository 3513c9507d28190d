"""Small folders of transformers and sentence-transformers, with everything that lies beside their weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "abc", "def", "good", "bad", "film"]


def tokenizer(folder: Path) -> None:
    """Save a word-by-word BERT tokenizer of ten tokens into ``folder``."""
    bert_tokenizer = transformers.BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)})
    bert_tokenizer.chat_template = "{{ messages[0].content }}"
    bert_tokenizer.save_pretrained(folder)


def bert(folder: Path, cls: str = "BertForSequenceClassification", **options: object) -> Path:
    """A BERT of four layers with its tokenizer, a licence and a card; and what should stay behind."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=len(WORDS), **{**sizes, **options})
    getattr(transformers, cls)(config).save_pretrained(folder)
    tokenizer(folder)
    (folder / "LICENSE").write_text("do as you like\n")
    (folder / "README.md").write_text("---\nlicense: mit\n---\nA tiny BERT.\n")
    for name in ("optimizer.pt", "scheduler.pt", "trainer_state.json", "tf_model.h5", "notes.txt"):
        (folder / name).write_bytes(b"{}")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "tokenizer.json").write_text("{}")
    return folder


def sentences(folder: Path, **options: object) -> Path:
    """A sentence-transformers folder: BERT, mean pooling, a trained projection, normalisation."""
    bert(folder, "BertModel", **options)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_Normalize": "Normalize"}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 128, "do_lower_case": false}')
    (folder / "config_sentence_transformers.json").write_text('{"similarity_fn_name": "cosine"}')
    for name in ("1_Pooling", "2_Dense"):
        (folder / name).mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True})
    )
    (folder / "2_Dense" / "config.json").write_text('{"in_features": 16, "out_features": 8}')
    (folder / "2_Dense" / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return folder


def vit(folder: Path) -> Path:
    """A ViT for pictures of 32 pixels, normalised by 0.5, with its processor."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
