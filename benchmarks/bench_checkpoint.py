"""A full-size TensorFlow checkpoint: time to open it, to convert it to a model folder, and peak memory.

    python benchmarks/bench_checkpoint.py

Writes a version 1 checkpoint of VGGish's eighteen tensors (289 MB of random float32) into a temporary folder,
laid out as TensorFlow's own writer does, and converts it in a fresh process. The file is then in the page cache.
Memory is the peak resident size of that whole process, interpreter and imports included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import google_crc32c
import numpy as np
from report import print_bound

from audioset.networks.shapes import trace_shapes
from audioset.networks.vggish import vggish
from audioset.weights.model_folder import ModelCard, write_model_folder
from audioset.weights.tf_checkpoint import open_tf_checkpoint, read_tf_checkpoint

N_RUNS = 5
BOUND_OPEN_S = 1.5
BOUND_RATIO = 1.3

SHAPES, _ = trace_shapes(vggish, (96, 64), {})

BLOCK_BYTES = 1 << 18  # a block ends once it has more
MAGIC = 0xDB4775248B80FB57


def varint(number: int) -> bytes:
    digits = []
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*digits, number))


def field(number: int, value: int | bytes) -> bytes:
    """A field of a protobuf message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def description(name: str, shape: tuple[int, ...]) -> bytes:
    """A tensor in the list of tensors: float32, one slice."""
    sizes = b"".join(field(2, field(1, n)) for n in shape)
    return field(1, name.encode()) + field(2, sizes) + field(3, 1) + field(4, field(1, b"") * len(shape))


def entries(weights: Mapping[str, np.ndarray]) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the table: the list of tensors, then the tensors, both by name."""
    names = sorted(weights)
    yield b"", field(1, b"".join(field(1, description(name, weights[name].shape)) for name in names))
    for name in names:
        rank = weights[name].ndim
        values = field(5, weights[name].tobytes())
        key = b"\0" + name.encode() + b"\0\1\1" + bytes((rank,)) + b"\x80\x7f" * rank
        yield key, field(2, field(1, name.encode()) + field(2, field(1, b"") * rank) + field(3, values))


def write_checkpoint(path: Path, weights: Mapping[str, np.ndarray]) -> None:
    """A version 1 checkpoint, as TensorFlow's own writer lays it out."""
    index, block = b"", b""
    with path.open("wb") as file:

        def write_block(data: bytes) -> bytes:
            data += b"\0\0\0\0\1\0\0\0"  # one restart, at 0
            handle = varint(file.tell()) + varint(len(data))
            checksum = google_crc32c.value(data + b"\0")
            masked = ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
            file.write(data + b"\0" + masked.to_bytes(4, "little"))
            return handle

        for key, value in entries(weights):
            block += b"\0" + varint(len(key)) + varint(len(value)) + key + value
            if len(block) > BLOCK_BYTES:
                handle = write_block(block)
                index += b"\0" + varint(len(key)) + varint(len(handle)) + key + handle
                block = b""
        if block:
            handle = write_block(block)
            index += b"\0\1" + varint(len(handle)) + b"\1" + handle
        footer = write_block(b"") + write_block(index)
        file.write(footer.ljust(40, b"\0") + MAGIC.to_bytes(8, "little"))


def peak_bytes() -> int:
    """Peak resident size of this process."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def measure(path: Path) -> None:
    """Open and convert a checkpoint in this process and print what it took."""
    idle = peak_bytes()
    start = time.perf_counter()
    n_variables = len(open_tf_checkpoint(path).variables)
    open_s = time.perf_counter() - start
    start = time.perf_counter()
    card = ModelCard("vggish", {}, "vggish", "", "none: random numbers", {})
    write_model_folder(path.with_suffix(""), card, read_tf_checkpoint(path, SHAPES))
    convert_s = time.perf_counter() - start
    if n_variables != len(SHAPES):
        sys.exit("the checkpoint was not read whole")
    print(json.dumps({"open_s": open_s, "convert_s": convert_s, "idle": idle, "peak": peak_bytes()}))


def main() -> None:
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.ckpt"
        rng = np.random.default_rng(0)
        write_checkpoint(path, {name: rng.random(shape, np.float32) for name, shape in SHAPES.items()})
        n_bytes = path.stat().st_size
        command = [sys.executable, __file__, str(path)]
        runs = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(N_RUNS)]
    worst = {key: max(run[key] for run in runs) for key in runs[0]}
    print(f"a version 1 checkpoint of {n_bytes / 1e6:.1f} MB, {len(SHAPES)} tensors, worst of {N_RUNS} processes")
    print_bound("open", worst["open_s"], at_most=BOUND_OPEN_S, unit="s")
    print_bound("peak of the process / size of the file", worst["peak"] / n_bytes, at_most=BOUND_RATIO)
    net_ratio = (worst["peak"] - worst["idle"]) / n_bytes
    print(f"  without the {worst['idle'] / 1e6:.0f} MB of an idle process: {net_ratio:.2f}")
    print(f"  read, check and convert: {worst['convert_s']:.2f} s, {n_bytes / 1e6 / worst['convert_s']:,.0f} MB/s")


if __name__ == "__main__":
    main()
