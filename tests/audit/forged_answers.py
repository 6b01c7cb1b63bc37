"""Forged answers: what is told to a light client of a good chain, and what it must refuse."""

from __future__ import annotations

from msgspec.structs import replace as with_fields

from consensus.setchange import VotingProof
from ledger.block import SealedHeader
from tests.audit.forgery import ForgedSource, Forgery, variant


def _changed(proof: VotingProof, **fields: object) -> VotingProof:
    return with_fields(proof, **fields)


@variant("", "voting")
def set_change_left_out(f: Forgery) -> None:
    f.answers["set_changes"] = lambda changes: changes[1:]


@variant("", "without proof")
def set_changes_withheld(f: Forgery) -> None:
    f.answers["set_changes"] = lambda _changes: []


@variant("", "voting")
def set_changes_in_another_order(f: Forgery) -> None:
    f.set_of(2)
    f.answers["set_changes"] = lambda changes: changes[::-1]


@variant("", "voting")
def set_change_twice(f: Forgery) -> None:
    f.set_of(2)
    f.answers["set_changes"] = lambda changes: [changes[0], *changes]


@variant("", "voting.pending")
def block_without_a_change_shown_as_one(f: Forgery) -> None:
    height = f.begun() - 1
    source = ForgedSource(f)
    certificate = f.parts.sealed(f.carrier(lambda c: c.s_height == height)).certificate
    assert certificate is not None
    f.answers["set_changes"] = lambda changes: [source._proof(height, certificate), *changes]


@variant("", "siblings")
def voting_entry_with_swapped_producers(f: Forgery) -> None:
    def swap(changes: list[VotingProof]) -> list[VotingProof]:
        pending = changes[0].voting.pending
        assert pending is not None
        other = with_fields(pending, producers=pending.producers[::-1])
        return [_changed(changes[0], voting=with_fields(changes[0].voting, pending=other)), *changes[1:]]

    f.answers["set_changes"] = swap


@variant("", "siblings")
def voting_entry_without_its_change(f: Forgery) -> None:
    def hide(changes: list[VotingProof]) -> list[VotingProof]:
        return [_changed(changes[0], voting=with_fields(changes[0].voting, pending=None)), *changes[1:]]

    f.answers["set_changes"] = hide


@variant("", "siblings")
def wrong_siblings(f: Forgery) -> None:
    f.answers["final"] = lambda proof: _changed(proof, siblings=[b"\x77" * 32, *proof.siblings[1:]])


@variant("", "siblings")
def siblings_cut(f: Forgery) -> None:
    f.answers["final"] = lambda proof: _changed(proof, siblings=proof.siblings[:-1])


@variant("", "certificate")
def certificate_of_another_block(f: Forgery) -> None:
    other = f.parts.sealed(f.last).certificate
    assert other is not None
    f.answers["final"] = lambda proof: _changed(proof, certificate=other)


@variant("", "siblings")
def forged_state_root(f: Forgery) -> None:
    f.answers["final"] = lambda proof: _changed(proof, header=with_fields(proof.header, state_root=b"\x77" * 32))


@variant("", "certificate")
def final_header_with_another_slot(f: Forgery) -> None:
    f.answers["final"] = lambda proof: _changed(proof, header=with_fields(proof.header, slot=proof.header.slot + 1))


@variant("", "history_root")
def path_of_another_block(f: Forgery) -> None:
    f.answers["history"] = lambda path: [b"\x77" * 32, *path[1:]]


@variant("", "history_root")
def path_cut(f: Forgery) -> None:
    f.answers["history"] = lambda path: path[:-1]


@variant("", "field parent_id")
def header_in_between_changed(f: Forgery) -> None:
    def change(page: list[SealedHeader]) -> list[SealedHeader]:
        totals = with_fields(page[1].header.totals, records=page[1].header.totals.records + 1)
        return [page[0], with_fields(page[1], header=with_fields(page[1].header, totals=totals)), *page[2:]]

    f.answers["headers"] = change


@variant("", "field height")
def header_in_between_missing(f: Forgery) -> None:
    f.answers["headers"] = lambda page: [page[0], *page[2:]]


@variant("", "field height")
def headers_in_between_swapped(f: Forgery) -> None:
    f.answers["headers"] = lambda page: [page[1], page[0], *page[2:]]


@variant("", "field qc_hash")
def certificate_beside_a_header_changed(f: Forgery) -> None:
    f.answers["headers"] = lambda page: [*page[:-1], with_fields(page[-1], certificate=None)]


@variant("", "headers asked for")
def no_headers(f: Forgery) -> None:
    f.answers["headers"] = lambda _page: []


@variant("", "headers asked for")
def more_headers_than_asked_for(f: Forgery) -> None:
    f.answers["headers"] = lambda page: page * 200
