"""Forged receipts, the other half: voting sets, final blocks, the file, private fields."""

from __future__ import annotations

import json
from typing import Any

from msgspec import structs

from audit.receipt_file import FinalProof, NamedKey, compact, pack, pack_path, unpack
from audit.revealed import revealed_to_json
from ledger.block import block_id_of
from ledger.codec import encode
from ledger.commitment import make_private_part
from ledger.state import state_path
from tests.audit.receipt_forger import (
    FORGER,
    FOUNDERS,
    SECOND,
    STRANGERS,
    THIRD,
    Kit,
    forgery,
    high_s,
    make_world,
    resigned,
    roots_of,
    set_of,
    with_part,
)
from tests.audit.receipt_world import SUBMIT_KEY, World, digest, key_of, private_part, reveal

# -- the chain and its voting sets -------------------------------------------------------------------------------------


@forgery("chain_id")
def receipt_of_another_chain(_kit: Kit) -> str:
    """A good receipt of a chain with the same members."""
    return World(FOUNDERS, chain_name="another", blocks=200, entries=30).receipt().decode()


@forgery("tx_id")
def receipt_of_another_chain_relabelled(kit: Kit) -> dict[str, Any]:
    """The same, with the id of this chain written over it."""
    other = json.loads(World(FOUNDERS, chain_name="another", blocks=200, entries=30).receipt())
    return {**other, "chain_id": kit.document["chain_id"]}


@forgery("set_changes[0].siblings")
def set_change_skipped(kit: Kit) -> dict[str, Any]:
    """The first change of the voting set is left out."""
    return {**kit.document, "set_changes": kit.document["set_changes"][1:]}


@forgery("final.siblings")
def last_set_change_skipped(kit: Kit) -> dict[str, Any]:
    """The last change of the voting set is left out."""
    return {**kit.document, "set_changes": kit.document["set_changes"][:-1]}


@forgery("final.siblings")
def no_set_changes(kit: Kit) -> dict[str, Any]:
    """As if the founders voted still."""
    return {**kit.document, "set_changes": []}


@forgery("set_changes[0].siblings")
def set_changes_reordered(kit: Kit) -> dict[str, Any]:
    """The changes come in another order."""
    return {**kit.document, "set_changes": kit.document["set_changes"][::-1]}


@forgery("set_changes[1].siblings")
def set_change_repeated(kit: Kit) -> dict[str, Any]:
    """The first change comes twice."""
    first = kit.document["set_changes"][0]
    return {**kit.document, "set_changes": [first, *kit.document["set_changes"]]}


@forgery("set_changes[1].certificate.parts.signatures")
def set_change_by_keys_of_the_past(kit: Kit) -> dict[str, Any]:
    """The founders, voted out since, sign a change to a set of the forger's own."""
    proof = kit.world.proof(300, set_of(1, SECOND), STRANGERS)
    certificate = kit.world.certify(proof.header, [set_of(1, FOUNDERS), set_of(2, STRANGERS)])
    return kit.with_change(1, resigned(compact(proof), certificate))


@forgery("set_changes[0].siblings")
def set_to_come_exchanged(kit: Kit) -> dict[str, Any]:
    """The forger's producers in place of the set to come, with the true header."""
    change = kit.change(0)
    named = [NamedKey(name, key_of(name).public_key) for name in STRANGERS]
    assert change.pending is not None
    pending = structs.replace(change.pending, producers=named)
    return kit.with_change(0, structs.replace(change, pending=pending))


@forgery("set_changes[0].siblings")
def key_in_the_set_to_come_exchanged(kit: Kit) -> dict[str, Any]:
    """One producer of the set to come with a key of the forger's."""
    change = kit.change(0)
    assert change.pending is not None
    first, *others = change.pending.producers
    named = [structs.replace(first, public_key=FORGER.public_key), *others]
    return kit.with_change(0, structs.replace(change, pending=structs.replace(change.pending, producers=named)))


@forgery("set_changes[0].pending")
def set_change_of_nothing(kit: Kit) -> dict[str, Any]:
    """A final block without a change under way is given as the proof of one."""
    return kit.with_change(0, compact(kit.world.proof(90, kit.world.founders, None)))


@forgery("set_changes[0].certificate.parts")
def set_change_without_the_new_quorum(kit: Kit) -> dict[str, Any]:
    """A change on which the old set alone agreed."""
    proof = kit.world.proof(100, kit.world.founders, SECOND)
    certificate = kit.world.certify(proof.header, [kit.world.founders])
    return kit.with_change(0, resigned(compact(proof), certificate))


@forgery("set_changes[0].certificate.parts.signatures")
def set_change_without_the_old_quorum(kit: Kit) -> dict[str, Any]:
    """A change on which the set to come alone agreed: its signatures stand for those of the old one."""
    proof = kit.world.proof(100, kit.world.founders, THIRD)
    certificate = kit.world.certify(proof.header, [set_of(0, THIRD), set_of(1, THIRD)])
    return kit.with_change(0, resigned(compact(proof), certificate))


@forgery("set_changes[0].header.chain_id")
def set_change_of_another_chain(kit: Kit) -> dict[str, Any]:
    """A change of the voting set that the same members made on another chain."""
    other = World(FOUNDERS, chain_name="another", changes=(SECOND,))
    return kit.with_change(0, compact(other.proof(100, other.founders, SECOND)))


# -- the final block ---------------------------------------------------------------------------------------------------


@forgery("final.certificate.parts.signers")
def below_quorum(kit: Kit) -> dict[str, Any]:
    """Two of four signed, where three must."""
    return kit.with_final(kit.sign_final((set_of(2, THIRD), (0, 1))))


@forgery("final.certificate.parts.signers")
def more_than_a_quorum(kit: Kit) -> dict[str, Any]:
    """Four of four signed: true, and yet another spelling of what three say."""
    return kit.with_final(kit.sign_final((set_of(2, THIRD), (0, 1, 2, 3))))


@forgery("final.certificate.parts.signatures")
def one_signer_twice(kit: Kit) -> dict[str, Any]:
    """Two signed, and the second one's signature stands for the third as well."""
    signatures = kit.final.parts[0].signatures
    return kit.with_final(with_part(kit.final, signatures=[*signatures[:2], signatures[1]]))


@forgery("final.certificate.parts.signers")
def signature_missing(kit: Kit) -> dict[str, Any]:
    """Three bits, two signatures."""
    return kit.with_final(with_part(kit.final, signatures=kit.final.parts[0].signatures[:2]))


@forgery("final.certificate.parts.signatures")
def signatures_swapped(kit: Kit) -> dict[str, Any]:
    """Good signatures in another order than their signers."""
    return kit.with_final(with_part(kit.final, signatures=kit.final.parts[0].signatures[::-1]))


@forgery("final.certificate.parts.signers")
def signer_outside_the_set(kit: Kit) -> dict[str, Any]:
    """A fifth signer in a set of four."""
    return kit.with_final(with_part(kit.final, signers=bytes([0b10011])))


@forgery("final.certificate.parts.signers")
def bitmap_of_a_larger_set(kit: Kit) -> dict[str, Any]:
    """A bitmap of two bytes for a set of four."""
    return kit.with_final(with_part(kit.final, signers=kit.final.parts[0].signers + bytes(1)))


@forgery("final.certificate.parts.signatures")
def signers_of_the_old_set(kit: Kit) -> dict[str, Any]:
    """The final block is signed by the set before the last change."""
    return kit.with_final(kit.sign_final((set_of(2, SECOND), (0, 1, 2))))


@forgery("final.certificate.parts.signatures")
def signed_by_strangers(kit: Kit) -> dict[str, Any]:
    """The final block is signed by keys of the forger's."""
    return kit.with_final(kit.sign_final((set_of(2, STRANGERS), (0, 1, 2))))


@forgery("final.certificate.parts.signatures")
def one_stranger_in_the_quorum(kit: Kit) -> dict[str, Any]:
    """Two of the set signed, and one that is not in it."""
    return kit.with_final(kit.sign_final((set_of(2, (*THIRD[:2], STRANGERS[0], THIRD[3])), (0, 1, 2))))


@forgery("final.certificate.parts.signatures")
def vote_with_high_s(kit: Kit) -> dict[str, Any]:
    """A vote in its second spelling."""
    first, *others = kit.final.parts[0].signatures
    return kit.with_final(with_part(kit.final, signatures=[high_s(first), *others]))


@forgery("final.certificate.parts.signatures")
def votes_for_another_child(kit: Kit) -> dict[str, Any]:
    """Votes on the link to one child, given for another."""
    return kit.with_final(structs.replace(kit.final, t_id=digest("another child")))


@forgery("final.certificate.parts.signatures")
def votes_that_only_justify(kit: Kit) -> dict[str, Any]:
    """A quorum's votes on a link over two heights: the block is justified by them, not final."""
    header, third = kit.final.header, set_of(2, THIRD)
    link = (header.height, block_id_of(header), header.height + 2, digest("grandchild"))
    return kit.with_final(resigned(kit.final, kit.world.certify_link(link, [(third, (0, 1, 2))])))


@forgery("final.certificate.parts.signatures")
def votes_of_another_chain(kit: Kit) -> dict[str, Any]:
    """The same producers' votes on a chain with other rules."""
    other = World(FOUNDERS, chain_name="another")
    return kit.with_final(resigned(kit.final, other.certify(kit.final.header, [set_of(2, THIRD)])))


@forgery("final.certificate.parts.signatures")
def final_header_changed(kit: Kit) -> dict[str, Any]:
    """The final block, with other totals."""
    header = kit.final.header
    totals = structs.replace(header.totals, records=header.totals.records + 1)
    return kit.with_final(structs.replace(kit.final, header=structs.replace(header, totals=totals)))


@forgery("final.certificate.parts.signatures")
def state_of_the_forgers(kit: Kit) -> dict[str, Any]:
    """A call that failed, in a block of the forger's on a state of his: only the votes are of a true block."""
    world = make_world(in_final_block=True, record=structs.replace(kit.world.record, sip_code=486))
    document: dict[str, Any] = json.loads(world.receipt())
    made = unpack(document["final"], FinalProof, where="final")
    return {**document, "final": pack(structs.replace(made, t_id=kit.final.t_id, parts=kit.final.parts))}


@forgery("final.siblings")
def chain_of_the_forgers(kit: Kit) -> dict[str, Any]:
    """A whole chain by producers of the forger's, under the id of this one."""
    world = make_world(changes=())
    proof = world.proof(200, set_of(0, STRANGERS), None, **roots_of(kit.final.header))
    siblings = world.tree.set(state_path("voting"), encode(proof.voting)).prove(state_path("key", SUBMIT_KEY.key_id))
    document = kit.document
    document["key"]["path"] = pack_path(siblings.siblings)
    return {**document, "set_changes": [], "final": pack(compact(proof))}


@forgery("final.siblings")
def change_under_way_concealed(_kit: Kit) -> dict[str, Any]:
    """A change is under way in the final block, and only the current set signed: the change is left out."""
    document: dict[str, Any] = json.loads(make_world(pending=FOUNDERS).receipt())
    made = unpack(document["final"], FinalProof, where="final")
    return {**document, "final": pack(structs.replace(made, pending=None, parts=made.parts[:1]))}


@forgery("final.certificate.parts")
def quorum_of_the_set_to_come_missing(_kit: Kit) -> dict[str, Any]:
    """A change is under way in the final block, and only the current set signed."""
    document: dict[str, Any] = json.loads(make_world(pending=FOUNDERS).receipt())
    made = unpack(document["final"], FinalProof, where="final")
    return {**document, "final": pack(structs.replace(made, parts=made.parts[:1]))}


@forgery("final.certificate.parts")
def part_of_a_set_that_need_not_sign(kit: Kit) -> dict[str, Any]:
    """A second part where no change is under way."""
    third = set_of(2, THIRD)
    return kit.with_final(kit.sign_final((third, (0, 1, 2)), (third, (0, 1, 2))))


# -- the file ----------------------------------------------------------------------------------------------------------


@forgery("version")
def another_version(kit: Kit) -> dict[str, Any]:
    """A version that this verifier does not know."""
    return {**kit.document, "version": 4}


@forgery("note")
def a_field_more(kit: Kit) -> dict[str, Any]:
    """A field that the format does not have, for a person to read."""
    return {**kit.document, "note": "paid"}


@forgery("index")
def a_field_twice(kit: Kit) -> str:
    """A field given twice: programs differ in which of the two they take."""
    return kit.text.replace('"index":', '"index":0,\n"index":', 1)


@forgery("signature")
def a_field_missing(kit: Kit) -> dict[str, Any]:
    """No signature."""
    return {name: value for name, value in kit.document.items() if name != "signature"}


@forgery("index")
def a_fraction(kit: Kit) -> str:
    """A whole number written as a fraction."""
    return kit.text.replace(f'"index":{kit.world.index},', f'"index":{kit.world.index}.0,', 1)


@forgery("tx_id")
def hex_in_capitals(kit: Kit) -> dict[str, Any]:
    """The transaction's id in capitals: a second spelling."""
    return {**kit.document, "tx_id": kit.document["tx_id"].upper()}


@forgery("tx_path")
def base64_without_padding(kit: Kit) -> dict[str, Any]:
    """A path without the padding of its base64."""
    return {**kit.document, "tx_path": kit.document["tx_path"].rstrip("=")}


@forgery("void_bitmap")
def bits_under_the_padding(kit: Kit) -> dict[str, Any]:
    """Bits that decoding base64 drops."""
    return {**kit.document, "void_bitmap": kit.document["void_bitmap"].replace("AQ==", "AR==")}


# -- private fields ----------------------------------------------------------------------------------------------------


def shown(kit: Kit, *fields: dict[str, Any]) -> dict[str, Any]:
    """Return the receipt with these fields revealed."""
    return {**kit.document, "revealed": list(fields)}


@forgery("revealed[0]")
def another_caller(kit: Kit) -> dict[str, Any]:
    """Somebody else is said to have called."""
    return shown(kit, kit.document["revealed"][0] | {"value": "+4315550101"})


@forgery("revealed[0]")
def another_salt(kit: Kit) -> dict[str, Any]:
    """The right caller, with a salt that does not lead to the commitment."""
    return shown(kit, kit.document["revealed"][0] | {"salt": digest("another salt").hex()})


@forgery("revealed[0]")
def caller_called_callee(kit: Kit) -> dict[str, Any]:
    """The caller's number, as the callee's."""
    return shown(kit, kit.document["revealed"][0] | {"name": "callee"})


@forgery("revealed[0]")
def path_of_another_field(kit: Kit) -> dict[str, Any]:
    """The caller, under the path of the callee."""
    return shown(kit, kit.document["revealed"][0] | {"path": revealed_to_json(reveal("callee"))["path"]})


@forgery("revealed[0]")
def field_of_another_record(kit: Kit) -> dict[str, Any]:
    """A caller that is proven, of another call."""
    other = make_private_part({"caller": "+4315550101"}, [digest(f"other {number}") for number in range(7)])
    return shown(kit, revealed_to_json(reveal("caller", other)))


@forgery("revealed[1].name")
def field_shown_twice(kit: Kit) -> dict[str, Any]:
    """The same field twice."""
    return shown(kit, kit.document["revealed"][0], kit.document["revealed"][0])


@forgery("revealed[1].name")
def fields_out_of_order(kit: Kit) -> dict[str, Any]:
    """Fields in another order than the private part has."""
    return shown(kit, revealed_to_json(reveal("call_id")), kit.document["revealed"][0])


@forgery("revealed")
def nothing_shown(kit: Kit) -> dict[str, Any]:
    """The field for private fields, with none in it."""
    return shown(kit)


@forgery("revealed[0].value_hex")
def text_as_bytes(kit: Kit) -> dict[str, Any]:
    """A number in hex, where a person cannot read it."""
    field = kit.document["revealed"][0]
    value = private_part().fields[0].value.hex()
    return shown(kit, {"name": "caller", "value_hex": value, "salt": field["salt"], "path": field["path"]})


@forgery("revealed[0].note")
def word_beside_the_field(kit: Kit) -> dict[str, Any]:
    """A remark beside a private field."""
    return shown(kit, kit.document["revealed"][0] | {"note": "spoke for an hour"})


@forgery("personal_data")
def personal_data_unmarked(kit: Kit) -> dict[str, Any]:
    """A number is shown, and the file does not say that it holds personal data."""
    return {**kit.document, "personal_data": 0}


@forgery("personal_data")
def personal_data_without_any(kit: Kit) -> dict[str, Any]:
    """The file says that it holds personal data, and shows none."""
    return {name: value for name, value in kit.document.items() if name != "revealed"}
