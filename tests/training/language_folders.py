"""Small language models as transformers saves them, each with a tokenizer that knows bytes or pieces of words."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SENTENCES = [
    f"the {animal} {verb} {place} and the {other} sleeps"
    for animal in ("cat", "dog", "owl")
    for verb in ("sits", "jumps", "walks")
    for place in ("under the table", "over a fence", "behind houses")
    for other in ("mouse", "horse")
]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "and", "cat", "dog", "owl", "mouse", "horse"]
PIECES += ["sit", "jump", "walk", "sleep", "house", "##s", "under", "over", "behind", "table", "fence"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}


def byte_tokenizer(folder: Path, side: str = "right", ends: bool = True) -> transformers.PreTrainedTokenizerBase:
    """Save a byte-level BPE tokenizer of 300 tokens; it ends texts by ``<end>``, or by nothing."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<end>"] if ends else []
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(SENTENCES, trainer)
    names = {"eos_token": "<end>"} if ends else {}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, padding_side=side, **names)
    tokenizer.save_pretrained(folder)
    return tokenizer


def llama(folder: Path, side: str = "right", ends: bool = True) -> Path:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=300, intermediate_size=32, max_position_embeddings=64, num_key_value_heads=2, **SMALL
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    byte_tokenizer(folder, side, ends)
    return folder


def gpt2(folder: Path, side: str = "right") -> Path:
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=300, **sizes, **dropout)).save_pretrained(folder)
    byte_tokenizer(folder, side)
    return folder


def bert(folder: Path, cls: str = "BertForMaskedLM") -> Path:
    torch.manual_seed(0)
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    sizes = {"intermediate_size": 32, "max_position_embeddings": 64, **SMALL, **dropout}
    config = transformers.BertConfig(vocab_size=len(PIECES), **sizes)
    getattr(transformers, cls)(config).save_pretrained(folder)
    transformers.BertTokenizer(vocab={piece: number for number, piece in enumerate(PIECES)}).save_pretrained(folder)
    return folder


def t5(folder: Path, sentinels: int = 0) -> Path:
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
    config = transformers.T5Config(vocab_size=320, decoder_start_token_id=5, **sizes)
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer = byte_tokenizer(folder)
    # T5's own stand in the vocabulary in the other order
    names = [f"<extra_id_{number}>" for number in reversed(range(sentinels))]
    tokenizer.add_special_tokens({"additional_special_tokens": names, "pad_token": "<pad>"})
    tokenizer.save_pretrained(folder)
    return folder


def sentences(path: Path) -> Path:
    """A text file with a sentence a line."""
    path.write_text("\n".join(SENTENCES) + "\n")
    return path
