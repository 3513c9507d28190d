"""Small real networks, and what tests ask of them."""

from __future__ import annotations

import torch
import torchvision
import transformers

IDS = torch.tensor([[5, 9, 3, 17, 22, 1], [7, 7, 30, 2, 40, 11]])
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}


def llama(**changes):
    torch.manual_seed(0)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(**{**SIZES, **heads, "max_position_embeddings": 32, **changes})
    return transformers.LlamaForCausalLM(config).eval()


def bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(**SIZES, num_attention_heads=4, max_position_embeddings=40, num_labels=3)
    return transformers.BertForSequenceClassification(config).eval()


def gpt2():
    torch.manual_seed(0)
    special = {"bos_token_id": 1, "eos_token_id": 2}
    config = transformers.GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=4, **special)
    return transformers.GPT2LMHeadModel(config).eval()


def phi3():
    torch.manual_seed(0)
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.Phi3Config(**SIZES, num_attention_heads=4, num_key_value_heads=2, **special)
    return transformers.Phi3ForCausalLM(config).eval()


def t5():
    torch.manual_seed(0)
    config = transformers.T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    return transformers.T5ForConditionalGeneration(config).eval()


def vit():
    torch.manual_seed(0)
    sizes = {key: value for key, value in SIZES.items() if key != "vocab_size"}
    config = transformers.ViTConfig(**sizes, num_attention_heads=4, image_size=32, patch_size=8, num_labels=3)
    return transformers.ViTForImageClassification(config).eval()


def torchvision_vit():
    torch.manual_seed(0)
    return torchvision.models.VisionTransformer(32, 8, 2, 4, 32, 48, num_classes=5).eval()


def resnet():
    torch.manual_seed(0)
    return settled(torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 2, 1, 1], num_classes=5))


def mobilenet():
    torch.manual_seed(0)
    return settled(torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.25))


def settled(model):
    """Give norms statistics that are not those of a fresh network."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)
    return model.eval()


def outputs(model, *args):
    with torch.no_grad():
        output = model.eval()(*args)
    return getattr(output, "logits", output)


def notes(plan):
    return " | ".join(note for step in plan.steps for note in step.notes)
