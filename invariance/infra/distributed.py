"""Several processes that work on one task, as torchrun starts them."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from ctinv.adapters.errors import CtinvError
from torch import Tensor

__all__ = ["World", "joined", "world"]

_PATIENCE = datetime.timedelta(hours=12)  # one process may fit an autoencoder while others wait
_TEXT = 4096


@dataclass(frozen=True)
class World:
    """This process among all that work together; by default it is alone.

    Arguments:
        rank: Its number; process 0 alone writes results.
        size: How many there are.
        local_rank: Its number on this machine.
        local_size: How many there are on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """A device of this process's own: ``cuda`` becomes one GPU per process of a machine.

        Example:
            >>> World(1, 2, 1, 2).device("cuda"), World().device("cuda"), World(1, 2, 1, 2).device("cpu")
            ('cuda:1', 'cuda', 'cpu')
        """
        own = not self.alone and name.partition(":")[0] == "cuda"
        return f"cuda:{self.local_rank}" if own else name

    def wait(self) -> None:
        """Until every process is here."""
        if not self.alone:
            # A sum of nothing: unlike a barrier, it needs no device to be named.
            dist.all_reduce(torch.zeros(1))

    @contextmanager
    def first(self) -> Iterator[None]:
        """The first process of each machine does the body, then the others find what it left."""
        if self.local_rank:
            self.wait()
        yield
        if not self.local_rank:
            self.wait()

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes."""
        if self.alone:
            return value
        value = value.detach().clone()
        dist.all_reduce(value)
        return value / self.size

    def all_have(self, here: bool) -> bool:
        """Whether it was found by every process."""
        return here if self.alone else float(self.mean(torch.tensor(float(here)))) > 1 - 0.5 / self.size

    def shared(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of process 0."""
        if not self.alone:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def shared_bytes(self, raw: bytes) -> bytes:
        """Bytes as process 0 has them."""
        if self.alone:
            return raw
        length = torch.tensor([len(raw)])
        dist.broadcast(length, 0)
        data = torch.empty(int(length), dtype=torch.uint8)
        if raw and self.leads:
            data = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
        if len(data):
            dist.broadcast(data, 0)
        return bytes(data.numpy())

    def machine_text(self, text: str) -> str:
        """A short text as the first process of this machine gave it."""
        if self.alone:
            return text
        raw = text.encode()
        sent = torch.zeros(_TEXT, dtype=torch.uint8)
        sent[: len(raw)] = torch.tensor(list(raw), dtype=torch.uint8)
        received = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(received, sent)
        return bytes(received[self.rank - self.local_rank].tolist()).rstrip(b"\0").decode()


def world() -> World:
    """This process among those of torch.distributed; alone where that is not in use."""
    if not (dist.is_available() and dist.is_initialized()):
        return World()
    size, rank = dist.get_world_size(), dist.get_rank()
    local = int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", size))
    return World(rank, size, *local)


def _size() -> int:
    """How many processes torchrun has started; 1 where it has not."""
    told = os.environ.get("WORLD_SIZE", "1")
    try:
        return int(told)
    except ValueError:
        raise CtinvError(f"WORLD_SIZE is {told!r}, which is no number; unset it, or use torchrun") from None


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that torchrun started together; alone where it started none.

    Raises:
        CtinvError: The processes cannot reach one another.
    """
    if _size() < 2 or dist.is_initialized():
        yield world()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise CtinvError(
            f"the processes do not find each other ({error}); start them with torchrun --nproc-per-node N"
        ) from error
    try:
        yield world()
    finally:
        dist.destroy_process_group()
