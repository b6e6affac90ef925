"""Model files that lie, are cut short or are not what their name says, made
from bytes. Nothing here is shared with the parsers."""

import json
import os
import struct

import served

F32 = 0
Q8_0 = 8
UINT8, UINT32, FLOAT32, BOOL, STRING, ARRAY = 0, 4, 6, 7, 8, 9
FLOAT64 = 12


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


def text(value):
    data = value.encode()
    return u64(len(data)) + data


def header(tensors, keys, version=3):
    return b"GGUF" + u32(version) + u64(tensors) + u64(keys)


def key(name, kind, value):
    return text(name) + u32(kind) + value


def array(name, kind, count, elements):
    return key(name, ARRAY, u32(kind) + u64(count) + elements)


def info(name, dims, kind, offset):
    """`dims` in the file's order: the row length first."""
    return (text(name) + u32(len(dims)) + b"".join(map(u64, dims))
            + u32(kind) + u64(offset))


def padded(data):
    return data + bytes(-len(data) % 32)


def tensors(infos, data, keys=(), count=None):
    """A file of tensor infos over so many bytes of data."""
    return padded(header(len(infos) if count is None else count, len(keys))
                  + b"".join(keys) + b"".join(infos)) + b"d" * data


def one(dims, kind=F32, offset=0, data=64):
    return tensors([info("t", dims, kind, offset)], data)


def keys(*pieces):
    return header(0, len(pieces)) + b"".join(pieces)


class Tiny:
    """A GGUF file that loads: llama, one layer of two heads, a token for each
    byte."""

    HIDDEN, FFN, VOCAB = 32, 32, 257

    def __init__(self):
        # GPT-2's characters for bytes: those that print are themselves.
        printing = [*range(33, 127), *range(161, 173), *range(174, 256)]
        rest = [byte for byte in range(256) if byte not in printing]
        tokens = ([chr(byte) for byte in printing]
                  + [chr(256 + i) for i in range(len(rest))] + ["<|end|>"])
        self.keys = {
            "general.architecture": (STRING, text("llama")),
            "llama.block_count": (UINT32, u32(1)),
            "llama.embedding_length": (UINT32, u32(self.HIDDEN)),
            "llama.feed_forward_length": (UINT32, u32(self.FFN)),
            "llama.context_length": (UINT32, u32(64)),
            "llama.attention.head_count": (UINT32, u32(2)),
            "llama.attention.head_count_kv": (UINT32, u32(1)),
            "llama.attention.layer_norm_rms_epsilon":
                (FLOAT32, struct.pack("<f", 1e-5)),
            "tokenizer.ggml.model": (STRING, text("gpt2")),
            "tokenizer.ggml.pre": (STRING, text("gpt-2")),
            "tokenizer.ggml.tokens": (ARRAY, u32(STRING) + u64(len(tokens))
                                      + b"".join(map(text, tokens))),
            "tokenizer.ggml.token_type":
                (ARRAY, u32(UINT32) + u64(len(tokens))
                 + u32(1) * 256 + u32(3)),
            "tokenizer.ggml.merges": (ARRAY, u32(STRING) + u64(0)),
            "tokenizer.ggml.eos_token_id": (UINT32, u32(256)),
            # A program that nobody may run.
            "tokenizer.chat_template": (STRING, text(
                "{{ ''.__class__.__mro__[1].__subclasses__() }}")),
        }
        square = (self.HIDDEN, self.HIDDEN)
        key_value = (self.HIDDEN, self.HIDDEN // 2)
        self.tensors = {
            "token_embd.weight": (self.HIDDEN, self.VOCAB),
            "output_norm.weight": (self.HIDDEN,),
            "blk.0.attn_norm.weight": (self.HIDDEN,),
            "blk.0.attn_q.weight": square,
            "blk.0.attn_k.weight": key_value,
            "blk.0.attn_v.weight": key_value,
            "blk.0.attn_output.weight": square,
            "blk.0.ffn_norm.weight": (self.HIDDEN,),
            "blk.0.ffn_gate.weight": square,
            "blk.0.ffn_up.weight": square,
            "blk.0.ffn_down.weight": square,
        }

    def with_key(self, name, kind, value):
        self.keys[name] = (kind, value)
        return self

    def without(self, name):
        (self.keys if name in self.keys else self.tensors).pop(name)
        return self

    def with_tensor(self, name, *dims):
        self.tensors[name] = dims
        return self

    def file(self):
        infos, data = b"", b""
        for name, dims in self.tensors.items():
            infos += info(name, dims, F32, len(data))
            count = 1
            for size in dims:
                count *= size
            data += b"".join(struct.pack("<f", (i * 37 % 101 - 50) / 500)
                             for i in range(count))
        return padded(header(len(self.tensors), len(self.keys)) + b"".join(
            key(name, *value) for name, value in self.keys.items())
                      + infos) + data


def heads(name, value):
    return Tiny().with_key("llama." + name, UINT32, u32(value)).file()


_NUMBER = key("k", UINT32, u32(1))

# Name of the model, its bytes, and what its error must say: the key or the
# tensor where there is one. By the table of cases in which such files broke
# other programs: F1 and so on.
GGUF = (
    # F1: sizes whose products or sums wrap.
    ("F1-product-wraps-to-64", one([16, 2**32, 2**32]), "tensor 't'"),
    ("F1-product-wraps-to-0", one([2**32, 2**32]), "tensor 't'"),
    ("F1-bytes-wrap", one([2**61]), "tensor 't'"),
    ("F1-last-dimension-wraps", one([2**31, 2**31, 1, 16]), "tensor 't'"),
    ("F1-dimension-2-63", one([2**63]), "tensor 't'"),
    ("F1-dimension-2-64", one([2**64 - 1]), "tensor 't'"),
    ("F1-2-GiB-in-64-bytes", one([2**29]), "tensor 't'"),
    ("F1-last-tensor-wraps", tensors(
        [info("a", [16], F32, 0), info("b", [16], F32, 2**64 - 32)], 128),
     "tensor 'b'"),
    # F2: data that is not all in the file, or is another's.
    ("F2-offset-past-the-end", one([8], offset=96), "tensor 't'"),
    ("F2-offset-and-bytes-past-the-end", one([16], offset=32), "tensor 't'"),
    ("F2-one-element-over", one([17]), "tensor 't'"),
    ("F2-overlap", tensors([info("a", [16], F32, 0),
                            info("b", [16], F32, 32)], 128), "tensor 'b'"),
    ("F2-misaligned", one([4], offset=1), "tensor 't'"),
    ("F2-hole", one([8], offset=32), "tensor 't'"),
    ("F2-truncated", Tiny().file()[:-33], "tensor 'blk.0.ffn_down.weight'"),
    # F3: values that are divided by, compared or trusted.
    ("F3-empty-file", b"", "GGUF"),
    ("F3-bad-magic", b"GGML" + header(0, 0)[4:], "GGUF"),
    ("F3-magic-alone", b"GGUF", "4 bytes"),
    ("F3-version-1", header(0, 0, version=1), "version 1"),
    ("F3-version-4", header(0, 0, version=4), "version 4"),
    ("F3-big-endian", b"GGUF" + struct.pack(">I", 3) + bytes(16),
     "big-endian"),
    ("F3-dimension-0", one([16, 0]), "tensor 't'"),
    ("F3-5-dimensions", one([1, 1, 1, 1, 16]), "tensor 't'"),
    ("F3-half-a-block", one([48, 2], kind=Q8_0), "tensor 't'"),
    ("F3-unknown-tensor-type", one([16], kind=4), "tensor 't'"),
    ("F3-unknown-key-type", keys(key("k", 13, bytes(8))), "key 'k'"),
    ("F3-boolean-2", keys(key("k", BOOL, b"\2")), "key 'k'"),
    ("F3-empty-key", keys(key("", UINT8, b"x")), "key 1 of 1"),
    ("F3-key-twice", keys(_NUMBER, _NUMBER), "key 'k'"),
    ("F3-tensor-twice", tensors([info("t", [16], F32, 0),
                                 info("t", [16], F32, 64)], 128),
     "tensor 't'"),
    ("F3-alignment-0", tensors(
        [info("t", [16], F32, 0)], 64,
        keys=[key("general.alignment", UINT32, u32(0))]),
     "key 'general.alignment'"),
    ("F3-alignment-is-a-text", tensors(
        [info("t", [16], F32, 0)], 64,
        keys=[key("general.alignment", STRING, text("32"))]),
     "key 'general.alignment'"),
    # F4, F13: counts that are only claimed.
    ("F4-2-61-numbers", keys(array("k", FLOAT64, 2**61, b"")), "key 'k'"),
    ("F4-2-61-strings", keys(array("k", STRING, 2**61, text("a"))),
     "key 'k'"),
    ("F4-array-a-byte-short", keys(array("k", UINT8, 5, b"1234")), "key 'k'"),
    ("F4-arrays-in-an-array", keys(array("k", ARRAY, 1, text(""))),
     "key 'k'"),
    ("F13-2-64-tensors", header(2**64 - 1, 0), "tensors, over the limit"),
    ("F13-2-63-keys", header(0, 2**63), "keys, over the limit"),
    ("F13-tensors-that-are-not-there", header(2, 0), "tensor 1 of 2"),
    ("F13-keys-that-are-not-there", header(0, 2), "key 1 of 2"),
    # F5: a length that wraps when one is added.
    ("F5-string-of-2-64", keys(key("k", STRING, u64(2**64 - 1) + b"1234")),
     "key 'k'"),
    ("F5-string-a-byte-short", keys(key("k", STRING, u64(5) + b"1234")),
     "key 'k'"),
    ("F5-key-of-2-64", keys(u64(2**64 - 1) + b"k"), "key 1 of 1"),
    ("F5-name-of-2-64", tensors([u64(2**64 - 1) + b"t"], 64),
     "tensor 1 of 1"),
    # F15: files in order, of models that cannot be.
    ("F15-no-architecture", Tiny().without("general.architecture").file(),
     "'general.architecture'"),
    ("F15-unknown-architecture", Tiny().with_key(
        "general.architecture", STRING, text("mamba")).file(),
     "'general.architecture'"),
    ("F15-0-heads", heads("attention.head_count", 0),
     "attention.head_count"),
    ("F15-2-31-heads", heads("attention.head_count", 2**31),
     "llama.attention.head_count"),
    ("F15-3-heads", heads("attention.head_count", 3), "attention.head_count"),
    ("F15-more-kv-heads", heads("attention.head_count_kv", 4),
     "attention.head_count_kv"),
    ("F15-head-dim-0", heads("attention.key_length", 0),
     "attention.key_length"),
    ("F15-10-9-layers", heads("block_count", 10**9), "llama.block_count"),
    ("F15-theta-is-no-number", Tiny().with_key(
        "llama.rope.freq_base", FLOAT32,
        struct.pack("<f", float("nan"))).file(), "rope.freq_base"),
    ("F15-fewer-rows-than-tokens", Tiny().with_tensor(
        "token_embd.weight", Tiny.HIDDEN, Tiny.VOCAB - 1).file(),
     "'tokenizer.ggml.eos_token_id'"),
    ("F15-missing-tensor", Tiny().without("blk.0.ffn_up.weight").file(),
     "blk.0.ffn_up.weight"),
    ("F15-tensor-of-another-shape", Tiny().with_tensor(
        "blk.0.attn_k.weight", Tiny.HIDDEN, 5).file(), "blk.0.attn_k.weight"),
)


def safetensors(shape=(2,), dtype="F32", end=8, data=8, start=b""):
    """One tensor "t", and what is said of it."""
    listed = start + json.dumps({"t": {
        "dtype": dtype, "shape": list(shape),
        "data_offsets": [0, end]}}).encode()
    return u64(len(listed)) + listed + bytes(data)


def index(**weight_map):
    return json.dumps({"weight_map": weight_map}).encode()


_TENSOR = b'"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'

# The same for folders: a file of models/mailroom that is another here.
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FOLDERS = (
    # F8: recursion driven by input.
    ("F8-config-of-brackets", "config.json", b"[" * 100000, "config.json"),
    ("F8-tokenizer-of-brackets", "tokenizer.json", b"[" * 100000,
     "tokenizer.json"),
    ("F8-index-of-brackets", INDEX, b"[" * 100000, INDEX),
    # F12: headers of safetensors.
    ("F12-7-bytes", WEIGHTS, bytes(7), WEIGHTS),
    ("F12-header-of-0", WEIGHTS, bytes(8), WEIGHTS),
    ("F12-header-of-2-63", WEIGHTS, u64(2**63) + b"{}", WEIGHTS),
    ("F12-header-is-no-object", WEIGHTS, safetensors(start=b"["), WEIGHTS),
    ("F12-name-twice", WEIGHTS, u64(2 * len(_TENSOR) + 3) + b"{" + _TENSOR
     + b"," + _TENSOR + b"}" + bytes(8), "tensor 't'"),
    ("F12-shape-wraps", WEIGHTS, safetensors(shape=(2**32, 2**32)),
     "tensor 't'"),
    ("F12-unknown-dtype", WEIGHTS, safetensors(dtype="F33"), "tensor 't'"),
    ("F12-a-byte-short", WEIGHTS, safetensors(data=7), "tensor 't'"),
    ("F12-range-of-another-size", WEIGHTS, safetensors(end=4, data=4),
     "tensor 't'"),
    # F14: shards.
    ("F14-shard-in-another-folder", INDEX, index(t="../x.safetensors"),
     "'t'"),
    ("F14-shard-by-its-path", INDEX, index(t="/x.safetensors"), "'t'"),
    ("F14-shard-with-a-nul", INDEX, index(t="x\0.safetensors"), "'t'"),
    ("F14-shard-of-a-long-name", INDEX, index(t="x" * 4096), "'t'"),
    ("F14-shard-that-is-missing", INDEX, index(t="x.safetensors"),
     "'x.safetensors'"),
    # F15: what config.json claims.
    ("F15-config-of-nothing", "config.json", b"{}", "config.json"),
    ("F15-tokenizer-of-nothing", "tokenizer.json", b"{}", "tokenizer.json"),
)


# Their errors quote a path: clients are not told.
NAME_OTHER_PLACES = ("F14-shard-in-another-folder", "F14-shard-by-its-path")


def write_all(folder):
    """[(name, path, words)] of all files and folders above."""
    written = []
    for name, data, words in GGUF:
        path = os.path.join(folder, name + ".gguf")
        with open(path, "wb") as file:
            file.write(data)
        written.append((name, path, words))
    for name, spoiled, data, words in FOLDERS:
        path = os.path.join(folder, name)
        os.mkdir(path)
        for good in ("config.json", "tokenizer.json"):
            if good != spoiled:
                os.symlink(os.path.join(served.MAILROOM, good),
                           os.path.join(path, good))
        with open(os.path.join(path, spoiled), "wb") as file:
            file.write(data)
        written.append((name, path, words))
    return written
