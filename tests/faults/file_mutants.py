"""Mutants of checkpoints, by structure and by byte: each follows from a format and a number.

(Legacy files name their storages by places in memory, and so differ a little from one process to another.)
"""

from __future__ import annotations

import io
import json
import pickletools
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from typing import Any

import safetensors.torch
import torch

Dice = random.Random

NUMBERS = (0, 1, 2, 3, 7, 64, 127, 128, 255, 256, 65535, 1 << 31, (1 << 31) - 1, (1 << 32) - 1, 1 << 40, (1 << 63) - 1)
STORAGES = (
    "Float",
    "Double",
    "Half",
    "Long",
    "Int",
    "Short",
    "Char",
    "Byte",
    "Bool",
    "BFloat16",
    "ComplexFloat",
    "QInt8",
)


def contents() -> list[Any]:
    """What is saved before it is damaged: every kind of view, ties, dtypes, nesting, sparse tensors."""
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    plain = {
        "conv.weight": torch.randn(3, 2, 2, 2),
        "conv.bias": torch.randn(3),
        "fc.weight": base,
        "fc.view": base[1:3],
        "fc.transposed": base.t(),
        "tied.weight": base,
        "half": torch.randn(5).half(),
        "steps": torch.arange(3),
        "flags": torch.tensor([True, False]),
        "empty": torch.empty(0, 2),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
    }
    same = {f"l{number}.weight": torch.randn(3, 3) for number in range(4)}
    nested = {"epoch": 3, "state_dict": same, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}}
    return [plain, same, nested, {"sparse": torch.eye(3).to_sparse(), "bf16": torch.randn(3).bfloat16(), **same}]


@cache
def originals(form: str) -> list[bytes]:
    """The undamaged files of a format."""
    files = []
    for number, content in enumerate(contents()):
        buffer = io.BytesIO()
        if form == "safetensors":
            if number < 2:
                tensors = {name: tensor.clone().contiguous() for name, tensor in content.items()}
                metadata = {"format": "pt", "other.weight": next(iter(tensors))}
                buffer.write(safetensors.torch.save(tensors, metadata))
        else:
            torch.save(content, buffer, _use_new_zipfile_serialization=form == "zip")
        files.append(buffer.getvalue())
    return [data for data in files if data]


def mutant(form: str, number: int) -> bytes:
    """Make the mutant ``number`` of a format; 0 and a few others are undamaged."""
    dice = random.Random(f"{form} {number}")
    data = dice.choice(originals(form))
    for _ in range(dice.choice((0, 1, 1, 1, 1, 1, 2, 3)) if number else 0):
        structural = dice.random() < 0.6
        try:
            data = STRUCTURAL[form](data, dice) if structural else flip(data, dice)
        except Exception:
            data = flip(data, dice)  # damaged too far to have a structure
    return data


def flip(data: bytes, dice: Dice) -> bytes:
    """Change bytes without regard to what they mean."""
    if not data:
        return data
    at = dice.randrange(len(data))
    end = min(len(data), at + dice.choice((1, 1, 2, 4, 8, 60)))
    kind = dice.randrange(9)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[end:]
    if kind == 2:
        return data[:at] + data[at:end] * 2 + data[end:]
    if kind == 3:
        return data[:at] + dice.randbytes(end - at) + data[at:]
    if kind == 4:
        other = dice.randrange(len(data))
        return data[:at] + data[other : other + end - at] + data[end:]
    if kind == 5:
        number = dice.choice(NUMBERS).to_bytes(8, "little")
        return data[:at] + number[: end - at] + data[end:]
    if kind == 6:
        return data[:at] + dice.randbytes(end - at) + data[end:]
    return data[:at] + bytes((data[at] ^ (1 << dice.randrange(8)),)) + data[at + 1 :]


def mutated_pickle(data: bytes, dice: Dice) -> bytes:
    """Change what one instruction of a pickle says, or leave one out, or repeat it."""
    operations = [(opcode, argument, at) for opcode, argument, at in pickletools.genops(data)]
    ends = [at for _, _, at in operations[1:]] + [operations[-1][2] + 1]
    rest = data[ends[-1] :]
    parts = [data[at:end] for (_, _, at), end in zip(operations, ends, strict=True)]
    index = dice.randrange(1, len(parts))
    kind = dice.randrange(5)
    if kind == 0:
        del parts[index]
    elif kind == 1:
        parts.insert(index, dice.choice(parts))
    elif kind == 2:
        other = dice.randrange(1, len(parts))
        parts[index], parts[other] = parts[other], parts[index]
    else:
        choices = [i for i, (opcode, _, _) in enumerate(operations) if opcode.name in INSTRUCTIONS]
        index = dice.choice(choices)
        opcode, argument, _ = operations[index]
        parts[index] = INSTRUCTIONS[opcode.name](argument, operations, dice)
    return b"".join(parts) + rest


def _number(argument: Any, _: Any, dice: Dice) -> bytes:
    number = dice.choice((argument + 1, argument - 1, argument * 2, -1, dice.choice(NUMBERS)))
    if 0 <= number < 256:
        return b"K" + bytes((number,))
    if -(1 << 31) <= number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    return b"\x8a\x09" + number.to_bytes(9, "little", signed=True)


def _string(argument: Any, operations: Any, dice: Dice) -> bytes:
    others = [text for opcode, text, _ in operations if opcode.name == "BINUNICODE"]
    text = dice.choice((*others, argument + "x", "", "0", "1", "cuda:0", "a.b.c", "\n", "é" * 50, "module." + argument))
    encoded = str(text).encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _global(argument: Any, operations: Any, dice: Dice) -> bytes:
    others = [text for opcode, text, _ in operations if opcode.name == "GLOBAL"]
    storage = f"torch {dice.choice(STORAGES)}Storage"
    more = (
        "torch._utils _rebuild_tensor_v3",
        "torch._utils _rebuild_parameter",
        "torch Size",
        "builtins set",
        "os system",
    )
    module, _, name = dice.choice((storage, storage, storage, *others, *more)).partition(" ")
    return f"c{module}\n{name}\n".encode()


INSTRUCTIONS: dict[str, Callable[[Any, Any, Dice], bytes]] = {
    "BININT1": _number,
    "BININT": _number,
    "BININT2": _number,
    "BINUNICODE": _string,
    "GLOBAL": _global,
}


def mutated_zip(data: bytes, dice: Dice) -> bytes:
    """Zip an archive again with other records, in another order, or around another pickle."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = [(info.filename, archive.read(info), zipfile.ZIP_STORED) for info in archive.infolist()]
    index = dice.randrange(len(records))
    name, value, method = records[index]
    kind = dice.randrange(14)
    if kind <= 3:
        index = next(i for i, record in enumerate(records) if record[0].endswith("/data.pkl"))
        records[index] = (records[index][0], mutated_pickle(records[index][1], dice), method)
    elif kind == 4:
        dice.shuffle(records)
    elif kind == 5:
        del records[index]
    elif kind == 6:
        records.insert(dice.randrange(len(records)), (dice.choice((name, name.upper(), f"{name}\0x")), value, method))
    elif kind == 7:
        other = dice.randrange(len(records))
        records[index], records[other] = (records[other][0], value, method), (name, records[other][1], method)
    elif kind == 8:
        records[index] = (name, dice.choice((value[:-1], value + b"x", b"", value * 2, flip(value, dice))), method)
    elif kind == 9:
        records[index] = (name, value, zipfile.ZIP_DEFLATED)
    elif kind == 10:
        folder = dice.choice(("other", "a/b", "", "../..", "é"))
        records = [(f"{folder}/{name.partition('/')[2]}", value, method) for name, value, method in records]
    elif kind == 11:
        order = [i for i, record in enumerate(records) if record[0].endswith("byteorder")]
        value = dice.choice((b"big", b"little", b"BIG", b"", b"middle"))
        records = [(n, value if i in order else v, m) for i, (n, v, m) in enumerate(records)]
    elif kind == 12:
        extra = dice.choice(
            ("version", ".format_version", ".storage_alignment", "data/0", "constants.pkl", "data/", "code/x.py")
        )
        root = name.partition("/")[0]
        value = dice.choice((b"1", b"0", b"9999", b"x", b"-64"))
        records = [record for record in records if record[0] != f"{root}/{extra}"]
        records.insert(dice.randrange(len(records)), (f"{root}/{extra}", value, method))
    result = io.BytesIO()
    if kind == 13 and dice.random() < 0.5:
        result.write(records[0][1] and b"PK\3\4" + dice.randbytes(40))  # zipfile allows bytes before an archive
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(result, "w") as archive:
            if dice.random() < 0.1:
                archive.comment = dice.choice((b"x" * 100, b"PK\5\6" + bytes(18), data[-200:]))
            for name, value, method in records:
                info = zipfile.ZipInfo(name)
                info.compress_type = method
                with archive.open(info, "w", force_zip64=dice.random() < 0.1) as file:
                    file.write(value)
    return result.getvalue()


def mutated_legacy(data: bytes, dice: Dice) -> bytes:
    """Change one of the pickles (magic number, version, system, content, keys), or a storage's length behind them."""
    stream = io.BytesIO(data)
    starts = [0]
    for _ in range(5):
        for _ in pickletools.genops(stream):
            pass
        starts.append(stream.tell())
    if dice.random() < 0.2:
        at = dice.choice((starts[5], dice.randrange(starts[5], len(data))))
        number = dice.choice((*NUMBERS, int.from_bytes(data[at : at + 8], "little") + 1))
        return data[:at] + (number % (1 << 64)).to_bytes(8, "little") + data[at + 8 :]
    which = dice.choice((0, 1, 2, 3, 3, 3, 3, 3, 4, 4))
    begin, end = starts[which], starts[which + 1]
    return data[:begin] + mutated_pickle(data[begin:end], dice) + data[end:]


def mutated_safetensors(data: bytes, dice: Dice) -> bytes:
    """Change the header: a dtype, a shape, a place, a name, the metadata, its length."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    values = data[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    name, other = dice.choice(names), dice.choice(names)
    fact = header[name]
    odd = dice.choice((-1, 0, 1.5, True, None, "3", [], {}, 1 << 70, dice.choice(NUMBERS)))
    kind = dice.randrange(14)
    if kind == 0:
        fact["dtype"] = dice.choice(
            ("F32", "F64", "F16", "BF16", "I8", "U8", "BOOL", "F8_E4M3", "C64", "F4", "", "f32", 7)
        )
    elif kind == 1:
        fact["shape"] = dice.choice((fact["shape"][::-1], [*fact["shape"], 1], [*fact["shape"], odd], [odd], odd))
    elif kind == 2:
        fact["data_offsets"] = dice.choice(([odd, fact["data_offsets"][1]], [fact["data_offsets"][0], odd], odd))
    elif kind == 3:
        fact["data_offsets"], header[other]["data_offsets"] = header[other]["data_offsets"], fact["data_offsets"]
    elif kind == 4:
        begin, end = fact["data_offsets"]
        step = dice.choice((-8, -4, -1, 1, 4, 8))
        fact["data_offsets"] = [begin + step, end + dice.choice((0, step))]
    elif kind == 5:
        del header[name]
    elif kind == 6:
        header[dice.choice(("x", "", "é", "__metadata__", "a.b", "\0", "module.x"))] = header.pop(name)
    elif kind == 7:
        header["__metadata__"] = dice.choice(
            (None, [], "x", 3, {}, {"a": 1}, {name: other}, {"x.y": name}, {"surgeon": "{"})
        )
    elif kind == 8:
        fact[dice.choice(("extra", "dtype", "shape"))] = odd
    elif kind == 9:
        header = dict(dice.sample(sorted(header.items(), key=str), len(header)))
    text = json.dumps(header, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    if kind == 10:
        text = dice.choice((text + b" " * 5, b" " + text, text + b"\n", text + b"x", text.replace(b":", b" : ")))
    elif kind == 11:
        twice = json.dumps({name: header[name]}).encode()[1:-1]
        text = text[:-1] + b", " + twice + b"}"
    elif kind == 12:
        values = dice.choice((values + b"x", values[:-1], values[::-1], values * 2, b""))
    size = len(text) + (dice.choice((-1, 1, 8, 1 << 40, -len(text))) if kind == 13 else 0)
    return size.to_bytes(8, "little", signed=True) + text + values


STRUCTURAL = {"zip": mutated_zip, "legacy": mutated_legacy, "safetensors": mutated_safetensors}
