"""Peak memory of merging an adapter into a Llama of 0.9 GB: surgeon against peft's merge_and_unload.

Run: python benchmarks/merge_memory.py FOLDER make; python … FOLDER surgeon; python … FOLDER peft
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import peft
import transformers

root, what = Path(sys.argv[1]), sys.argv[2]


def peak() -> int:
    """Return the most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def make() -> None:
    """Write a base and an adapter on all of its linear layers."""
    config = transformers.LlamaConfig(
        vocab_size=8000,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=16,
        num_attention_heads=16,
        num_key_value_heads=16,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(root / "base")
    model = transformers.LlamaForCausalLM.from_pretrained(root / "base")
    lora = peft.LoraConfig(r=16, target_modules="all-linear", init_lora_weights=False)
    peft.get_peft_model(model, lora).save_pretrained(str(root / "adapter"))


def by_surgeon() -> None:
    """Merge by the command line."""
    from surgeon.cli import main

    (root / "merge.yaml").write_text("operations: [{op: merge_adapters}]\n")
    merge, adapter, output = root / "merge.yaml", root / "adapter", root / "surgeon"
    sys.argv = ["surgeon", "apply", str(merge), f"peft:{adapter}", "-o", str(output), "--force", "--quiet"]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise


def by_peft() -> None:
    """Merge by merge_and_unload."""
    base = transformers.LlamaForCausalLM.from_pretrained(root / "base")
    merged = peft.PeftModel.from_pretrained(base, str(root / "adapter")).merge_and_unload()
    merged.save_pretrained(root / "peft")


before, started = peak(), time.time()
{"make": make, "surgeon": by_surgeon, "peft": by_peft}[what]()
print(f"{what}: {peak()} MB at most, {before} MB after the imports, {time.time() - started:.1f} s")
