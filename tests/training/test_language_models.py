"""Language models learn from texts as transformers' own examples train them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from language_folders import PIECES, SENTENCES, bert, gpt2, llama, sentences, t5

import surgeon
from surgeon.data.corpus import load_corpus
from surgeon.data.labels import IGNORED
from surgeon.data.sources import Corpus
from surgeon.errors import TrainingError
from surgeon.interfaces.splits import Splits
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.class_names import network_of
from surgeon.training.data_fit import first_outputs
from surgeon.training.load_splits import prepared_as
from surgeon.training.objectives import call_of
from surgeon.training.parts import make_targets
from surgeon.training.session import train


def loaded(folder: Path, path: Path, seed: int = 0, **fields: object) -> tuple[torch.nn.Module, Splits]:
    model = surgeon.load(folder)
    fields = {"unit": "line", "max_length": 16, **fields}
    source = Corpus(source="corpus", path=str(path), **fields)
    return model, load_corpus(source, seed, prepared_as(network_of(model), model, [source]))


def batch_of(splits: Splits, count: int = 6) -> dict[str, torch.Tensor]:
    return splits.collate([splits.train[number] for number in range(count)])


def loss_of(model: torch.nn.Module, splits: Splits, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    outputs, first = first_outputs(model, splits)
    (target,) = make_targets(model, TrainSettings(), splits, [], [], None, outputs, first)
    outputs = call_of(model, splits.inputs)(model, batch)
    values, _ = target.losses(outputs, batch)
    mass = target.mass(batch)
    return (values * mass).sum() / mass.sum()


@pytest.mark.parametrize("packing", ["blocks", "none"])
@pytest.mark.parametrize("make", [llama, gpt2, bert])
def test_the_loss_is_that_of_the_networks_own_class(tmp_path: Path, make: Callable[[Path], Path], packing: str):
    model, splits = loaded(make(tmp_path / "m"), sentences(tmp_path / "a.txt"), packing=packing)
    batch = batch_of(splits)
    assert batch["labels"].shape == batch["input_ids"].shape
    expected = model(**{name: batch[name] for name in splits.inputs}, labels=batch["labels"]).loss
    assert torch.isfinite(expected)
    assert abs(loss_of(model, splits, batch).item() - expected.item()) < 1e-6


def test_texts_are_packed_into_full_blocks_with_a_token_at_the_end_of_each(tmp_path: Path):
    _, splits = loaded(llama(tmp_path / "m"), sentences(tmp_path / "a.txt"))
    batch = batch_of(splits, len(splits.train))
    tokenizer = splits.collate.tokenizer
    assert batch["input_ids"].shape[1] == 16
    assert batch["attention_mask"].all()
    assert torch.equal(batch["labels"], batch["input_ids"])
    text = tokenizer.decode(batch["input_ids"].flatten())
    whole = text.split("<end>")[:-1]
    assert len(whole) >= 40
    assert set(whole) <= set(SENTENCES)
    assert any("fill no block of 16" in note for note in splits.notes)


def test_texts_alone_are_padded_at_the_side_of_the_tokenizer(tmp_path: Path):
    for side, place in (("right", -1), ("left", 0)):
        _, splits = loaded(llama(tmp_path / side, side), sentences(tmp_path / "a.txt"), packing="none", max_length=64)
        batch = batch_of(splits, 12)
        short = batch["attention_mask"].sum(1).argmin()
        assert batch["attention_mask"][short, place] == 0
        assert batch["labels"][short, place] == IGNORED
        end = splits.collate.tokenizer.eos_token_id
        assert (batch["labels"] == end).sum(1).tolist() == [1] * 12, "the end of a text is learnt, padding is not"


def test_left_padding_does_not_shift_a_table_of_positions(tmp_path: Path):
    model, splits = loaded(gpt2(tmp_path / "m", "left"), sentences(tmp_path / "a.txt"), packing="none", max_length=64)
    assert "position_ids" in splits.inputs
    samples = [splits.train[number] for number in range(12)]
    batch = splits.collate(samples)
    logits = call_of(model, splits.inputs)(model, batch)["logits"]
    for row, sample in enumerate(samples):
        alone = model(input_ids=sample["input_ids"][None]).logits[0]
        assert torch.allclose(logits[row, -len(alone) :], alone, atol=1e-5)


def test_only_completions_are_learnt(tmp_path: Path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"ask": f"where is the {name}? ", "say": f"the {name} sits over there"} for name in ("cat", "dog", "owl")]
    path.write_text("\n".join(map(json.dumps, rows)))
    model, splits = loaded(llama(tmp_path / "m"), path, prompt="ask", completion="say", max_length=64)
    tokenizer = splits.collate.tokenizer
    for number in range(2):
        sample = splits.train[number]
        learnt = sample["labels"] != IGNORED
        assert tokenizer.decode(sample["labels"][learnt]).endswith("sits over there<end>")
        before = tokenizer.decode(sample["input_ids"][~learnt])
        assert before.startswith("where is the")
        assert before.endswith("? ")
    batch = batch_of(splits, 2)
    expected = model(**{name: batch[name] for name in splits.inputs}, labels=batch["labels"]).loss
    assert abs(loss_of(model, splits, batch).item() - expected.item()) < 1e-6


def test_a_prompt_that_leaves_no_room_names_its_row(tmp_path: Path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"ask": "cat " * count, "say": "dog"} for count in (1, 2, 3, 50)]
    path.write_text("\n".join(map(json.dumps, rows)))
    folder = llama(tmp_path / "m")
    fields = {"prompt": "ask", "completion": "say", "test_fraction": 0.25, "test_path": None}
    with pytest.raises(TrainingError, match=r"row 3: its prompt has \d+ tokens"):
        loaded(folder, path, **fields)
    _, splits = loaded(folder, path, on_error="skip", **fields)
    assert len(splits.train) + len(splits.test) == 3


def test_masks_change_with_every_epoch_and_never_for_a_measure(tmp_path: Path):
    folder, path = bert(tmp_path / "m"), sentences(tmp_path / "a.txt")
    _, splits = loaded(folder, path)
    again, other = loaded(folder, path)[1], loaded(folder, path, seed=1)[1]

    def masks(rows: object) -> list[list[int]]:
        return [rows[number]["labels"].tolist() for number in range(len(rows))]

    first = masks(splits.train)
    assert masks(splits.train) == first == masks(again.train)
    assert masks(other.train) != first
    splits.train.set_epoch(1)
    assert masks(splits.train) != first
    splits.train.set_epoch(0)
    assert masks(splits.train) == first
    assert masks(splits.test) == masks(other.test)
    splits.test.set_epoch(3)
    assert masks(splits.test) == masks(other.test)


def test_the_share_of_masked_tokens_is_the_one_asked_for(tmp_path: Path):
    _, splits = loaded(bert(tmp_path / "m"), sentences(tmp_path / "a.txt"), masked=0.4)
    batches = []
    for epoch in range(30):
        splits.train.set_epoch(epoch)
        batches.append(batch_of(splits, len(splits.train)))
    labels = torch.cat([batch["labels"] for batch in batches])
    tokens = torch.cat([batch["input_ids"] for batch in batches])
    chosen = labels != IGNORED
    plain = chosen | (tokens > PIECES.index("[MASK]"))
    assert chosen.sum() / plain.sum() == pytest.approx(0.4, abs=0.02)
    assert (tokens[chosen] == PIECES.index("[MASK]")).float().mean() == pytest.approx(0.8, abs=0.02)
    assert not torch.isin(labels[chosen], torch.tensor([0, 2, 3])).any(), "special tokens are never masked"


def test_whole_words_are_masked_together(tmp_path: Path):
    _, splits = loaded(bert(tmp_path / "m"), sentences(tmp_path / "a.txt"), packing="none", whole_words=True)
    piece = PIECES.index("##s")
    seen = 0
    for epoch in range(10):
        splits.train.set_epoch(epoch)
        for number in range(len(splits.train)):
            sample = splits.train[number]
            masked = sample["labels"] != IGNORED
            original = torch.where(masked, sample["labels"], sample["input_ids"])
            (ends,) = torch.where(original == piece)
            assert torch.equal(masked[ends], masked[ends - 1])
            seen += int(masked[ends].sum())
    assert seen


@pytest.mark.parametrize(("make", "name"), [(llama, "perplexity"), (bert, "pseudo_perplexity")])
def test_training_lowers_the_perplexity_and_evaluate_measures_the_same(
    tmp_path: Path, make: Callable[[Path], Path], name: str
):
    path = sentences(tmp_path / "a.txt")
    data = {"source": "corpus", "path": str(path), "unit": "line", "max_length": 16}
    settings = TrainSettings(data=data, epochs=15, batch_size=8, learning_rate=1e-2)
    model, report = surgeon.finetune(make(tmp_path / "m"), surgeon.Truncate(keep_blocks=2), settings=settings)
    measured = report.tasks["logits"]["all"]
    assert measured[name] == pytest.approx(torch.tensor(report.after["logits_loss"]).exp().item(), rel=1e-4)
    assert report.after["logits_loss"] < report.before["logits_loss"] - 0.5
    surgeon.save(model, tmp_path / "out")
    evaluated = surgeon.evaluate(tmp_path / "out", data, part="test")
    assert evaluated.main[name] == pytest.approx(measured[name], rel=1e-5)
    if name == "perplexity":
        alone = surgeon.evaluate(tmp_path / "out", path)
        assert alone.samples == len(SENTENCES)
        assert 1 < alone.main[name] < 2 * measured[name], "a text file is read as in training, a text a line"


def test_an_encoder_decoder_without_sentinels_is_refused(tmp_path: Path):
    with pytest.raises(TrainingError, match="the tokenizer has no sentinels <extra_id_0>"):
        loaded(t5(tmp_path / "m"), sentences(tmp_path / "a.txt"))


def test_a_network_that_predicts_no_tokens_is_refused(tmp_path: Path):
    folder = bert(tmp_path / "m", "BertForSequenceClassification")
    with pytest.raises(TrainingError, match="predicts no tokens"):
        loaded(folder, sentences(tmp_path / "a.txt"))


def test_what_a_corpus_lacks_is_said(tmp_path: Path):
    folder, path = llama(tmp_path / "m"), sentences(tmp_path / "a.txt")
    with pytest.raises(TrainingError, match="has only one text, so none can be held out"):
        loaded(folder, path, unit="file")
    with pytest.raises(TrainingError, match="a block has 64"):
        loaded(folder, path, samples=1, max_length=64)
    with pytest.raises(TrainingError, match="no end-of-text token"):
        loaded(llama(tmp_path / "endless", ends=False), path)
    (tmp_path / "odd.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(TrainingError, match=r"odd\.txt is not UTF-8: byte 3"):
        loaded(folder, tmp_path / "odd.txt")
    (tmp_path / "t.csv").write_text("text\na\nb\n")
    with pytest.raises(TrainingError, match="no column 'texts'"):
        loaded(folder, tmp_path / "t.csv", text="texts")


def test_interrupted_masked_training_goes_on_to_the_same_bytes(tmp_path: Path):
    folder, path = bert(tmp_path / "m"), sentences(tmp_path / "a.txt")
    data = {"source": "corpus", "path": str(path), "unit": "line", "max_length": 16}
    settings = TrainSettings(data=data, epochs=3, batch_size=4)
    whole, cut = surgeon.load(folder), surgeon.load(folder)
    train(whole, settings, quiet=True)

    def stop(step: int, *_: object) -> None:
        if step == 9:
            raise KeyboardInterrupt

    run = {"output_dir": tmp_path / "run", "checkpoints": True}
    with pytest.raises(KeyboardInterrupt):
        train(cut, settings, progress=stop, **run)
    cut = surgeon.load(folder)
    train(cut, settings, quiet=True, resume=True, **run)
    assert all(torch.equal(value, cut.state_dict()[name]) for name, value in whole.state_dict().items())


def refused(tmp_path: Path, folder: Path, train: dict[str, object]) -> str:
    """What ``run_recipe`` says of a recipe, without having written anything."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"operations": [{"op": "truncate", "keep_blocks": 2}], "train": train}))
    with pytest.raises(TrainingError) as caught:
        surgeon.run_recipe(folder, recipe, tmp_path / "out", progress=NoReading())
    assert not (tmp_path / "out").exists()
    return caught.value.message


class NoReading(surgeon.RunProgress):
    """Fails where weights are read."""

    def step(self, what: str, total: int | None = None) -> object:
        assert what not in ("reading", "writing"), "weights are read before the refusal"
        return super().step(what, total)


def test_classes_of_texts_are_refused_for_a_language_model_before_surgery(tmp_path: Path):
    table = tmp_path / "films.csv"
    table.write_text("text,genre\n" + "a cat,drama\nthe dog,comedy\n" * 5)
    data = {"source": "table", "path": str(table), "text": "text", "targets": {"labels": "genre"}}
    for make, name in ((llama, "LlamaForCausalLM"), (bert, "BertForMaskedLM")):
        said = refused(tmp_path, make(tmp_path / name), {"data": data})
        assert said == f"{name} predicts tokens, and the column 'genre' holds one label for each text"


def test_texts_for_a_network_without_a_language_head_are_refused_before_surgery(tmp_path: Path):
    data = {"source": "corpus", "path": str(sentences(tmp_path / "a.txt")), "unit": "line"}
    assert "predicts no tokens" in refused(tmp_path, bert(tmp_path / "base", "BertModel"), {"data": data})
    wrong = {"data": data, "objectives": [{"output": "logits", "loss": "next_token"}]}
    assert "in both directions" in refused(tmp_path, bert(tmp_path / "masked"), wrong)
    wrong = {"data": data, "objectives": [{"output": "logits", "loss": "masked"}]}
    assert "from left to right" in refused(tmp_path, llama(tmp_path / "next"), wrong)


def test_a_loss_of_an_output_that_is_not_there_is_refused_before_surgery(tmp_path: Path):
    table = tmp_path / "films.csv"
    table.write_text("text,genre\n" + "a cat,drama\nthe dog,comedy\n" * 5)
    data = {"source": "table", "path": str(table), "text": "text", "targets": {"labels": "genre"}}
    folder = bert(tmp_path / "base", "BertModel")
    assert "returns last_hidden_state, pooler_output" in refused(tmp_path, folder, {"data": data})
    named = {"data": data, "objectives": [{"output": "pooled", "loss": "cross_entropy"}]}
    assert refused(tmp_path, folder, named) == "unknown output 'pooled' (available: last_hidden_state, pooler_output)"


def test_a_network_that_sees_the_next_token_is_neither_trained_on_it_nor_measured(tmp_path: Path):
    folder = bert(tmp_path / "m", "BertLMHeadModel")  # its config says is_decoder: false
    data = {"source": "corpus", "path": str(sentences(tmp_path / "a.txt")), "unit": "line", "max_length": 16}
    with pytest.raises(TrainingError, match="sees the token that next_token predicts") as caught:
        train(surgeon.load(folder), TrainSettings(data=data), quiet=True)
    assert "task: causal_lm" in str(caught.value.hint)
    with pytest.raises(TrainingError, match="sees the token that next_token predicts"):
        surgeon.evaluate(folder, data)
    turned = surgeon.apply(str(folder), [surgeon.ReplaceHead(task="causal_lm")])
    train(turned, TrainSettings(data=data, epochs=1), quiet=True)


@pytest.mark.parametrize("kind", ["XLNet", "XLM"])
def test_the_way_out_that_is_named_exists(tmp_path: Path, kind: str):
    import transformers
    from language_folders import byte_tokenizer

    torch.manual_seed(0)
    folder = tmp_path / "m"
    if kind == "XLNet":
        config = transformers.XLNetConfig(vocab_size=320, d_model=16, n_layer=2, n_head=2, d_inner=16)
        transformers.XLNetLMHeadModel(config).save_pretrained(folder)
    else:
        config = transformers.XLMConfig(vocab_size=320, emb_dim=16, n_layers=2, n_heads=2)
        transformers.XLMWithLMHeadModel(config).save_pretrained(folder)
    byte_tokenizer(folder)
    data = {"source": "corpus", "path": str(sentences(tmp_path / "a.txt")), "unit": "line", "max_length": 16}
    with pytest.raises(TrainingError, match="sees the token that next_token predicts") as caught:
        train(surgeon.load(folder), TrainSettings(data=data), quiet=True)
    hint = str(caught.value.hint)
    assert "masked_lm" not in hint
    if kind == "XLNet":
        assert hint == "take a network that reads texts from left to right"
    else:
        turned = surgeon.apply(str(folder), [surgeon.ReplaceHead(task="causal_lm")])
        train(turned, TrainSettings(data=data, epochs=1), quiet=True)
        assert "task: causal_lm" in hint


def test_a_tokenizer_that_cannot_pad_texts_is_refused(tmp_path: Path):
    folder = llama(tmp_path / "m", ends=False)
    with pytest.raises(TrainingError, match="names no token that pads, nor one that ends a text"):
        loaded(folder, sentences(tmp_path / "a.txt"), packing="none")


def test_tokens_beyond_the_embedding_are_not_drawn_for_masked_ones(tmp_path: Path):
    from transformers import AutoTokenizer

    folder = bert(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"zz{number}" for number in range(20)])
    tokenizer.save_pretrained(folder)
    path = sentences(tmp_path / "a.txt")
    with pytest.raises(TrainingError, match=f"{len(tokenizer)}, but the embedding has {len(PIECES)} rows"):
        loaded(folder, path)
    loaded(folder, path, whole_words=True)


def test_a_text_of_one_token_has_its_id_checked(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("the cat sleeps\na\n" * 9)
    _, splits = loaded(llama(tmp_path / "m"), path, packing="none")
    assert len(splits.train) + len(splits.test) == 18
