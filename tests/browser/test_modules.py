"""The known answers of ``tests/vectors`` in the browser: encoding, hashes, signatures, trees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest_asyncio
from playwright.async_api import Page

from tests.browser.kit import BROWSER, serve_modules

pytestmark = BROWSER
VECTORS = Path(__file__).parent.parent / "vectors"


def vectors(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


@pytest_asyncio.fixture(loop_scope="session")
async def modules(page: Page) -> Page:
    """A page beside the modules, with what the scripts below share."""
    await serve_modules(page)
    await page.evaluate(
        """async () => {
            window.wire = await import("/wire.js");
            window.merkle = await import("/merkle.js");
            window.p256 = await import("/p256.js");
            window.schema = await import("/schema.js");
            window.structs = await import("/structs.js");
            window.json = await import("/json.js");
            window.genesis = await import("/genesis.js");
            window.hex = wire.toHex;
            window.bytes = wire.fromHex;
            window.refusal = async (work) => {
                try {
                    await work();
                } catch (error) {
                    if (error instanceof wire.ProofError) return error.where || "refused";
                    throw error;
                }
                return null;
            };
        }"""
    )
    return page


async def test_tagged_hashes(modules: Page) -> None:
    known = vectors("crypto.json")["tagged_hashes"]
    script = """(known) => Promise.all(known.map(async (one) =>
        hex(await wire.sha256(wire.taggedBytes(one.tag, bytes(one.data))))))"""
    assert await modules.evaluate(script, known) == [one["hash"] for one in known]


async def test_keys_and_their_ids(modules: Page) -> None:
    known = vectors("crypto.json")["keys"]
    script = """(keys) => Promise.all(keys.map(async (key) => [
        hex(await p256.keyIdOf(bytes(key.public_key))),
        hex(p256.compress(p256.decompress(bytes(key.public_key)))),
    ]))"""
    assert await modules.evaluate(script, known) == [[key["key_id"], key["public_key"]] for key in known]


async def test_points_that_are_none(modules: Page) -> None:
    """x without a y, x not below the field's prime, another form, too short."""
    good = vectors("crypto.json")["keys"][0]["public_key"]
    bad = ["02" + "00" * 31 + "01", "02" + "ff" * 32, "04" + good[2:], good[:-2]]
    assert await modules.evaluate("(keys) => keys.map((key) => p256.decompress(bytes(key)))", bad) == [None] * 4


async def test_signatures(modules: Page) -> None:
    """WebCrypto verifies messages, so the vectors' digests cannot be used; transactions are signed with them."""
    known = vectors("transactions.json")["transactions"]
    key = vectors("crypto.json")["keys"][0]["public_key"]
    refused = vectors("crypto.json")["refused"]
    script = """async ([known, key, refused]) => {
        const good = [], bad = [];
        for (const one of known) {
            const message = wire.taggedBytes("tx", bytes(one.envelope_encoded));
            good.push(await p256.isValidSignature(bytes(key), message, bytes(one.signature)));
            const signature = bytes(one.signature);
            const s = wire.toBigInt(signature.subarray(32));
            const high = wire.concat(signature.subarray(0, 32), wire.bigEndian(p256.ORDER - s, 32));
            const changed = signature.with(63, signature[63] ^ 1);
            for (const wrong of [high, changed, signature.subarray(0, 63), ...refused.map((r) => bytes(r.signature))]) {
                bad.push(await p256.isValidSignature(bytes(key), message, wrong));
            }
        }
        return [good, bad];
    }"""
    good, bad = await modules.evaluate(script, [known, key, refused])
    assert good == [True] * len(known)
    assert bad == [False] * len(known) * (3 + len(refused))


async def test_a_key_that_never_leaves_the_browser_signs_low(modules: Page) -> None:
    script = """async () => {
        const pair = await p256.generateKey();
        const key = await p256.publicKeyOf(pair);
        const message = wire.taggedBytes("tx", wire.encode([1, 2, 3]));
        const isGood = [];
        for (let i = 0; i < 32; i++) {
            isGood.push(await p256.isValidSignature(key, message, await p256.sign(pair, message)));
        }
        return [isGood, pair.privateKey.extractable, key.length];
    }"""
    assert await modules.evaluate(script) == [[True] * 32, False, 33]


async def test_envelopes_and_transactions(modules: Page) -> None:
    known = vectors("transactions.json")["transactions"]
    script = """(known) => Promise.all(known.map(async (one) => {
        const { Envelope, Transaction } = structs;
        const plain = (value) => json.parseJson(JSON.stringify(value));
        const envelope = schema.fromReadable(Envelope, plain(one.envelope));
        const transaction = schema.decodeAs(Transaction, bytes(one.encoded));
        return [
            hex(schema.encodeAs(Envelope, envelope)),
            hex(await wire.hashOf("tx", Envelope.toWire(envelope))),
            hex(schema.encodeAs(Transaction, transaction)),
            hex(await merkle.rootOf(transaction.items)),
        ];
    }))"""
    expected = [[one["envelope_encoded"], one["tx_id"], one["encoded"], one["envelope"]["items_root"]] for one in known]
    assert await modules.evaluate(script, known) == expected


async def test_records(modules: Page) -> None:
    """As text, since the largest integers are beyond what JavaScript's own JSON keeps."""
    known = vectors("records.json")
    script = """([readable, records, refused]) => Promise.all([
        ...readable.map((text) => {
            const record = schema.fromReadable(structs.CallRecord, json.parseJson(text));
            return hex(schema.encodeAs(structs.CallRecord, record));
        }),
        ...records.map((one) =>
            hex(schema.encodeAs(structs.CallRecord, schema.decodeAs(structs.CallRecord, bytes(one.encoded))))),
        ...refused.map((one) => refusal(() => schema.decodeAs(structs.CallRecord, bytes(one.encoded)))),
    ])"""
    readable = [json.dumps(one["readable"]) for one in known["records"]]
    encoded = [one["encoded"] for one in known["records"]]
    both = [[{"encoded": one["encoded"]} for one in known[name]] for name in ("records", "refused")]
    found = await modules.evaluate(script, [readable, *both])
    assert found[: 2 * len(encoded)] == encoded * 2
    assert len(known["refused"]) > 5
    assert None not in found[2 * len(encoded) :]


async def test_private_parts(modules: Page) -> None:
    known = vectors("private_part.json")
    script = """async ({ fields, party_commitment }) => {
        const leaves = [];
        for (const field of fields) {
            const value = json.parseJson(JSON.stringify({ name: field.name, salt: field.salt, value: field.value }));
            const built = schema.fromReadable(structs.PrivateField, value);
            leaves.push(await wire.hashOf("private", structs.PrivateField.toWire(built)));
        }
        const paths = [];
        for (const i of leaves.keys()) paths.push((await merkle.inclusionPath(leaves, i)).map(hex));
        return [leaves.map(hex), paths, hex(await merkle.rootOf(leaves))];
    }"""
    found = await modules.evaluate(script, known)
    assert found == [
        [field["leaf"] for field in known["fields"]],
        [field["path"] for field in known["fields"]],
        known["party_commitment"],
    ]


async def test_merkle_trees(modules: Page) -> None:
    known = vectors("merkle.json")
    script = """async ({ leaves, roots, inclusion }) => {
        const data = leaves.map(bytes);
        const found = [], paths = [], wrong = [];
        for (const { size } of roots) found.push(hex(await merkle.rootOf(data.slice(0, size))));
        for (const { index, size, path } of inclusion) {
            const leaf = await merkle.leafHash(data[index]);
            const root = bytes(roots[size].root);
            const hashes = path.map(bytes);
            const check = (...changed) => refusal(() => merkle.verifyInclusion(leaf, ...changed));
            paths.push(await check(index, size, hashes, root));
            wrong.push(await check(index, size, [...hashes, root], root), await check(size, size, hashes, root));
            if (size > 1) {
                wrong.push(await check(index ^ 1, size, hashes, root), await check(index, size, hashes.slice(1), root));
            }
        }
        return [found, paths, wrong];
    }"""
    found, paths, wrong = await modules.evaluate(script, known)
    assert found == [one["root"] for one in known["roots"]]
    assert paths == [None] * len(known["inclusion"])
    assert None not in wrong


async def test_state_trees(modules: Page) -> None:
    steps = vectors("state_tree.json")["steps"]
    proofs = [
        [step["root"], proof["path"], proof["value"], proof["siblings"]]
        for step in steps
        for proof in step["proofs"]
        if proof["value"] is not None
    ]
    assert len(proofs) > 5
    script = """(proofs) => Promise.all(proofs.map(async ([root, path, value, siblings]) => {
        const check = (data, way) => refusal(() => merkle.verifyPresence(bytes(root), bytes(path), data, way));
        const way = siblings.map(bytes);
        return [await check(bytes(value), way), await check(bytes(value + "00"), way),
            await check(bytes(value), [...way.slice(1), bytes(root)])];
    }))"""
    assert await modules.evaluate(script, proofs) == [[None, "root", "root"]] * len(proofs)


async def test_genesis(modules: Page) -> None:
    known = vectors("genesis.json")
    script = """async (text) => {
        const { genesis: read, chainId } = await genesis.readGenesis(text);
        const { producers } = await genesis.foundingSet(read);
        return [hex(schema.encodeAs(structs.Genesis, read)), hex(chainId), producers.map((one) => one.member_id)];
    }"""
    encoded, chain_id, elected = await modules.evaluate(script, known["json"])
    assert (encoded, chain_id) == (known["encoded"], known["chain_id"])
    assert elected == [one["member_id"] if isinstance(one, dict) else one for one in known["elected"]]


async def test_a_genesis_file_that_was_touched(modules: Page) -> None:
    text = vectors("genesis.json")["json"]
    changes = [
        ('"version": 1', '"version": 2', "genesis: version"),
        ('"version": 1', '"version": 1.0', "genesis: version"),
        ('"version": 1', '"version": 1, "version": 1', "genesis: version"),
        ('"version": 1', '"version": 1, "more": 1', "genesis: more"),
        ('"name"', '"nam"', "genesis: nam"),
        ('"slot_ms": ', '"slot_ms": 99', "genesis: parameters.slot_ms"),
        ('"chain_id": "7', '"chain_id": "8', "genesis: chain_id"),
        ("{", "[", "genesis: file"),
    ]
    assert [old for old, _, _ in changes if old not in text] == []
    touched = [text.replace(old, new, 1) for old, new, _ in changes]
    script = "(texts) => Promise.all(texts.map((text) => refusal(() => genesis.readGenesis(text))))"
    assert await modules.evaluate(script, touched) == [where for _, _, where in changes]


async def test_what_is_no_json(modules: Page) -> None:
    texts = ["", "{", "[1,]", '{"a":1,}', "01", "1.", "+1", "NaN", '"\n"', '"\\x"', '"', "[1] 2", "{1:2}", "'a'", "nul"]
    texts += ["[" * 100_000, '{"a":' * 100_000, '"' + "\\" * 100_001]
    script = "(texts) => Promise.all(texts.map((text) => refusal(() => json.parseJson(text))))"
    assert await modules.evaluate(script, texts) == ["refused"] * len(texts)


async def test_json_is_read_as_it_stands(modules: Page) -> None:
    text = '{"a": [9007199254740993, -1, 1e3, 0.5], "__proto__": "\\u00e9", "b": {"c": [true, false, null, {}, []]}}'
    script = """(text) => {
        const { a, b, ["__proto__"]: own } = json.parseJson(text);
        return [a.map((one) => `${typeof one} ${one}`), own, JSON.stringify(b)];
    }"""
    assert await modules.evaluate(script, text) == [
        ["bigint 9007199254740993", "number -1", "object 1e3", "object 0.5"],
        "é",
        '{"c":[true,false,null,{},[]]}',
    ]
