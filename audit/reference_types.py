"""The second implementation: the tables of docs/protocol.md, every struct with its fields and bounds, in its order."""

from __future__ import annotations

from audit.reference_wire import COUNT_MAX, TIME_MAX, Array, Bytes, Choice, Maybe, Number, Struct, Text

COUNT = Number(0, COUNT_MAX)
U8, U16, U32 = Number(0, 2**8 - 1), Number(0, 2**16 - 1), Number(0, 2**32 - 1)
TIME_MS = Number(0, TIME_MAX)
BYTES16, BYTES20, BYTES32, BYTES33, BYTES64 = (Bytes(size) for size in (16, 20, 32, 33, 64))
MEMBER_ID = Text(r"[a-z0-9-]{1,32}")
NAME = Text(r"[a-z0-9][a-z0-9._-]{0,63}")
ENDPOINT = Text(r"(wss?://[A-Za-z0-9.:\[\]_-]{1,200})?")
ZONE = Text(r"[A-Z]{2}(-[A-Z0-9]{1,3})?")
ZONE_OR_EMPTY = Text(r"([A-Z]{2}(-[A-Z0-9]{1,3})?)?")
TABLE_ID = Text(r"[a-z0-9][a-z0-9.-]{0,31}")
WEIGHT = Number(1, 10**9)
VERSION = Number(1, 1)

# -- genesis -------------------------------------------------------------------------------------------------------

PARAMETERS = Struct(
    "Parameters",
    slot_ms=Number(100, 60_000),
    epoch_slots=Number(1, 1_000_000),
    producer_count=Number(1, 21),
    max_unfinal=Number(2, 10_000),
    heartbeat_slots=Number(1, 1_000_000),
    record_window_ms=Number(60_000, 31_622_400_000),
    block_records_max=Number(1, 1_000_000),
    block_bytes_max=Number(1_024, 268_435_456),
    member_share_milli=Number(1, 1_000),
    carbon_basis=Text("lifecycle|direct"),
)
MEMBER_KEY = Struct("MemberKey", public_key=BYTES33, roles=Number(1, 7))
CANDIDATE = Struct("Candidate", key_id=BYTES20, endpoint=ENDPOINT, grid_zone=ZONE_OR_EMPTY)
GENESIS_MEMBER = Struct(
    "GenesisMember", member_id=MEMBER_ID, weight=WEIGHT, keys=Array(MEMBER_KEY, 1, 64), candidate=Maybe(CANDIDATE)
)
DELEGATION = Struct("Delegation", member_id=MEMBER_ID, candidate_id=MEMBER_ID, weight=WEIGHT)
RULE_PARAMETER = Struct("RuleParameter", name=NAME, value=COUNT)
RULE_PIN = Struct("RulePin", module=NAME, version=U16, vectors_sha256=BYTES32, parameters=Array(RULE_PARAMETER, 0, 64))
TABLE_PIN = Struct("TablePin", table_id=NAME, sha256=BYTES32)
RULE_SET_PIN = Struct("RuleSetPin", modules=Array(RULE_PIN, 0, 64), tables=Array(TABLE_PIN, 0, 64))
GENESIS = Struct(
    "Genesis",
    version=VERSION,
    name=NAME,
    genesis_time_ms=TIME_MS,
    parameters=PARAMETERS,
    members=Array(GENESIS_MEMBER, 1, 1_000),
    delegations=Array(DELEGATION, 0, 4_000),
    rules=RULE_SET_PIN,
)

# -- the state -----------------------------------------------------------------------------------------------------

PRODUCER = Struct("Producer", member_id=MEMBER_ID, key_id=BYTES20, public_key=BYTES33)
PRODUCERS = Array(PRODUCER, 0, 21)
MEMBER_ENTRY = Struct("MemberEntry", weight=COUNT, cleared_height=COUNT)
KEY_ENTRY = Struct(
    "KeyEntry",
    member_id=MEMBER_ID,
    public_key=BYTES33,
    roles=Number(1, 7),
    standing=Choice(0, "revoked active retiring"),
)
STRUCK_ENTRY = Struct("StruckEntry", height=COUNT, is_out=Number(0, 1))
EPOCH_ENTRY = Struct("EpochEntry", epoch=COUNT, seed=BYTES32, seats=PRODUCERS)
TURN = Struct("Turn", sealed=COUNT, missed=COUNT)
TURNS_ENTRY = Struct("TurnsEntry", turns=Array(TURN, 0, 21))
PENDING_SET = Struct("PendingSet", height=COUNT, producers=PRODUCERS)
VOTING_ENTRY = Struct("VotingEntry", set_id=COUNT, producers=PRODUCERS, pending=Maybe(PENDING_SET))

# -- records -------------------------------------------------------------------------------------------------------

READING = Struct(
    "Reading", mos_milli=Number(1_000, 5_000), rtt_us=U32, jitter_us=U32, loss_ppm=Number(0, 1_000_000), at_ms=U32
)
QUALITY = Struct(
    "Quality",
    method=Choice(1, "g107 g107_1 g107_2 rtpengine_10 rtpengine_13 freeswitch rfc3611 measured"),
    band=Choice(1, "narrowband wideband super_wideband fullband"),
    kind=Choice(1, "lq cq tq vq avq"),
    observer=Choice(0, "unknown caller callee both"),
    samples=U32,
    r_milli=Maybe(Number(0, 148_000)),
    one_way_us=Maybe(U32),
    packets_expected=COUNT,
    packets_lost=COUNT,
    packets_discarded=COUNT,
    loss_events=COUNT,
    mean=READING,
    worst=Maybe(READING),
    best=Maybe(READING),
)
LEVELS = Struct(
    "Levels",
    signal_dbm0=Maybe(Number(-128, 126)),
    noise_dbm0=Maybe(Number(-128, 126)),
    rerl_db=Maybe(U8),
    burst_density=Maybe(U8),
    gap_density=Maybe(U8),
    burst_ms=Maybe(U16),
    gap_ms=Maybe(U16),
    jitter_buffer_ms=Maybe(U16),
    jitter_buffer_max_ms=Maybe(U16),
    end_system_delay_ms=Maybe(U16),
)
ENERGY = Struct(
    "Energy",
    method=Choice(1, "average_kwh_gb power_marginal power_attributed metered"),
    boundary=Choice(1, "core core_access core_access_cpe mobile"),
    device_class=Choice(0, "none phone smartphone laptop desktop conference"),
    device_mj=Number(0, 2**40 - 1),
    network_mj=Number(0, 2**40 - 1),
    server_mj=Number(0, 2**40 - 1),
    pue_milli=Number(0, 8_000),
    grid_zone=ZONE,
    intensity_mg_per_kwh=U32,
    intensity_table=TABLE_ID,
    co2_ug=Number(0, 2**42 - 1),
)
CALL_RECORD = Struct(
    "CallRecord",
    version=VERSION,
    service=Choice(1, "voice video conference webrtc emergency streaming"),
    leg=Choice(1, "originating terminating transit"),
    party_commitment=BYTES32,
    call_commitment=BYTES16,
    setup_ms=TIME_MS,
    answer_ms=TIME_MS,
    end_ms=TIME_MS,
    sip_code=Number(0, 699),
    q850_cause=Number(0, 127),
    released_by=Choice(0, "unknown caller callee network"),
    codec=U16,
    packets_sent=COUNT,
    packets_received=COUNT,
    octets_sent=Number(0, 2**42 - 1),
    octets_received=Number(0, 2**42 - 1),
    quality=Maybe(QUALITY),
    levels=Maybe(LEVELS),
    energy=Maybe(ENERGY),
)
PRIVATE_FIELD = Struct(
    "PrivateField",
    name=Text("caller|callee|call_id|from_tag|to_tag|addresses|raw"),
    salt=BYTES32,
    value=Bytes(0, 65_536),
)

# -- transactions --------------------------------------------------------------------------------------------------

ENVELOPE = Struct(
    "Envelope",
    version=VERSION,
    chain_id=BYTES32,
    kind=Choice(1, "records key candidate delegate propose approve evidence amend"),
    member_id=MEMBER_ID,
    key_id=BYTES20,
    created_ms=TIME_MS,
    expires_ms=TIME_MS,
    item_count=Number(1, 1_000),
    items_root=BYTES32,
)
TRANSACTION = Struct("Transaction", envelope=ENVELOPE, signature=BYTES64, items=Array(Bytes(1, 524_288), 1, 1_000))
KEY_CHANGE = Struct(
    "KeyChange",
    operation=Choice(1, "add rotate revoke"),
    public_key=Maybe(BYTES33),
    roles=Number(0, 7),
    key_id=Maybe(BYTES20),
)
KEY_CHANGES = Struct("KeyChanges", changes=Array(KEY_CHANGE, 1, 16))
CANDIDATE_CHANGE = Struct("CandidateChange", candidate=Maybe(CANDIDATE))
DELEGATIONS = Struct("Delegations", parts=Array(Struct("DelegationPart", candidate_id=MEMBER_ID, weight=WEIGHT), 0, 64))
PROPOSAL = Struct(
    "Proposal",
    action=Choice(1, "admit reweigh remove readmit seats"),
    member_id=Maybe(MEMBER_ID),
    weight=Number(0, 10**9),
    keys=Array(MEMBER_KEY, 0, 64),
    seats=Number(0, 21),
    expires_ms=TIME_MS,
)
PROPOSAL_ENTRY = Struct("ProposalEntry", proposer=MEMBER_ID, proposal=PROPOSAL, approvals=Array(MEMBER_ID, 0, 1_000))
APPROVAL = Struct("Approval", proposal_id=BYTES32)

# -- blocks and votes ----------------------------------------------------------------------------------------------

MOS_TOTAL = Struct("MosTotal", method=U16, kind=U16, count=COUNT, sum_milli=COUNT, minimum_milli=COUNT)
TOTALS = Struct(
    "Totals",
    records=COUNT,
    void=COUNT,
    talk_ms=COUNT,
    octets=COUNT,
    device_mj=COUNT,
    network_mj=COUNT,
    server_mj=COUNT,
    co2_ug=COUNT,
    mos=Array(MOS_TOTAL, 0, 40),
)
HEADER = Struct(
    "Header",
    version=VERSION,
    chain_id=BYTES32,
    height=COUNT,
    slot=COUNT,
    parent_id=BYTES32,
    producer_key_id=BYTES20,
    rule_set=BYTES32,
    tx_count=U32,
    tx_root=BYTES32,
    totals=TOTALS,
    state_root=BYTES32,
    history_root=BYTES32,
    qc_hash=BYTES32,
)
VOTE = Struct("Vote", s_height=COUNT, s_id=BYTES32, t_height=COUNT, t_id=BYTES32, key_id=BYTES20, signature=BYTES64)
CERTIFICATE_PART = Struct("CertificatePart", set_id=COUNT, signers=Bytes(1, 3), signatures=Array(BYTES64, 1, 21))
CERTIFICATE = Struct(
    "Certificate",
    s_height=COUNT,
    s_id=BYTES32,
    t_height=COUNT,
    t_id=BYTES32,
    parts=Array(CERTIFICATE_PART, 1, 2),
)
SEALED_HEADER = Struct("SealedHeader", header=HEADER, signature=BYTES64, certificate=Maybe(CERTIFICATE))
BODY_ITEM = Struct("BodyItem", tx_id=BYTES32, void_bitmap=Bytes(0, 125))
BODY = Array(BODY_ITEM, 0, 65_535)
SIGNED_HEADER = Struct("SignedHeader", header=HEADER, signature=BYTES64)
EVIDENCE = Struct("Evidence", public_key=BYTES33, votes=Array(VOTE, 0, 2), headers=Array(SIGNED_HEADER, 0, 2))
VOTING_PROOF = Struct(
    "VotingProof", header=HEADER, voting=VOTING_ENTRY, siblings=Array(BYTES32, 0, 256), certificate=CERTIFICATE
)
HEAD = Struct("Head", first_height=COUNT, final_height=COUNT, final_id=BYTES32)
PAYLOADS = {2: KEY_CHANGES, 3: CANDIDATE_CHANGE, 4: DELEGATIONS, 5: PROPOSAL, 6: APPROVAL, 7: EVIDENCE}
"""The payload of each kind of transaction that governs."""

# -- receipts ------------------------------------------------------------------------------------------------------

PENDING_PART = Struct(
    "PendingPart",
    height=COUNT,
    producers=Array(Struct("NamedKey", member_id=MEMBER_ID, public_key=BYTES33), 0, 21),
)
FINAL_PROOF = Struct(
    "FinalProof",
    header=HEADER,
    pending=Maybe(PENDING_PART),
    siblings=Array(BYTES32, 0, 256),
    t_id=BYTES32,
    parts=Array(Struct("SignedPart", signers=Bytes(1, 3), signatures=Array(BYTES64, 1, 21)), 1, 2),
)
PACKED = Text(r"(?s:.{0,65536})")
FLAG = Number(0, 1)
RECEIPT = Struct(
    "Receipt",
    version=Number(3, 3),
    personal_data=FLAG,
    chain_id=BYTES32,
    tx_id=BYTES32,
    index=COUNT,
    void=FLAG,
    height=COUNT,
    block_ms=TIME_MS,
    record=CALL_RECORD,
    envelope=Struct(
        "EnvelopePart",
        member_id=MEMBER_ID,
        created_ms=TIME_MS,
        expires_ms=TIME_MS,
        item_count=Number(1, 1_000),
        items_root=BYTES32,
    ),
    signature=BYTES64,
    key=Struct(
        "KeyPart", public_key=BYTES33, roles=Number(1, 7), standing=Choice(0, "revoked active retiring"), path=PACKED
    ),
    item_path=PACKED,
    tx_index=COUNT,
    tx_path=PACKED,
    void_bitmap=PACKED,
    header=Maybe(PACKED),
    history_path=PACKED,
    set_changes=Array(PACKED, 0, 2**20),
    final=PACKED,
)
