"""Forms of folders, and foreign formats that say what converts them (13.13)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cases.harness import Outcome, case, either, expect, right, succeed, surgeon_command
from cases.leftovers import SMALL
from cases.material import Material
from cases.wrapped_files import Tensors, tensors

# --- forms of folders -------------------------------------------------------------------------------------------------


def llama() -> nn.Module:
    """A small Llama."""
    import transformers

    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SMALL, num_key_value_heads=2, max_position_embeddings=64)
    )


def base_folder(material: Material) -> Path:
    """A Llama as transformers saves it."""
    return material.shared("llama", lambda path: llama().save_pretrained(path))


def weights_of(material: Material) -> Tensors:
    """Its tensors."""
    return tensors(llama())


def config_only(material: Material) -> Path:
    """A folder with its config alone."""
    folder = material.folder / "model"
    folder.mkdir(exist_ok=True)
    shutil.copy(base_folder(material) / "config.json", folder)
    return folder


def variant(material: Material) -> Path:
    folder = config_only(material)
    llama().half().save_pretrained(folder, variant="fp16")
    return folder


def two_shards(material: Material) -> Path:
    from safetensors.torch import save_file

    folder, values = config_only(material), weights_of(material)
    names = sorted(values)
    for number, part in enumerate((names[:9], names[9:]), 1):
        save_file(
            {name: values[name] for name in part}, folder / f"model-0000{number}-of-00002.safetensors", {"format": "pt"}
        )
    return folder


def bin_shards(material: Material) -> Path:
    folder, values = config_only(material), weights_of(material)
    names = sorted(values)
    for number, part in enumerate((names[:9], names[9:]), 1):
        torch.save({name: values[name] for name in part}, folder / f"pytorch_model-0000{number}-of-00002.bin")
    return folder


def a_shard_is_missing(material: Material) -> Path:
    folder = two_shards(material)
    (folder / "model-00002-of-00002.safetensors").unlink()
    return folder


def trainer_folder(material: Material) -> Path:
    folder = config_only(material)
    shutil.copytree(base_folder(material), folder, dirs_exist_ok=True)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        torch.save({"state": {}}, folder / name)
    (folder / "trainer_state.json").write_text('{"global_step": 500}')
    return folder


def trainer_output(material: Material) -> Path:
    folder = material.folder / "runs"
    for step in (500, 1000):
        shutil.copytree(base_folder(material), folder / f"checkpoint-{step}")
    return folder


def adapter_beside(material: Material) -> Path:
    folder = material.folder / "model"
    shutil.copytree(base_folder(material), folder)
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 4, "base_model_name_or_path": "x"})
    )
    from safetensors.torch import save_file

    save_file(
        {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.randn(4, 32)},
        folder / "adapter_model.safetensors",
    )
    return folder


def architectures(value: Any) -> Callable[[Material], Path]:
    def make(material: Material) -> Path:
        folder = material.folder / "model"
        shutil.copytree(base_folder(material), folder)
        config = json.loads((folder / "config.json").read_text())
        config["architectures"] = value
        if value == "none":
            del config["architectures"]
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


GOOD_FOLDERS: dict[str, Callable[[Material], Path]] = {
    "shards without an index": two_shards,
    "old shards without an index": bin_shards,
    "a folder of the Trainer": trainer_folder,
    "the Trainer's output": trainer_output,
    "an adapter beside the weights": adapter_beside,
    "an unknown class": architectures(["MyLlamaForCausalLM"]),
    "a shard is missing": a_shard_is_missing,
}


@case("13.13", of=GOOD_FOLDERS)
def folders_of_llamas(material: Material, make: Callable[[Material], Path]) -> Outcome:
    """All tensors as in the network that was saved, or refused."""
    import surgeon

    folder = make(material)

    def attempt() -> Outcome:
        model, expected = surgeon.load(folder), weights_of(material)
        mine = model.state_dict()
        missing = [name for name, value in expected.items() if name not in mine or not torch.equal(mine[name], value)]
        missing = [name for name in missing if name != "lm_head.weight" or "lm_head.weight" in mine]
        expect(not missing, f"{len(missing)} tensors differ or are gone: {missing[:3]}")
        return right(f"{len(expected)} tensors equal")

    return either(attempt)


@case("13.13", of={"missing": "none", "null": None})
def no_architectures(material: Material, value: Any) -> Outcome:
    """transformers takes the base class then; a head that the file holds is left out aloud."""
    import surgeon

    folder = architectures(value)(material)

    def attempt() -> Outcome:
        mine, expected = surgeon.load(folder).state_dict(), weights_of(material)
        expect(
            all(
                torch.equal(mine[name.removeprefix("model.")], expected[name])
                for name in expected
                if name != "lm_head.weight"
            ),
            "values differ",
        )
        plan = succeed("plan", material.recipe([{"op": "freeze", "sites": "layers.0"}]), folder)
        expect("lm_head" in plan.said, f"the head is left out, and the plan is silent: {plan.said[-300:]}")
        return right("the base class, and the head left out aloud")

    return either(attempt)


@case("13.13")
def a_variant(material: Material) -> Outcome:
    import surgeon

    folder = variant(material)

    def attempt() -> Outcome:
        mine, expected = surgeon.load(folder).state_dict(), tensors(llama().half())
        expect(all(torch.equal(mine[name].half(), value) for name, value in expected.items()), "values differ")
        return right("model.fp16.safetensors is read")

    return either(attempt, "fp16")


def file_in(name: str, content: bytes) -> Callable[[Material], Path]:
    """A folder with a config and one foreign file."""

    def make(material: Material) -> Path:
        folder = config_only(material)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return folder

    return make


def quantised(method: str, keys: Callable[[str, Tensor], Tensors]) -> Callable[[Material], Path]:
    """A folder whose projections are quantised by ``method``, as its config says."""

    def make(material: Material) -> Path:
        from safetensors.torch import save_file

        folder, stored = config_only(material), {}
        for name, value in weights_of(material).items():
            stored.update(keys(name, value) if "proj.weight" in name else {name: value})
        save_file(stored, folder / "model.safetensors", {"format": "pt"})
        if method:
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(
                json.dumps({**config, "quantization_config": {"quant_method": method, "bits": 4}})
            )
        return folder

    return make


def packed(name: str, value: Tensor) -> Tensors:
    """The tensors of GPTQ and AWQ."""
    stem = name.removesuffix(".weight")
    rows, columns = value.shape
    return {
        f"{stem}.qweight": torch.zeros(columns // 8, rows, dtype=torch.int32),
        f"{stem}.qzeros": torch.zeros(1, max(1, rows // 8), dtype=torch.int32),
        f"{stem}.scales": torch.zeros(1, rows, dtype=torch.float16),
        f"{stem}.g_idx": torch.zeros(columns, dtype=torch.int32),
    }


def four_bits(name: str, value: Tensor) -> Tensors:
    """The tensors of bitsandbytes."""
    return {
        name: torch.zeros(value.numel() // 2, 1, dtype=torch.uint8),
        f"{name}.absmax": torch.zeros(4),
        f"{name}.quant_map": torch.zeros(16),
        f"{name}.quant_state.bitsandbytes__nf4": torch.zeros(8, dtype=torch.uint8),
    }


def eight_bits(name: str, value: Tensor) -> Tensors:
    """The tensors of fp8 in blocks."""
    return {name: value.to(torch.float8_e4m3fn), name + "_scale_inv": torch.ones(1, 1)}


def zero(material: Material) -> Path:
    folder = config_only(material)
    (folder / "global_step500").mkdir()
    for rank in range(2):
        torch.save(
            {"x": torch.zeros(2)}, folder / f"global_step500/bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
        )
    (folder / "latest").write_text("global_step500")
    return folder


def sharded_fsdp(material: Material) -> Path:
    import torch.distributed.checkpoint as distributed

    folder = config_only(material)
    distributed.save({"model": weights_of(material)}, checkpoint_id=folder / "pytorch_model_fsdp_0", no_dist=True)
    return folder


FOREIGN: dict[str, tuple[Callable[[Material], Path], tuple[str, ...]]] = {
    "GGUF": (file_in("model-q4_k_m.gguf", b"GGUF\3\0\0\0" + b"\0" * 64), ("GGUF",)),
    "TensorFlow": (file_in("tf_model.h5", b"\x89HDF\r\n\x1a\n"), ("TensorFlow",)),
    "Flax": (file_in("flax_model.msgpack", b"\x81"), ("Flax",)),
    "ONNX": (file_in("model.onnx", b"\x08\x07"), ("onnx",)),
    "original Llama": (file_in("consolidated.00.pth", b"PK"), ("consolidated",)),
    "GPTQ": (quantised("gptq", packed), ("gptq",)),
    "GPTQ without a word in the config": (quantised("", packed), ("GPTQ",)),
    "AWQ": (quantised("awq", packed), ("awq",)),
    "bitsandbytes": (quantised("bitsandbytes", four_bits), ("bitsandbytes",)),
    "bitsandbytes without a word in the config": (quantised("", four_bits), ("bitsandbytes",)),
    "fp8": (quantised("fp8", eight_bits), ("fp8",)),
    "fp8 without a word in the config": (quantised("", eight_bits), ("fp8",)),
    "ZeRO": (zero, ("zero_to_fp32",)),
    "FSDP": (sharded_fsdp, ("dcp_to_torch",)),
}


@case("13.13", of=FOREIGN)
def foreign_formats_say_what_they_are(
    material: Material, how: tuple[Callable[[Material], Path], tuple[str, ...]]
) -> Outcome:
    folder = how[0](material)
    ran = surgeon_command("plan", material.recipe([{"op": "freeze", "all_but": "head"}]), folder)
    expect(ran.code, f"planned: {ran.said[-300:]}")
    for fact in how[1]:
        expect(fact.lower() in ran.err.lower(), f"refused without saying {fact!r}: {' '.join(ran.err.split())}")
    return Outcome("refused", " ".join(ran.err.split()))
