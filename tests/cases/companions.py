"""What lies beside the weights travels, and inputs are prepared as the checkpoint does it (issue 14)."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from cases.harness import Outcome, case, equal, expect, right, succeed, surgeon_command
from cases.material import BERT, Material, picture, save_bert
from cases.names import head

TEXT = "the good film was very fine"


@case("14.companions", of={"thinned": [{"op": "truncate", "keep_blocks": 1}], "a new head": [head(["no", "yes"])]})
def the_tokenizer_travels(material: Material, operations: list[dict[str, Any]]) -> Outcome:
    import transformers

    folder = material.folder / "model"
    save_bert(folder, "BertForSequenceClassification", num_hidden_layers=2)
    succeed("apply", material.recipe(operations), folder, "-o", material.folder / "out", "--quiet")
    before, after = (transformers.AutoTokenizer.from_pretrained(path) for path in (folder, material.folder / "out"))
    equal(after(TEXT)["input_ids"], before(TEXT)["input_ids"], "tokens")
    pipe = transformers.pipeline("text-classification", model=str(material.folder / "out"), device="cpu")
    scores = {round(answer["score"], 6) for answer in pipe([TEXT, "bad dull boring", "story"])}
    expect(len(scores) > 1, f"all texts score alike: {scores}")
    return right(f"tokens equal, scores {sorted(scores)}")


@case("14.companions")
def generation_settings_travel(material: Material) -> Outcome:
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(**{**BERT, "num_hidden_layers": 3, "num_key_value_heads": 2})
    model = transformers.LlamaForCausalLM(config)
    model.generation_config.update(temperature=0.6, do_sample=True, eos_token_id=[2, 7], max_length=40)
    folder = material.folder / "llama"
    model.save_pretrained(folder)
    succeed(
        "apply",
        material.recipe([{"op": "truncate", "keep_blocks": 2}]),
        folder,
        "-o",
        material.folder / "out",
        "--quiet",
    )
    again = transformers.GenerationConfig.from_pretrained(material.folder / "out")
    for name in ("temperature", "do_sample", "eos_token_id", "max_length"):
        equal(getattr(again, name), getattr(model.generation_config, name), name)
    return right("temperature, sampling, ends and length are the source's")


@case("14.companions")
def pooling_of_sentence_transformers_travels(material: Material) -> Outcome:
    """modules.json, 1_Pooling and 2_Normalize are there, and still say the width of the network."""
    folder = material.folder / "model"
    save_bert(folder, "BertModel", num_hidden_layers=2)
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for number, name in ((1, "Pooling"), (2, "Normalize")):
        path = f"{number}_{name}"
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps({"word_embedding_dimension": 32} if number == 1 else {}))
        modules.append(
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
        )
    (folder / "modules.json").write_text(json.dumps(modules))
    succeed(
        "apply",
        material.recipe([{"op": "truncate", "keep_blocks": 1}]),
        folder,
        "-o",
        material.folder / "out",
        "--quiet",
    )
    out = material.folder / "out"
    equal(json.loads((out / "modules.json").read_text()), modules, "modules.json")
    equal(
        json.loads((out / "1_Pooling/config.json").read_text())["word_embedding_dimension"], 32, "width of the pooling"
    )
    return right("modules, pooling and normalisation are there")


@case("14.companions")
def a_damaged_companion(material: Material) -> Outcome:
    folder = material.folder / "model"
    save_bert(folder, "BertForSequenceClassification")
    (folder / "tokenizer.json").write_text('{"version": ')
    ran = surgeon_command("apply", material.recipe([head(["no", "yes"])]), folder, "-o", material.folder / "out")
    expect(ran.code and "tokenizer.json" in ran.err, f"{ran.code}: {ran.said[-300:]}")
    expect(not (material.folder / "out").exists(), "an output was written")
    return Outcome("refused", " ".join(ran.err.split()))


@case("14.companions")
def resolution_changes_the_processor(material: Material) -> Outcome:
    import transformers

    operations = [{"op": "adapt_input", "image_size": 64}]
    ran = surgeon_command(
        "apply", material.recipe(operations), material.vit(), "-o", material.folder / "out", "--quiet"
    )
    if ran.code:
        ran = surgeon_command(
            "apply",
            material.recipe([{"op": "adapt_input", "resolution": 64}]),
            material.vit(),
            "-o",
            material.folder / "out",
            "--quiet",
        )
    equal(ran.code, 0, f"exit code ({ran.said[-200:]})")
    processor = transformers.AutoImageProcessor.from_pretrained(material.folder / "out")
    equal(
        processor(picture((9, 9, 9), 0), return_tensors="pt")["pixel_values"].shape[-1],
        64,
        "size of the processor's pictures",
    )
    return right("the processor makes pictures of 64 pixels")


@case("14.inputs", of=("white", "a photograph"))
def pictures_as_the_processor_makes_them(material: Material, what: str) -> Outcome:
    """Means and deviations of 0.5, whatever ImageNet's are."""
    import transformers

    import surgeon

    folder = material.folder / "p/a"
    folder.mkdir(parents=True)
    image = picture((255, 255, 255), 0, 48, noise=0) if what == "white" else picture((90, 160, 30), 3, 48)
    for number in range(4):
        image.save(folder / f"{number}.png")
    batches: list[Tensor] = []
    model = surgeon.load(material.vit())
    model.vit.register_forward_pre_hook(
        lambda module, args, kwargs: batches.append(kwargs.get("pixel_values", args[0] if args else None)),
        with_kwargs=True,
    )
    surgeon.predict(model, folder)
    expected = transformers.AutoImageProcessor.from_pretrained(material.vit())(image, return_tensors="pt")[
        "pixel_values"
    ]
    difference = (batches[-1][:1] - expected).abs().max().item()
    expect(difference < 1e-6, f"pixels differ by {difference} from the processor's")
    return right(f"largest difference {difference:.1e}")
