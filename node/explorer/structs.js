// The structs of the protocol that a proof needs, field by field in the order of docs/protocol.md.

import { bytes, count, exactly, int, list, named, optional, struct, text, timeMs, u16, u32, u8 } from "./schema.js";

const PRODUCERS_MAX = 21;
const MEMBERS_MAX = 1000;

const memberId = text(/^[a-z0-9-]{1,32}$/);
const name = text(/^[a-z0-9][a-z0-9._-]{0,63}$/);
const zoneOrEmpty = text(/^([A-Z]{2}(-[A-Z0-9]{1,3})?)?$/);
const weight = int(1, 1_000_000_000);
const roles = int(1, 7);

export const ROLE = { node: 1, submit: 2, govern: 4 };

// -- genesis ----------------------------------------------------------------------------------------------------------

const Parameters = struct("Parameters", {
  slot_ms: int(100, 60_000),
  epoch_slots: int(1, 1_000_000),
  producer_count: int(1, PRODUCERS_MAX),
  max_unfinal: int(2, 10_000),
  heartbeat_slots: int(1, 1_000_000),
  record_window_ms: int(60_000, 31_622_400_000),
  block_records_max: int(1, 1_000_000),
  block_bytes_max: int(1_024, 268_435_456),
  member_share_milli: int(1, 1_000),
  carbon_basis: text(/^(lifecycle|direct)$/),
});

const MemberKey = struct("MemberKey", { public_key: bytes(33), roles });

const Candidate = struct("Candidate", {
  key_id: bytes(20),
  endpoint: text(/^(wss?:\/\/[A-Za-z0-9.:[\]_-]{1,200})?$/),
  grid_zone: zoneOrEmpty,
});

const GenesisMember = struct("GenesisMember", {
  member_id: memberId,
  weight,
  keys: list(MemberKey, 1, 64),
  candidate: optional(Candidate),
});

const Delegation = struct("Delegation", { member_id: memberId, candidate_id: memberId, weight });

const RulePin = struct("RulePin", {
  module: name,
  version: u16,
  vectors_sha256: bytes(32),
  parameters: list(struct("RuleParameter", { name, value: count }), 0, 64),
});

const RuleSetPin = struct("RuleSetPin", {
  modules: list(RulePin, 0, 64),
  tables: list(struct("TablePin", { table_id: name, sha256: bytes(32) }), 0, 64),
});

export const Genesis = struct("Genesis", {
  version: exactly(1),
  name,
  genesis_time_ms: timeMs,
  parameters: Parameters,
  members: list(GenesisMember, 1, MEMBERS_MAX),
  delegations: list(Delegation, 0, 4 * MEMBERS_MAX),
  rules: RuleSetPin,
});

// -- call record ------------------------------------------------------------------------------------------------------

const Reading = struct("Reading", {
  mos_milli: int(1_000, 5_000),
  rtt_us: u32,
  jitter_us: u32,
  loss_ppm: int(0, 1_000_000),
  at_ms: u32,
});

const Quality = struct("Quality", {
  method: named({
    g107: 1,
    g107_1: 2,
    g107_2: 3,
    rtpengine_10: 4,
    rtpengine_13: 5,
    freeswitch: 6,
    rfc3611: 7,
    measured: 8,
  }),
  band: named({ narrowband: 1, wideband: 2, super_wideband: 3, fullband: 4 }),
  kind: named({ lq: 1, cq: 2, tq: 3, vq: 4, avq: 5 }),
  observer: named({ unknown: 0, caller: 1, callee: 2, both: 3 }),
  samples: u32,
  r_milli: optional(int(0, 148_000)),
  one_way_us: optional(u32),
  packets_expected: count,
  packets_lost: count,
  packets_discarded: count,
  loss_events: count,
  mean: Reading,
  worst: optional(Reading),
  best: optional(Reading),
});

const dbm0 = optional(int(-128, 126));

const Levels = struct("Levels", {
  signal_dbm0: dbm0,
  noise_dbm0: dbm0,
  rerl_db: optional(u8),
  burst_density: optional(u8),
  gap_density: optional(u8),
  burst_ms: optional(u16),
  gap_ms: optional(u16),
  jitter_buffer_ms: optional(u16),
  jitter_buffer_max_ms: optional(u16),
  end_system_delay_ms: optional(u16),
});

const energyMj = int(0, 2 ** 40 - 1);

const Energy = struct("Energy", {
  method: named({ average_kwh_gb: 1, power_marginal: 2, power_attributed: 3, metered: 4 }),
  boundary: named({ core: 1, core_access: 2, core_access_cpe: 3, mobile: 4 }),
  device_class: named({ none: 0, phone: 1, smartphone: 2, laptop: 3, desktop: 4, conference: 5 }),
  device_mj: energyMj,
  network_mj: energyMj,
  server_mj: energyMj,
  pue_milli: int(0, 8_000),
  grid_zone: text(/^[A-Z]{2}(-[A-Z0-9]{1,3})?$/),
  intensity_mg_per_kwh: u32,
  intensity_table: text(/^[a-z0-9][a-z0-9.-]{0,31}$/),
  co2_ug: int(0, 2 ** 42 - 1),
});

const octets = int(0, 2 ** 42 - 1);

export const CallRecord = struct("CallRecord", {
  version: exactly(1),
  service: named({ voice: 1, video: 2, conference: 3, webrtc: 4, emergency: 5, streaming: 6 }),
  leg: named({ originating: 1, terminating: 2, transit: 3 }),
  party_commitment: bytes(32),
  call_commitment: bytes(16),
  setup_ms: timeMs,
  answer_ms: timeMs,
  end_ms: timeMs,
  sip_code: int(0, 699),
  q850_cause: int(0, 127),
  released_by: named({ unknown: 0, caller: 1, callee: 2, network: 3 }),
  codec: u16,
  packets_sent: count,
  packets_received: count,
  octets_sent: octets,
  octets_received: octets,
  quality: optional(Quality),
  levels: optional(Levels),
  energy: optional(Energy),
});

// -- private part, transaction ----------------------------------------------------------------------------------------

export const PRIVATE_FIELDS = ["caller", "callee", "call_id", "from_tag", "to_tag", "addresses", "raw"];

export const PrivateField = struct("PrivateField", {
  name: text(new RegExp(`^(${PRIVATE_FIELDS.join("|")})$`)),
  salt: bytes(32),
  value: bytes(0, 65_536),
});

export const Envelope = struct("Envelope", {
  version: exactly(1),
  chain_id: bytes(32),
  kind: named({ records: 1, key: 2, candidate: 3, delegate: 4, propose: 5, approve: 6, evidence: 7, amend: 8 }),
  member_id: memberId,
  key_id: bytes(20),
  created_ms: timeMs,
  expires_ms: timeMs,
  item_count: int(1, 1_000),
  items_root: bytes(32),
});

export const Transaction = struct("Transaction", {
  envelope: Envelope,
  signature: bytes(64),
  items: list(bytes(1, 524_288), 1, 1_000),
});

// -- block, state, certificate ----------------------------------------------------------------------------------------

const MosTotal = struct("MosTotal", { method: u16, kind: u16, count, sum_milli: count, minimum_milli: count });

const Totals = struct("Totals", {
  records: count,
  void: count,
  talk_ms: count,
  octets: count,
  device_mj: count,
  network_mj: count,
  server_mj: count,
  co2_ug: count,
  mos: list(MosTotal, 0, 40),
});

export const Header = struct("Header", {
  version: exactly(1),
  chain_id: bytes(32),
  height: count,
  slot: count,
  parent_id: bytes(32),
  producer_key_id: bytes(20),
  rule_set: bytes(32),
  tx_count: u32,
  tx_root: bytes(32),
  totals: Totals,
  state_root: bytes(32),
  history_root: bytes(32),
  qc_hash: bytes(32),
});

export const BodyItem = struct("BodyItem", { tx_id: bytes(32), void_bitmap: bytes(0, 125) });

const CertificatePart = struct("CertificatePart", {
  set_id: count,
  signers: bytes(1, 3),
  signatures: list(bytes(64), 1, PRODUCERS_MAX),
});

export const Certificate = struct("Certificate", {
  s_height: count,
  s_id: bytes(32),
  t_height: count,
  t_id: bytes(32),
  parts: list(CertificatePart, 1, 2),
});

const Producer = struct("Producer", { member_id: memberId, key_id: bytes(20), public_key: bytes(33) });
const producers = list(Producer, 0, PRODUCERS_MAX);
const PendingSet = struct("PendingSet", { height: count, producers });

export const KeyEntry = struct("KeyEntry", {
  member_id: memberId,
  public_key: bytes(33),
  roles,
  standing: named({ revoked: 0, active: 1, retiring: 2 }),
});

export const VotingEntry = struct("VotingEntry", { set_id: count, producers, pending: optional(PendingSet) });

export const VotingProof = struct("VotingProof", {
  header: Header,
  voting: VotingEntry,
  siblings: list(bytes(32), 0, 256),
  certificate: Certificate,
});

export { Producer, PendingSet, PRODUCERS_MAX };
