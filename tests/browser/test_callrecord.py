"""Records made of getStats(): every one holds under the rules of a chain, and what is rated is rated exactly."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest_asyncio
from playwright.async_api import Page

from ledger.cdr import CallRecord, call_commitment
from ledger.codec import decode
from ledger.commitment import PRIVATE_FIELDS, PrivateField, PrivatePart, party_commitment
from ledger.crypto import is_valid_signature, key_id_of
from ledger.entries import KeyEntry, KeyStanding
from ledger.genesis import Role
from ledger.models import emodel
from ledger.models.tables import CODECS
from ledger.readable import from_readable
from ledger.rules.ruleset import RuleSet, default_rule_set_pin
from ledger.transaction import Transaction, tx_id_of
from ledger.validation import check_transaction
from tests.browser.kit import BROWSER, serve_modules

pytestmark = BROWSER
RULES = RuleSet(default_rule_set_pin("lifecycle"), carbon_basis="lifecycle")
SETUP_MS = 1_795_250_000_000
WITH_RTT = {"remote-inbound-rtp", "candidate-pair"}
CALL = {"leg": "originating", "released_by": "caller", "setup_ms": SETUP_MS, "answer_ms": SETUP_MS + 800}
RECORDS = """async (cases) => {
    const { recordFromStats, readableRecord } = await import("/callrecord.js");
    const commitments = { party_commitment: new Uint8Array(32), call_commitment: new Uint8Array(16) };
    return cases.map(([stats, call]) => readableRecord(recordFromStats(stats, { ...call, ...commitments })));
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def modules(page: Page) -> Page:
    await serve_modules(page)
    return page


def report(codec: str = "PCMU", seconds: int = 10, *, frame: int = 160, **changes: Any) -> list[dict[str, Any]]:
    """Return what Chromium's getStats() says of a call with packets of 20 ms, but for what is changed."""
    packets = 50 * seconds
    inbound = {
        "packetsReceived": packets,
        "bytesReceived": packets * frame,
        "packetsLost": 0,
        "packetsDiscarded": 0,
        "jitter": 0.0035,
        "concealmentEvents": 0,
        "jitterBufferDelay": 1200.0,
        "jitterBufferEmittedCount": 20_000,
    }
    outbound = {"packetsSent": packets, "bytesSent": packets * frame}
    remote = {"roundTripTimeMeasurements": 2, "totalRoundTripTime": 0.0841}
    for part in (inbound, outbound, remote):
        part.update({name: value for name, value in changes.items() if name in part})
    return [
        {"type": "codec", "id": "C", "mimeType": f"audio/{codec}", "clockRate": 8000},
        {"type": "inbound-rtp", "kind": "audio", "codecId": "C", **inbound},
        {"type": "inbound-rtp", "kind": "video", "packetsReceived": 7, "bytesReceived": 9_000},
        {"type": "outbound-rtp", "kind": "audio", "codecId": "C", **outbound},
        {"type": "remote-inbound-rtp", "kind": "audio", **remote},
        {"type": "candidate-pair", "nominated": True, "responsesReceived": 4, "totalRoundTripTime": 0.4},
    ]


def call(seconds: int = 10, **changes: Any) -> dict[str, Any]:
    return {**CALL, "end_ms": CALL["answer_ms"] + 1000 * seconds, **changes}


async def records_of(page: Page, cases: list[Any]) -> list[CallRecord]:
    """Return the records of calls, each of which must hold under the rules."""
    records = [from_readable(one, CallRecord) for one in await page.evaluate(RECORDS, cases)]
    assert [RULES.check_record(record) for record in records] == [None] * len(cases)
    return records


async def test_a_call_without_loss(modules: Page) -> None:
    (record,) = await records_of(modules, [[[report(jitter=0.0015), report()], call()]])
    assert record.codec == 2
    assert CODECS[2].name == "PCMU"
    assert (record.packets_sent, record.packets_received) == (500, 500)
    assert (record.octets_sent, record.octets_received) == (80_000, 80_000)
    quality = record.quality
    assert quality is not None
    assert (quality.samples, quality.mean.rtt_us, quality.mean.jitter_us) == (2, 42_050, 2_500)
    # Half the round trip, 60 ms in the buffer, 20 ms of packet, the codec.
    assert quality.one_way_us == 21_025 + 60_000 + 20_000 + 125
    assert (quality.r_milli, quality.mean.mos_milli) == (93_206, 4_409)


async def test_what_a_browser_may_report(modules: Page) -> None:
    """Loss, packets that came twice, padding, A-law, other packet times, and what is rated by nobody."""
    lossy = {"packetsReceived": 480, "bytesReceived": 76_800, "packetsLost": 20, "concealmentEvents": 7}
    cases: dict[str, tuple[Any, Any, tuple[int, bool]]] = {
        "loss": ([report(**lossy)], call(), (2, True)),
        "loss without events": ([report(**{**lossy, "concealmentEvents": 0})], call(), (2, True)),
        "more events than losses": ([report(**{**lossy, "concealmentEvents": 90})], call(), (2, True)),
        "twice": ([report(packetsLost=-3)], call(), (2, True)),
        "padding": ([report(packetsSent=515, packetsReceived=512)], call(), (2, True)),
        "A-law": ([report("PCMA")], call(), (4, True)),
        "30 ms": ([report(frame=240, packetsSent=334, bytesSent=334 * 240)], call(), (10, True)),
        "the other side": ([report()], call(leg="terminating"), (2, True)),
        "late": ([report(packetsDiscarded=900)], call(), (2, True)),
        "far": ([report(totalRoundTripTime=2.9)], call(), (2, True)),
        "farther than can be rated": ([report(totalRoundTripTime=9.0)], call(), (2, False)),
        "no RTCP": ([report(roundTripTimeMeasurements=0)], call(), (2, True)),
        "nobody measured": ([[one for one in report() if one["type"] not in WITH_RTT]], call(), (2, False)),
        "short": ([report(seconds=4)], call(4), (2, False)),
        "Opus": ([report("opus", frame=90)], call(), (80, False)),
        "G.722": ([report("G722")], call(), (71, False)),
        "another codec": ([report("telepathy")], call(), (0, False)),
        "never answered": ([report(seconds=0)], call(answer_ms=0, end_ms=SETUP_MS + 9_000), (2, False)),
        "no report": ([], call(), (0, False)),
        "empty reports": ([[], []], call(), (0, False)),
    }
    records = await records_of(modules, [[stats, one] for stats, one, _ in cases.values()])
    found = {name: (record.codec, record.quality is not None) for name, record in zip(cases, records, strict=True)}
    assert found == {name: expected for name, (_, _, expected) in cases.items()}


async def test_any_counters(modules: Page) -> None:
    """Whatever the counters are, the record holds, and what is rated is what the model says."""
    rng = random.Random(5)
    cases = []
    for _ in range(300):
        seconds = rng.choice([5, 6, 60, 3_600])
        packets = 50 * seconds
        received = rng.randint(0, packets)
        changes = {
            "packetsSent": rng.randint(0, packets),
            "packetsReceived": received,
            "bytesReceived": 160 * received,
            "packetsLost": rng.choice([0, rng.randint(-5, packets - received)]),
            "packetsDiscarded": rng.randint(0, packets),
            "concealmentEvents": rng.randint(0, packets),
            "jitter": rng.random(),
            "jitterBufferDelay": rng.random() * 40_000,
            "totalRoundTripTime": rng.random() * 4,
        }
        changes["bytesSent"] = 160 * changes["packetsSent"]
        cases.append([[report(seconds=seconds, **changes)] * rng.randint(1, 4), call(seconds)])
    rated = 0
    for record in await records_of(modules, cases):
        quality = record.quality
        if quality is None:
            continue
        rated += 1
        codec = CODECS[record.codec]
        expected = emodel.rate(
            codec.ie_milli or 0,
            codec.bpl_milli or 0,
            lost=quality.packets_lost,
            expected=quality.packets_expected,
            loss_events=quality.loss_events,
            one_way_us=quality.one_way_us or 0,
        )
        assert (quality.r_milli, quality.mean.mos_milli) == expected
    assert rated > 100


async def test_the_model_is_that_of_the_rules(modules: Page) -> None:
    rng = random.Random(7)
    cases = []
    for _ in range(2_000):
        expected = rng.randint(1, 2_000_000)
        lost = rng.choice([0, rng.randint(0, expected)])
        events = rng.randint(1, lost) if lost else 0
        codec = rng.choice([codec for codec in CODECS.values() if codec.is_ratable])
        cases.append([codec.ie_milli, codec.bpl_milli, lost, expected, events, rng.randint(0, 2_000_000)])
    script = """async (cases) => {
        const { rate } = await import("/emodel.js");
        return cases.map(([ie, bpl, lost, expected, lossEvents, oneWayUs]) => {
            const { r_milli, mos_milli } = rate(ie, bpl, { lost, expected, lossEvents, oneWayUs });
            return [r_milli, mos_milli];
        });
    }"""
    found = await modules.evaluate(script, cases)
    assert found == [
        list(emodel.rate(ie, bpl, lost=lost, expected=expected, loss_events=events, one_way_us=one_way_us) or ())
        for ie, bpl, lost, expected, events, one_way_us in cases
    ]


async def test_rows_of_codecs(modules: Page) -> None:
    rows = await modules.evaluate("async () => (await import('/callrecord.js')).CODEC_ROWS")
    names = {"pcmu": "PCMU", "pcma": "PCMA", "g722": "G722", "opus": "opus"}
    found = {
        (name, ms): (CODECS[row].name, CODECS[row].packet_us, CODECS[row].concealment)
        for name, times in rows.items()
        for ms, row in times.items()
    }
    assert found == {(name, ms): (names[name], 1000 * int(ms), "plc") for name, ms in found}


async def test_a_signed_record_is_what_a_node_takes(modules: Page) -> None:
    """Commitments and the signed transaction, recomputed by the program."""
    script = """async ([stats, call, chainId]) => {
        const m = await import("/callrecord.js");
        const p256 = await import("/p256.js");
        const { toHex, fromHex } = await import("/wire.js");
        const secret = fromHex("07".repeat(32));
        const hmac = { name: "HMAC", hash: "SHA-256" };
        const recordKey = await crypto.subtle.importKey("raw", secret, hmac, false, ["sign"]);
        const fields = m.makePrivatePart({ caller: "sip:J\u00f6rg@example.com", call_id: "a@b", from_tag: "t" });
        const record = m.recordFromStats(stats, { ...call,
            party_commitment: await m.partyCommitment(fields),
            call_commitment: await m.callCommitment(recordKey, "a@b", "t") });
        const pair = await p256.generateKey();
        const { txId, raw } = await m.signRecord(record,
            { pair, memberId: "alfa", chainId: fromHex(chainId), nowMs: call.end_ms + 5 });
        return [txId, toHex(raw), toHex(await p256.publicKeyOf(pair)), m.privateToJson(fields)];
    }"""
    chain_id = bytes(range(32))
    tx_id, raw, key, private = await modules.evaluate(script, [[report()], call(), chain_id.hex()])
    transaction = decode(bytes.fromhex(raw), Transaction)
    public_key = bytes.fromhex(key)
    assert tx_id_of(transaction.envelope).hex() == tx_id
    assert is_valid_signature(public_key, bytes.fromhex(tx_id), transaction.signature)
    record = decode(transaction.items[0], CallRecord)
    fields = [
        PrivateField(name, bytes.fromhex(private[name]["salt"]), private[name]["value"].encode())  # type: ignore[arg-type]
        for name in PRIVATE_FIELDS
    ]
    assert record.party_commitment == party_commitment(PrivatePart(fields))
    assert len({field.salt for field in fields}) == len(fields)
    assert record.call_commitment == call_commitment(b"\x07" * 32, "a@b", "t", 0)
    assert json.dumps(private["caller"]["value"]) == json.dumps("sip:J\u00f6rg@example.com")

    entry = KeyEntry("alfa", public_key, Role.SUBMIT, KeyStanding.ACTIVE)
    checked = check_transaction(
        bytes.fromhex(raw), chain_id=chain_id, key_of={key_id_of(public_key): entry}.get, rules=RULES
    )
    assert checked.tx_id.hex() == tx_id
