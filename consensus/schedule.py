"""Whose turn it is in each slot: a shuffle of the producers for each epoch.

Source: docs/consensus.md, "Slots".
"""

from __future__ import annotations

from dataclasses import dataclass

from ledger.crypto import hash_of
from ledger.entries import Producer
from ledger.errors import LedgerError


@dataclass(frozen=True, slots=True)
class Schedule:
    """The order of one epoch.

    Attributes:
        epoch: ``slot // epoch_slots``.
        seed: id of the last block that was final, by the branch's own certificates, when the epoch began.
        order: the producers; slot ``first_slot + i`` belongs to ``order[i % n]``.
    """

    epoch: int
    epoch_slots: int
    seed: bytes
    order: tuple[Producer, ...]

    @property
    def first_slot(self) -> int:
        """Return the first slot of the epoch."""
        return self.epoch * self.epoch_slots


def compute_schedule(producers: tuple[Producer, ...], epoch: int, epoch_slots: int, seed: bytes) -> Schedule:
    """Return the schedule of ``epoch``: Fisher-Yates, each choice drawn from a hash of seed, epoch and step."""
    order = list(producers)
    for i in range(len(order) - 1, 0, -1):
        j = int.from_bytes(hash_of("schedule", (seed, epoch, i))) % (i + 1)
        order[i], order[j] = order[j], order[i]
    return Schedule(epoch, epoch_slots, seed, tuple(order))


def producer_at(schedule: Schedule, slot: int) -> Producer:
    """Return the producer that may seal a block in ``slot``.

    Raises LedgerError for a slot outside the schedule's epoch.
    """
    if slot // schedule.epoch_slots != schedule.epoch:
        raise LedgerError("slot outside the epoch", where="slot", expected=f"epoch {schedule.epoch}", actual=slot)
    return schedule.order[(slot - schedule.first_slot) % len(schedule.order)]
