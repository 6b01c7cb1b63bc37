"""Forged chains: variants that an audit must refuse, and a light client as far as it sees them."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace as with_fields

from consensus.votes import digest_of, link_of
from ledger.block import Certificate, CertificatePart, void_bitmap
from ledger.entries import PendingSet, Producer, VotingEntry
from ledger.genesis import chain_id_of
from ledger.transaction import Kind, Transaction
from tests.audit.forgery import STRANGER, Forgery, Unfit, variant

# Certificates of a voting set that changes. The first joint one is also what proves the change to a light client.


@variant("certificate.parts", "certificate.parts")
def joint_part_of_the_old_set_missing(f: Forgery) -> int:
    height = f.joint()
    f.put_parts(height, lambda c: c.parts[1:])
    return height


@variant("certificate.parts", "certificate.parts")
def joint_part_of_the_new_set_missing(f: Forgery) -> int:
    height = f.joint()
    f.put_parts(height, lambda c: c.parts[:1])
    return height


@variant("certificate.parts", "certificate.parts")
def joint_parts_in_the_other_order(f: Forgery) -> int:
    height = f.joint()
    f.put_parts(height, lambda c: c.parts[::-1])
    return height


@variant("certificate.parts", "certificate.parts")
def joint_part_of_the_old_set_twice(f: Forgery) -> int:
    height = f.joint()
    f.put_parts(height, lambda c: [c.parts[0], c.parts[0]])
    return height


@variant("certificate.parts.signers", "certificate.parts.signers")
def quorum_minus_one_of_the_new_set(f: Forgery) -> int:
    height = f.joint()
    new = f.set_of(1)
    f.put_parts(height, lambda c: [c.parts[0], f.part(link_of(c), new, signers=range(new.quorum - 1))])
    return height


@variant("certificate.parts.signatures", "certificate.parts.signatures")
def one_signature_in_the_place_of_two(f: Forgery) -> int:
    height = f.joint()

    def change(c: Certificate) -> list[CertificatePart]:
        first = c.parts[1].signatures[0]
        return [c.parts[0], with_fields(c.parts[1], signatures=[first] * len(c.parts[1].signatures))]

    f.put_parts(height, change)
    return height


@variant("certificate.parts.signers", "certificate.parts.signers")
def bitmap_beyond_the_set(f: Forgery) -> int:
    height = f.joint()
    new = f.set_of(1)

    def change(c: Certificate) -> list[CertificatePart]:
        signers = [*range(new.quorum - 1), len(new.producers) + 1]
        bitmap = void_bitmap(signers, 8 * len(c.parts[1].signers))
        return [c.parts[0], with_fields(c.parts[1], signers=bitmap)]

    if len(new.producers) % 8 in {0, 7}:
        raise Unfit("no room in the bitmap's last byte")
    f.put_parts(height, change)
    return height


@variant("certificate.parts.signers", "certificate.parts.signers")
def bitmap_of_another_size(f: Forgery) -> int:
    height = f.joint()

    def change(c: Certificate) -> list[CertificatePart]:
        return [c.parts[0], with_fields(c.parts[1], signers=c.parts[1].signers + b"\x00")]

    if len(f.set_of(1).producers) > 16:
        raise Unfit("the bitmap is as long as it can be")
    f.put_parts(height, change)
    return height


@variant("certificate.parts.signatures", "certificate.parts.signatures")
def old_producers_sign_for_the_new_set(f: Forgery) -> int:
    height = f.joint()
    old = f.set_of(0)
    if set(old.producers[: old.quorum]) == set(f.set_of(1).producers[: f.set_of(1).quorum]):
        raise Unfit("the same producers, in the same places")
    f.put_parts(height, lambda c: [c.parts[0], f.part(link_of(c), old, set_id=1)])
    return height


@variant("certificate.parts.signatures", "certificate.parts.signatures")
def strangers_sign_for_the_new_set(f: Forgery) -> int:
    height = f.joint()

    def change(c: Certificate) -> list[CertificatePart]:
        signature = STRANGER.sign(digest_of(chain_id_of(f.parts.genesis), link_of(c)))
        return [c.parts[0], with_fields(c.parts[1], signatures=[signature] * len(c.parts[1].signatures))]

    f.put_parts(height, change)
    return height


@variant("certificate.parts.signatures", "certificate.parts.signatures")
def votes_for_another_chain(f: Forgery) -> int:
    height = f.joint()
    new = f.set_of(1)

    def change(c: Certificate) -> list[CertificatePart]:
        digest = digest_of(b"\x77" * 32, link_of(c))
        signatures = [f.keys[p.key_id].sign(digest) for p in new.producers[: new.quorum]]
        return [c.parts[0], CertificatePart(1, void_bitmap(list(range(new.quorum)), len(new.producers)), signatures)]

    f.put_parts(height, change)
    return height


@variant("certificate.parts")
def old_set_alone_after_the_change(f: Forgery) -> int:
    height = f.after()
    f.put_parts(height, lambda c: [f.part(link_of(c), f.set_of(0))])
    return height


@variant("certificate.parts")
def old_set_as_well_after_the_change(f: Forgery) -> int:
    height = f.after()
    f.put_parts(height, lambda c: [f.part(link_of(c), f.set_of(0)), c.parts[0]])
    return height


@variant("certificate.parts")
def new_set_alone_before_the_change(f: Forgery) -> int:
    height = f.before()
    f.put_parts(height, lambda c: [f.part(link_of(c), f.set_of(1))])
    return height


@variant("certificate.parts")
def stale_number_of_the_set(f: Forgery) -> int:
    height = f.after()
    f.put_parts(height, lambda c: [with_fields(c.parts[0], set_id=0)])
    return height


@variant("certificate.parts")
def number_of_a_set_to_come(f: Forgery) -> int:
    height = f.after()
    f.put_parts(height, lambda c: [f.part(link_of(c), f.set_of(2))])
    return height


@variant("state_root")
def certificate_left_out_so_that_the_change_waits(f: Forgery) -> int:
    height = f.completed()
    f.put_certificate(height, None)
    return height


# States: what a change is, and when.


def _without_change(f: Forgery, height: int) -> VotingEntry:
    return with_fields(f.states[height].voting, pending=None)


@variant("state_root", "history_root")
def change_skipped(f: Forgery) -> int:
    height = f.begun()
    f.put_state(height, {("voting",): _without_change(f, height)})
    return height


@variant("state_root", "certificate")
def change_to_another_set(f: Forgery) -> int:
    height = f.begun()
    stranger = Producer("mallory", STRANGER.key_id, STRANGER.public_key)
    pending = PendingSet(height, [stranger])
    f.put_state(height, {("voting",): with_fields(f.states[height].voting, pending=pending)})
    return height


@variant("state_root", "certificate")
def producers_of_the_new_set_in_another_order(f: Forgery) -> int:
    height = f.begun()
    voting = f.states[height].voting
    assert voting.pending is not None
    pending = with_fields(voting.pending, producers=voting.pending.producers[::-1])
    f.put_state(height, {("voting",): with_fields(voting, pending=pending)})
    return height


@variant("state_root", "history_root")
def change_completed_at_once(f: Forgery) -> int:
    height = f.begun()
    voting = f.states[height].voting
    assert voting.pending is not None
    f.put_state(height, {("voting",): VotingEntry(1, voting.pending.producers, None)})
    return height


@variant("state_root")
def change_completed_when_merely_justified(f: Forgery) -> int:
    """The block that begins it is certified, and no child of it is."""
    begun = f.begun()
    height = f.carrier(lambda c: c.t_height == begun)
    if height >= f.completed():
        raise Unfit("it is final at once")
    f.put_state(height, {("voting",): f.states[f.completed()].voting})
    return height


@variant("state_root")
def change_never_completed(f: Forgery) -> int:
    height = f.completed()
    f.put_state(height, {("voting",): f.states[height - 1].voting})
    return height


@variant("state_root")
def accused_never_struck(f: Forgery) -> int:
    for height, state in enumerate(f.states):
        for name in state.struck:
            f.put_state(height, {("struck", name): None})
            return height
    raise Unfit("nobody was struck")


# Producers.


@variant("producer_key_id")
def sealed_by_a_producer_that_was_struck(f: Forgery) -> int:
    for height, state in enumerate(f.states):
        out = [name for name, entry in state.struck.items() if entry.is_out]
        for key_id, entry in state.keys.items():
            if out and entry.member_id in out and key_id in f.keys and height < f.last:
                f.reseal(height + 1, key=f.keys[key_id], producer_key_id=key_id)
                return height + 1
    raise Unfit("nobody was struck")


@variant("producer_key_id")
def sealed_with_the_key_before_the_last(f: Forgery) -> int:
    for height in range(1, f.last + 1):
        seat = next(s for s in f.states[height].epoch.seats if s.key_id == f.parts.header(height).producer_key_id)
        for old in (p for state in f.states[:height] for p in state.voting.producers):
            if old.member_id == seat.member_id and old.key_id != seat.key_id:
                f.reseal(height, key=f.keys[old.key_id], producer_key_id=old.key_id)
                return height
    raise Unfit("nobody rotated a key")


@variant("producer_key_id")
def sealed_by_a_member_without_a_seat(f: Forgery) -> int:
    for height in range(1, f.last + 1):
        seats = {seat.key_id for seat in f.states[height].epoch.seats}
        for key_id, key in f.keys.items():
            if key_id not in seats and key_id in f.states[height].keys:
                f.reseal(height, key=key, producer_key_id=key_id)
                return height
    raise Unfit("all have a seat")


@variant("signature")
def sealed_with_a_strangers_key(f: Forgery) -> int:
    height = f.completed()
    f.reseal(height, key=STRANGER)
    return height


# Headers and their order.


@variant("height", "history_root")
def headers_in_another_order(f: Forgery) -> int:
    height = f.completed()
    blocks = f.parts.blocks
    blocks[height - 1], blocks[height] = blocks[height], blocks[height - 1]
    return height


@variant("totals.talk_ms", "history_root")
def header_sealed_anew_with_other_totals(f: Forgery) -> int:
    height = f.last - 1
    totals = f.parts.header(height).totals
    f.reseal(height, totals=with_fields(totals, talk_ms=totals.talk_ms + 1))
    return height


@variant("slot")
def slot_before_the_parents(f: Forgery) -> int:
    height = f.completed()
    f.reseal(height, slot=f.parts.header(height - 1).slot)
    return height


@variant("chain_id", "chain_id")
def last_header_of_another_chain(f: Forgery) -> int:
    f.reseal(f.last, chain_id=b"\x77" * 32)
    return f.last


@variant("history_root", "certificate")
def other_history(f: Forgery) -> int:
    f.reseal(f.last, history_root=b"\x77" * 32)
    return f.last


@variant("parent_id", "certificate")
def last_header_on_another_parent(f: Forgery) -> int:
    f.reseal(f.last, parent_id=b"\x77" * 32)
    return f.last


@variant("state_root", "field voting")
def other_voters_at_the_end(f: Forgery) -> int:
    voting = f.states[f.last].voting
    f.put_state(f.last, {("voting",): with_fields(voting, producers=voting.producers[::-1])})
    return f.last


# The end: what makes the last block final.


@variant("final_certificate.parts.signers", "certificate.parts.signers")
def last_block_by_a_quorum_minus_one(f: Forgery) -> int:
    last = f.set_of(f.states[f.last].voting.set_id)
    f.put_finality(lambda c: [f.part(link_of(c), last, signers=range(last.quorum - 1))])
    return f.last


@variant("final_certificate.parts", "certificate.parts")
def last_block_by_the_set_before(f: Forgery) -> int:
    before = f.set_of(f.states[f.last].voting.set_id - 1)
    f.put_finality(lambda c: [f.part(link_of(c), before)])
    return f.last


@variant("final_certificate.parts.signatures", "certificate.parts.signatures")
def last_block_by_an_old_set_under_the_new_number(f: Forgery) -> int:
    now = f.set_of(f.states[f.last].voting.set_id)
    for number in range(now.set_id):
        old = f.set_of(number)
        if len(old.producers) == len(now.producers) and old.producers[: old.quorum] != now.producers[: now.quorum]:
            f.put_finality(lambda c, old=old: [f.part(link_of(c), old, set_id=now.set_id)])
            return f.last
    raise Unfit("no set of the same size")


@variant("final_certificate.parts", "certificate.parts")
def chain_cut_inside_a_change_with_the_old_sets_word_alone(f: Forgery) -> int:
    height = f.begun()
    certificate = f.parts.sealed(f.carrier(lambda c: c.s_height == height)).certificate
    assert certificate is not None
    f.cut(height, certificate=with_fields(certificate, parts=certificate.parts[:1]))
    return height


@variant("final_certificate.t_height", "certificate")
def chain_cut_where_the_end_is_merely_justified(f: Forgery) -> int:
    height = f.begun() - 1
    certificate = f.parts.sealed(f.carrier(lambda c: c.t_height == height)).certificate
    assert certificate is not None
    f.cut(height, certificate=with_fields(certificate, s_height=height, s_id=certificate.t_id))
    return height


# Transactions that govern.


def _put_payload(f: Forgery, kind: Kind, change: Callable[[Transaction], Transaction]) -> int:
    for height in range(1, f.last + 1):
        for index in range(len(f.parts.body(height))):
            transaction = f.parts.transaction(height, index)
            if transaction.envelope.kind is kind:
                f.parts.put_transaction(height, change(transaction), index)
                return height
    raise Unfit(f"no {kind.name}")


@variant("transactions[?].envelope.items_root")
def evidence_against_somebody_else(f: Forgery) -> int:
    return _put_payload(
        f, Kind.EVIDENCE, lambda t: with_fields(t, items=[t.items[0].replace(b"\xaa" * 32, b"\xab" * 32)])
    )


@variant("transactions[?].signature")
def delegation_signed_by_nobody(f: Forgery) -> int:
    return _put_payload(f, Kind.DELEGATE, lambda t: with_fields(t, signature=STRANGER.sign(bytes(32))))


@variant("transactions[?].signature")
def rotation_signed_by_nobody(f: Forgery) -> int:
    return _put_payload(f, Kind.KEY, lambda t: with_fields(t, signature=STRANGER.sign(bytes(32))))
