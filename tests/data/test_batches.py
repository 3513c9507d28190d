"""Batches of rows are read together, and are what single samples make."""

from __future__ import annotations

import torch
from small_data import load, table, tokenizer
from test_tabular import data

from surgeon.data import rows as module
from surgeon.data.rows import Chosen, Gathered
from surgeon.data.texts import Texts


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_a_batch_of_numbers_is_what_its_samples_make(tmp_path, monkeypatch):
    loaded = load(data(tmp_path))
    some = [5, 0, 11, 5]
    alone = loaded.collate([loaded.train[row] for row in some])
    together = loaded.train.__getitems__(some)
    assert isinstance(together, Gathered)
    assert same(loaded.collate(together), alone)
    assert same(together[1], loaded.train[0])
    assert same(loaded.collate(Chosen(loaded.train, [3, 5, 0]).__getitems__([1, 2])), loaded.collate(together[:2]))
    monkeypatch.setattr(module, "ROOM", 0)  # too many for the memory
    unbuffered = load(data(tmp_path))
    assert same(unbuffered.collate(unbuffered.train.__getitems__(some)), alone)


def test_texts_become_tokens_once(tmp_path, monkeypatch):
    words = tokenizer(tmp_path / "words")
    lines = "".join(f"a {'very ' * (n % 3)}good film,{n % 2}\n" for n in range(12))
    loaded = load(table(tmp_path / "t.csv", "t,y\n" + lines, text="t", tokenizer=str(words)))
    alone = [loaded.train[row] for row in range(6)]
    calls = []
    encode = Texts.encode
    monkeypatch.setattr(Texts, "encode", lambda self, values, **more: calls.append(len(values)) or encode(self, values))
    for _ in range(2):
        together = loaded.train.__getitems__(range(6))
        assert all(same(left, right) for left, right in zip(together, alone, strict=True))
    assert calls == [6]
    assert same(loaded.collate(together), loaded.collate(alone))
