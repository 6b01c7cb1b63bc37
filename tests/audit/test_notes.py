"""Signed notes: those of the specification, our own, and those that somebody changed."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from audit.light import LightClient
from audit.lognote import finality_line, finality_of, make_note, origin_of, tree_head_of
from audit.notes import (
    COSIGNATURE,
    ED25519,
    SIGNATURES_MAX,
    LogKey,
    Note,
    NoteKey,
    NoteSignature,
    TreeHead,
    parse_note,
    parse_note_key,
    parse_tree_head,
)
from audit.voting import check_voting, founding_set
from consensus.setchange import VotingProof
from ledger.errors import BadSignature, ConfigError, EncodingError
from ledger.genesis import chain_id_of
from tests.audit.chains import Cluster, make_genesis, make_raw
from tests.audit.light_kit import PeerSource

EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = """This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
"""
"""Key and note of the specification of signed notes."""
CHECKPOINT = (
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+"
    "zyWE+xeMcTOAYQ8=\n"
    "— witness.example/w1 I7rEps0pvK2UqkS2gSpVUDhrhVtQV9lgF6pRrWAvjJHjyWpW7VcE3SiOlVlbQNt64vWhO+DlkL0+UfzuOBMh9ChdMkP1"
    "vi/lCAsmlw==\n"
)
"""A checkpoint of the specifications, with a line in the form of a cosignature."""

WITNESSED_KEYS = (
    "ledgerd/e6278d0de10d63fff6fc7555ada29f89e679b1c3c0cea203d47045e0d8409de2+e8b771d0+AY2Cj6ooZsxqxFmk5CdfhcYC0sht0gyoFoKGx+P5x9F1",
    "witness.example/lite+18e3f560+BEy1JJlSWlKGibT2JLGyU5M9pqQwFDnmc0N5+b16UtkT",
)
WITNESSED = (
    "ledgerd/e6278d0de10d63fff6fc7555ada29f89e679b1c3c0cea203d47045e0d8409de2\n"
    "419\n"
    "EwYN82KxxKnsZz2O4z6JRqgoO9i+U/ki2VY5nx/0Nfk=\n"
    "\n"
    "— ledgerd/e6278d0de10d63fff6fc7555ada29f89e679b1c3c0cea203d47045e0d8409de2 6Ldx0EKZwYrgJ+ykOc4FtxW1H"
    "6FBF1HuvC9qlBK5aTrKlT5EJl2slkv6fr/8K7wupFkpy3MtsHRNdXd7HodOLdDfNAY=\n"
    "— witness.example/lite GOP1YAAAAABrAeuj3CHNBcEucf04ywbmf7o6qDKxQ5E5Gw8Whx9ntm2HNdRjmvo+pMTAdwaF+/WJT"
    "HyJGkurlrh7+RkSBhQ2RzFJDg==\n"
)
"""A note of a chain of the tests, cosigned by litewitness 0.9.0 (filippo.io/torchwood)."""

NAME = "witness.example/w1"
TIME_S = 1_795_250_000


@pytest.fixture(scope="module")
def proof() -> VotingProof:
    genesis = make_genesis(name="notes")
    cluster = Cluster(genesis)
    for slot in range(5):
        cluster.submit(make_raw(genesis, range(slot * 3, slot * 3 + 2), now_ms=cluster.now_ms))
        cluster.step()
    found = PeerSource(cluster.peers[0], genesis).final()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def log_key() -> LogKey:
    return LogKey.generate()


# -- the specification's -----------------------------------------------------------------------------------------------


def test_the_note_of_the_specification() -> None:
    key = parse_note_key(EXAMPLE_KEY)
    note = parse_note(EXAMPLE.encode())
    assert (key.name, key.key_id.hex(), key.to_text()) == ("example.com/foo", "530d903a", EXAMPLE_KEY)
    assert (note.text, note.to_bytes()) == ("This is an example message.\n", EXAMPLE.encode())
    assert [(found.key, found.time_s) for found in note.verify([key])] == [(key, None)]


@pytest.mark.parametrize("old", ["example message", "an", "\n\n"])
def test_a_changed_text_is_not_signed(old: str) -> None:
    note = parse_note(EXAMPLE.replace(old, "another " + old, 1).encode())
    with pytest.raises(BadSignature, match=r"note, key example\.com/foo: the signature does not verify"):
        note.verify([parse_note_key(EXAMPLE_KEY)])


def test_the_checkpoint_of_the_specification() -> None:
    note = parse_note(CHECKPOINT.encode())
    head = parse_tree_head(note.text)
    assert (head.origin, head.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert head.root == base64.b64decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
    assert (head.to_text(), note.to_bytes()) == (note.text, CHECKPOINT.encode())
    assert [(one.name, len(one.body)) for one in note.signatures] == [
        ("example.com/behind-the-sofa", 64),
        (NAME, 8 + 64),
    ]
    assert note.verify([parse_note_key(EXAMPLE_KEY)]) == []


def test_what_a_witness_of_others_signed() -> None:
    keys = [parse_note_key(text) for text in WITNESSED_KEYS]
    note = parse_note(WITNESSED.encode())
    assert [(found.key, found.time_s) for found in note.verify(keys)] == [(keys[0], None), (keys[1], 1_795_287_971)]
    with pytest.raises(BadSignature, match=r"note, key witness\.example/lite"):
        parse_note(WITNESSED.replace("\n419\n", "\n418\n").encode()).verify(keys[1:])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("TEST+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6", ED25519),
        ("remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2", COSIGNATURE),
    ],
)
def test_keys_of_others(text: str, kind: int) -> None:
    key = parse_note_key(text)
    assert (key.kind, key.to_text()) == (kind, text)


def test_an_empty_line_in_the_text() -> None:
    note = parse_note(EXAMPLE.replace("This is", "This\n\nis").encode())
    assert note.text == "This\n\nis an example message.\n"


# -- our own -----------------------------------------------------------------------------------------------------------


def test_a_final_block_as_a_note(proof: VotingProof, log_key: LogKey) -> None:
    chain_id = proof.header.chain_id
    note = make_note(proof, log_key)
    read = parse_note(note.to_bytes())
    key = parse_note_key(log_key.note_key(origin_of(chain_id)).to_text())
    assert (read, [found.key for found in read.verify([key])]) == (note, [key])
    assert parse_tree_head(read.text) == TreeHead(f"ledgerd/{chain_id.hex()}", 4, proof.header.history_root)
    found = finality_of(read, chain_id)
    assert found == proof
    check_voting(found, founding_set(make_genesis(name="notes")), chain_id, where="")
    assert finality_of(read, bytes(32)) is None


def test_a_proof_of_another_block_in_a_note(proof: VotingProof, log_key: LogKey) -> None:
    other = replace(proof, header=replace(proof.header, height=7))
    note = Note(make_note(proof, log_key).text, (finality_line(other),))
    with pytest.raises(EncodingError, match="of another tree head"):
        finality_of(note, proof.header.chain_id)
    broken = NoteSignature(finality_line(proof).name, finality_line(proof).key_id, b"\xc1")
    with pytest.raises(EncodingError, match="the proof in it cannot be read"):
        finality_of(Note(note.text, (broken,)), proof.header.chain_id)


def test_a_witness_signs_beside_the_log(proof: VotingProof, log_key: LogKey) -> None:
    witness = LogKey.generate()
    note = make_note(proof, log_key)
    both = parse_note(note.signed(witness.cosign(note.text, NAME, TIME_S)).to_bytes())
    keys = [log_key.note_key(origin_of(proof.header.chain_id)), witness.note_key(NAME, COSIGNATURE)]
    assert [(found.key, found.time_s) for found in both.verify(keys)] == [(keys[0], None), (keys[1], TIME_S)]
    assert len(both.signatures) == 3
    later = both.signed(witness.cosign(note.text, NAME, TIME_S + 60))
    assert [found.time_s for found in later.verify(keys[1:])] == [TIME_S + 60]
    assert len(later.signatures) == 3


@pytest.mark.parametrize("cut", [(0, 8), (7, 8), (8, 9), (70, 72), (72, 72)], ids=str)
def test_a_changed_cosignature(cut: tuple[int, int], log_key: LogKey) -> None:
    text = TreeHead("log", 5, bytes(32)).to_text()
    good = log_key.cosign(text, NAME, TIME_S)
    body = good.body[: cut[0]] + b"\xf1" * (cut[1] - cut[0] or 1) + good.body[cut[1] :]
    with pytest.raises(BadSignature):
        Note(text, (NoteSignature(NAME, good.key_id, body),)).verify([log_key.note_key(NAME, COSIGNATURE)])


def test_a_log_key_is_kept_as_pem(log_key: LogKey) -> None:
    assert LogKey.from_pem(log_key.to_pem(), where="x").public_key == log_key.public_key
    for data in (b"", b"-----BEGIN PRIVATE KEY-----\n", b"\xff" * 40):
        with pytest.raises(ConfigError, match="not a log key"):
            LogKey.from_pem(data, where="x")


# -- what is no note ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("\n\n", "\n", "not a signed note"),
        ("IneyaQM=\n", "IneyaQM=", "not a signed note"),
        ("message", "mes\tsage", "a control character"),
        ("— ", "- ", "not a line of a signature"),
        ("— example.com/foo ", "— example.com/foo", "not a line of a signature"),
        ("— example.com/foo", "— example.com/+foo", "not a line of a signature"),
        ("— example.com/foo", "—  ", "not a line of a signature"),
        ("IneyaQM=", "IneyaQM", "not base64"),
        ("IneyaQM=", "IneyaQN=", "not base64"),
    ],
)
def test_what_is_no_note(old: str, new: str, what: str) -> None:
    assert old in EXAMPLE
    with pytest.raises(EncodingError, match=what):
        parse_note(EXAMPLE.replace(old, new).encode())


def test_too_much_of_a_note() -> None:
    line = EXAMPLE.splitlines(keepends=True)[-1]
    assert len(parse_note((EXAMPLE + line * (SIGNATURES_MAX - 1)).encode()).signatures) == SIGNATURES_MAX
    for data, what in ((EXAMPLE + line * SIGNATURES_MAX, "too many"), ("x" * 300_000, "too large")):
        with pytest.raises(EncodingError, match=what):
            parse_note(data.encode())
    with pytest.raises(EncodingError, match="not UTF-8"):
        parse_note(EXAMPLE.encode("utf-16"))
    short = f"x\n\n— a {base64.b64encode(b'1234').decode()}\n"
    with pytest.raises(EncodingError, match="too short"):
        parse_note(short.encode())


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["log", "5"],
        ["log", "", "root"],
        ["log", "05", "AAAA"],
        ["log", "-1", "AAAA"],
        ["log", "\u0665", "AAAA"],
        ["log", str(2**63), base64.b64encode(bytes(32)).decode()],
        ["log", "5", base64.b64encode(bytes(31)).decode()],
        ["log", "5", "%"],
        ["log", "5", base64.b64encode(bytes(32)).decode(), ""],
    ],
)
def test_what_is_no_tree_head(lines: list[str]) -> None:
    with pytest.raises(EncodingError):
        parse_tree_head("".join(f"{line}\n" for line in lines))


def test_extension_lines_are_passed_over() -> None:
    head = TreeHead("log", 0, bytes(32))
    assert parse_tree_head(head.to_text() + "more\n") == head


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a+530d903a",
        EXAMPLE_KEY.replace("530d903a", "530d903b"),
        EXAMPLE_KEY.replace("foo", "fo o"),
        EXAMPLE_KEY[:-4],
        NoteKey("a", 2, bytes(32)).to_text(),
        NoteKey("", 1, bytes(32)).to_text(),
        NoteKey("a", 1, bytes(31)).to_text(),
    ],
)
def test_what_is_no_verifier_key(text: str) -> None:
    with pytest.raises(ConfigError, match="not the verifier key of a witness"):
        parse_note_key(EXAMPLE_KEY, kinds=[COSIGNATURE])
    with pytest.raises(ConfigError, match="witnesses: not the verifier key"):
        parse_note_key(text, where="witnesses")


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_anything_else_is_refused_or_read_as_it_is(data: bytes) -> None:
    try:
        note = parse_note(data)
    except EncodingError:
        return
    assert note.to_bytes() == data


_names = st.text(st.characters(codec="utf-8", exclude_categories=["Zs", "Zl", "Zp", "Cc"]), min_size=1, max_size=20)


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=60),
    st.lists(st.tuples(_names, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=90)), min_size=1),
)
def test_every_note_is_read_as_it_was_written(text: str, lines: list[tuple[str, bytes, bytes]]) -> None:
    note = Note(text + "\n", tuple(NoteSignature(name.replace("+", "-"), *rest) for name, *rest in lines))
    assert parse_note(note.to_bytes()) == note


def test_the_tree_head_is_what_a_light_client_knows(proof: VotingProof) -> None:
    client = LightClient(make_genesis(name="notes"))
    client.advance(proof, None if proof.header.height == 1 else _path(proof))
    head = tree_head_of(proof)
    assert client.final is not None
    assert (head.size, head.root) == (client.point.height, client.final.header.history_root)
    assert head.origin == origin_of(chain_id_of(make_genesis(name="notes")))


def _path(proof: VotingProof) -> list[bytes]:
    genesis = make_genesis(name="notes")
    cluster = Cluster(genesis)
    for slot in range(5):
        cluster.submit(make_raw(genesis, range(slot * 3, slot * 3 + 2), now_ms=cluster.now_ms))
        cluster.step()
    return PeerSource(cluster.peers[0], genesis).history(0, proof.header.height)
