"""Conversations become tokens by the tokenizer's chat template; only the assistant's turns are learnt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from language_folders import bert, llama
from test_language_models import batch_of, loaded, loss_of

from surgeon.data.corpus_texts import texts_by_part
from surgeon.data.labels import IGNORED
from surgeon.data.sources import Corpus
from surgeon.errors import TrainingError
from surgeon.interfaces.splits import Splits

PLAIN = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
MARKED = (
    "{% for m in messages %}<{{ m['role'] }}>{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}<end>{% endgeneration %}{% else %}{{ m['content'] }}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
FORGETFUL = (
    "{% for m in messages %}<{{ m['role'] }}>"
    "{% if m['role'] == 'assistant' and not loop.last %}…{% else %}{{ m['content'] }}{% endif %}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
STRICT = "{{ raise_exception('roles must alternate') }}"
TURNS = [
    ["where is the cat?", "under the table", "and the dog?", "behind houses"],
    ["what does the owl do?", "it jumps"],
    ["who sleeps?", "the mouse"],
]


def conversation(turns: list[str]) -> list[dict[str, str]]:
    return [{"role": "assistant" if n % 2 else "user", "content": turn} for n, turn in enumerate(turns)]


def chat(folder: Path, template: str | None) -> Path:
    llama(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def table(path: Path, rows: list[object] | None = None) -> Path:
    rows = [conversation(turns) for turns in TURNS] if rows is None else rows
    path.write_text("\n".join(json.dumps({"messages": row}) for row in rows))
    return path


def read(tmp_path: Path, template: str | None, rows: list[object] | None = None, **fields: object):
    folder, path = chat(tmp_path / "m", template), table(tmp_path / "a.jsonl", rows)
    fields = {"messages": "messages", "max_length": 64, "unit": "file", **fields}
    return loaded(folder, path, **fields)


def learnt(splits: Splits, sample: dict[str, torch.Tensor]) -> str:
    return splits.collate.tokenizer.decode(sample["labels"][sample["labels"] != IGNORED])


@pytest.mark.parametrize("template", [PLAIN, MARKED])
def test_the_assistants_turns_alone_are_learnt(tmp_path: Path, template: str):
    model, splits = read(tmp_path, template)
    rows = [splits.train[number] for number in range(len(splits.train))]
    rows += [splits.test[number] for number in range(len(splits.test))]
    tokenizer = splits.collate.tokenizer
    texts = {tokenizer.decode(row["input_ids"]): learnt(splits, row) for row in rows}
    expected = {}
    for turns in TURNS:
        whole = "".join(f"<{'assistant' if n % 2 else 'user'}>{turn}<end>" for n, turn in enumerate(turns))
        expected[whole] = "".join(f"{turn}<end>" for turn in turns[1::2])
    assert texts == expected
    assert set(splits.inputs) == {"input_ids", "attention_mask"}
    batch = batch_of(splits, 2)
    own_loss = model(**{name: batch[name] for name in splits.inputs}, labels=batch["labels"]).loss
    assert abs(loss_of(model, splits, batch).item() - own_loss.item()) < 1e-6


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (None, "the tokenizer has no chat template"),
        (FORGETFUL, r"row \d: the chat template writes earlier turns differently"),
        (STRICT, r"row \d: the chat template refuses the conversation: roles must alternate"),
    ],
)
def test_a_template_that_does_not_tell_is_refused(tmp_path: Path, template: str | None, problem: str):
    with pytest.raises(TrainingError, match=problem):
        read(tmp_path, template)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ([], r"row 1: '\[\]' is not a list of messages"),
        ([{"role": "user", "content": "hm"}], "row 1: the assistant says nothing in it"),
        ([{"role": None, "content": "hm"}], "row 1: .* is not a message"),
        (conversation(["the cat " * 40, "sleeps"]), "row 1: .* after 64 tokens"),
    ],
)
def test_a_row_without_an_answer_to_learn_is_named(tmp_path: Path, row: list[object], problem: str):
    rows = [conversation(TURNS[0]), row, conversation(TURNS[1])]
    with pytest.raises(TrainingError, match=problem):
        read(tmp_path, PLAIN, rows, test_fraction=0.3)


def test_a_network_of_masked_tokens_takes_no_conversations(tmp_path: Path):
    with pytest.raises(TrainingError, match="messages are for networks that predict the next token"):
        loaded(bert(tmp_path / "m"), table(tmp_path / "a.jsonl"), messages="messages")


@pytest.mark.parametrize(
    ("column", "bad"),
    [("messages", None), ("messages", [{"role": "user", "content": "why"}]), ("text", ["x"]), ("text", 5)],
)
def test_a_row_that_is_unreadable_is_left_out_where_the_source_says_so(tmp_path: Path, column: str, bad: object):
    good = [{"role": "user", "content": "why"}, {"role": "assistant", "content": "so"}]
    rows = [{column: good if column == "messages" else "the cat sleeps"}] * 6 + [{column: bad}]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    source = Corpus(source="corpus", path=str(path), on_error="skip", **{column: column})
    notes: list[str] = []
    assert len(texts_by_part(source, notes)["train"]) == 6
    assert any("left out row 6" in note for note in notes)
