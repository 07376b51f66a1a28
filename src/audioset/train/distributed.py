"""One training in several processes, as torchrun starts them: each has a part of every batch, and gradients add up."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

from audioset.arrays import FloatArray, Int64Array
from audioset.errors import EngineError


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as one of them sees them."""

    rank: int  # 0 for the first, which alone writes
    n_processes: int
    device: torch.device  # where it computes

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def part(self, positions: Int64Array) -> Int64Array:
        """What this process does of a batch that all of them know."""
        return positions[self.rank :: self.n_processes]

    def add_up(self, tensors: Iterable[torch.Tensor]) -> None:
        """Put the sum over all processes into each tensor, in one message."""
        listed = list(tensors)
        if self.n_processes == 1 or not listed:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in listed])
        distributed.all_reduce(flat)
        for tensor, total in zip(listed, flat.split([tensor.numel() for tensor in listed]), strict=True):
            tensor.detach().copy_(total.view_as(tensor))

    def mean(self, tensors: Iterable[torch.Tensor]) -> None:
        """Put the mean over all processes into each tensor."""
        listed = list(tensors)
        if self.n_processes > 1 and listed:
            self.add_up(listed)
            torch._foreach_div_(listed, float(self.n_processes))

    def total(self, scores: torch.Tensor) -> FloatArray:
        """The sum over all processes, each of which has put its own clips' scores among zeros."""
        scores = scores.to(self.device)
        self.add_up([scores])
        return scores.cpu().numpy()

    def agree(self, value: float) -> float:
        """The first process's value: processors may differ in the last bit, and decisions must not."""
        if self.n_processes == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, 0)
        return float(shared)

    def is_any(self, is_asked: bool) -> bool:
        """Whether it is true in any process."""
        if self.n_processes == 1:
            return is_asked
        asked = torch.tensor([float(is_asked)], device=self.device)
        self.add_up([asked])
        return bool(asked > 0)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.n_processes > 1:
            distributed.barrier()


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Join the processes that torchrun started, or be the only one; EngineError for a GPU that is not there."""
    rank, n_processes, local_rank = (
        int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    chosen = _device(device, local_rank)
    if n_processes == 1:
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(rank, n_processes, chosen)
    finally:
        distributed.destroy_process_group()


def _device(name: str, local_rank: int) -> torch.device:
    is_there = torch.cuda.is_available()
    if name == "cuda" and not is_there:
        raise EngineError("device is 'cuda', and PyTorch finds no GPU here. Next step: device = 'cpu'")
    return torch.device("cuda", local_rank) if is_there and name != "cpu" else torch.device("cpu")
