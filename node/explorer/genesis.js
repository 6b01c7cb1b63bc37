// The genesis file: read, checked whole, and what follows from it: the chain's id and its first voting set.
// Source: docs/protocol.md, "Genesis" and "Election".

import { parseJson } from "./json.js";
import { decompress, keyIdOf } from "./p256.js";
import { fromReadable } from "./schema.js";
import { Genesis, ROLE } from "./structs.js";
import { ProofError, hashOf, toHex } from "./wire.js";

const CHARACTERS_MAX = 1024 * 1024;

function refuse(what, where, actual = "") {
  throw new ProofError(what, { where: `genesis: ${where}`, actual });
}

/** Return {genesis, chainId} of a genesis file's text. Throws ProofError. */
export async function readGenesis(text) {
  if (text.length > CHARACTERS_MAX) refuse("too large", "file");
  let document;
  let genesis;
  try {
    document = parseJson(text);
    if (document === null || typeof document !== "object") refuse("not an object", "file");
    const { chain_id: _stated, ...fields } = document;
    genesis = fromReadable(Genesis, Object.assign(Object.create(null), fields));
  } catch (error) {
    if (!(error instanceof ProofError) || error.where.startsWith("genesis: ")) throw error;
    throw new ProofError(error.what, { ...error, where: `genesis: ${error.where || "file"}` });
  }
  await checkGenesis(genesis);
  const chainId = await hashOf("genesis", Genesis.toWire(genesis));
  if ("chain_id" in document && document.chain_id !== toHex(chainId)) {
    refuse("the chain_id written in the file is not that of its contents", "chain_id", document.chain_id);
  }
  return { genesis, chainId };
}

function checkAscending(names, where) {
  for (let i = 1; i < names.length; i++) {
    if (!(names[i - 1] < names[i])) refuse("must be ascending and unique", where, names[i]);
  }
}

async function checkGenesis(genesis) {
  const { members, delegations, rules } = genesis;
  checkAscending(members.map((member) => member.member_id), "members");
  const seen = new Set();
  for (const member of members) await checkMember(member, seen);
  checkDelegations(members, delegations);
  if (!members.some((member) => member.candidate)) refuse("nobody stands for a seat", "members");
  checkAscending(rules.modules.map((rule) => rule.module), "rules.modules");
  for (const rule of rules.modules) {
    checkAscending(rule.parameters.map((parameter) => parameter.name), `rules.modules.${rule.module}.parameters`);
  }
  checkAscending(rules.tables.map((table) => table.table_id), "rules.tables");
}

async function checkMember(member, seen) {
  const where = `members.${member.member_id}`;
  const rolesOf = new Map();
  for (const key of member.keys) {
    if (decompress(key.public_key) === null) refuse("not a compressed point on P-256", where, key.public_key);
    const keyId = toHex(await keyIdOf(key.public_key));
    if (seen.has(keyId)) refuse("a key may be listed once and belong to one member only", where, keyId);
    seen.add(keyId);
    rolesOf.set(keyId, key.roles);
  }
  if (member.candidate && !((rolesOf.get(toHex(member.candidate.key_id)) ?? 0) & ROLE.node)) {
    refuse("the candidate's key must be a key of the member with the node role", `${where}.candidate.key_id`);
  }
}

function checkDelegations(members, delegations) {
  // No name holds a space, and a space sorts before every character of one.
  checkAscending(delegations.map((given) => `${given.member_id} ${given.candidate_id}`), "delegations");
  const left = new Map(members.map((member) => [member.member_id, member.weight]));
  const candidates = new Set(members.filter((member) => member.candidate).map((member) => member.member_id));
  for (const { member_id: memberId, candidate_id: candidateId, weight } of delegations) {
    if (!left.has(memberId) || !candidates.has(candidateId)) {
      refuse("names a member or candidate that does not exist", "delegations", `${memberId} -> ${candidateId}`);
    }
    left.set(memberId, left.get(memberId) - weight);
    if (left.get(memberId) < 0) refuse("delegates more than its weight", `delegations.${memberId}`);
  }
}

/** Return the voting set of genesis: {setId, producers}, producers by rank. */
export async function foundingSet(genesis) {
  const weights = new Map();
  for (const member of genesis.members) if (member.candidate) weights.set(member.member_id, 0);
  for (const { candidate_id: candidateId, weight } of genesis.delegations) {
    weights.set(candidateId, weights.get(candidateId) + weight);
  }
  // Members are ascending by name, and sorting is stable: equal weights stay in that order.
  const ranked = genesis.members
    .filter((member) => member.candidate)
    .sort((a, b) => weights.get(b.member_id) - weights.get(a.member_id));
  const producers = [];
  for (const member of ranked.slice(0, genesis.parameters.producer_count)) {
    producers.push(await producerOf(member));
  }
  return { setId: 0, producers };
}

async function producerOf({ member_id, keys, candidate }) {
  for (const key of keys) {
    const keyId = await keyIdOf(key.public_key);
    if (toHex(keyId) === toHex(candidate.key_id)) {
      return { member_id, key_id: candidate.key_id, public_key: key.public_key };
    }
  }
  return refuse("the candidate's key is not a key of the member", `members.${member_id}.candidate.key_id`);
}
