"""Many short calls from SIPp through Kamailio, for load: each with a Call-ID and tag that are known beforehand."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from siplab.calls import Exchange, ask_rtpengine
from siplab.lab import CONFIG, INGEST_PATH, ping_proxy, until
from siplab.programs import Program, free_udp_port, start_kamailio, start_rtpengine
from siplab.sip import LabError, sdp

HOST = "127.0.0.1"
INVITE_CSEQ = 1
SDP_PORT = 40_000
"""Nobody sends there: the calls are signalling only, but rtpengine has a session for each."""
ENDED_WITHIN_S = 60.0
"""How much longer than planned SIPp may take."""


def is_installed() -> bool:
    """Tell whether SIPp is here."""
    return shutil.which("sipp") is not None


@dataclass(frozen=True)
class Load:
    """Calls to make."""

    count: int
    per_second: int
    name: str
    """In every Call-ID; another load has another."""
    talk_ms: int = 200
    with_sdp: bool = True
    """Offer and answer media, so that rtpengine has its part in each call."""

    def calls(self) -> list[tuple[str, str]]:
        """Return Call-ID and from-tag of each call."""
        return [(f"{self.name}-{number}@{HOST}", f"t{number}") for number in range(1, self.count + 1)]


@dataclass(frozen=True)
class Proxy:
    """A Kamailio that runs with the configuration of docs/kamailio."""

    address: str
    callee_port: int
    kamailio: Program


@asynccontextmanager
async def running_proxy(folder: Path, ingest: str, token: str) -> AsyncIterator[Proxy]:
    """A Kamailio with rtpengine that posts its CDRs to ``ingest``, the base address of an agent or a node.

    folder: for configuration and logs; it is there.
    """
    async with AsyncExitStack() as stack:
        rtpengine, control = await start_rtpengine(folder)
        stack.push_async_callback(rtpengine.stop)
        await until(lambda: ask_rtpengine(control, timeout_s=0.2), rtpengine, "rtpengine to answer")
        port, callee_port = free_udp_port(), free_udp_port()
        settings = {
            "LISTEN_ON": f"udp:{HOST}:{port}",
            "DOWNSTREAM": f'"sip:{HOST}:{callee_port}"',
            "RTPENGINE_SOCK": f'"udp:{HOST}:{control}"',
            "INGEST_URL": f'"{ingest}{INGEST_PATH}"',
            "INGEST_TOKEN": f'"{token}"',
        }
        kamailio = await start_kamailio(folder, CONFIG, settings)
        stack.push_async_callback(kamailio.stop)
        exchange = Exchange((HOST, port), control)
        await exchange.caller.open()
        stack.callback(exchange.caller.close)
        await ping_proxy(exchange, kamailio)
        yield Proxy(f"{HOST}:{port}", callee_port, kamailio)


async def make_calls(folder: Path, proxy: Proxy, load: Load) -> None:
    """Make the calls of a load; return when all have ended. Raises LabError where one did not go as planned."""
    caller, callee = folder / f"{load.name}-caller.xml", folder / f"{load.name}-callee.xml"
    body = sdp(SDP_PORT) if load.with_sdp else ""
    caller.write_text(caller_scenario(body, load.talk_ms))
    callee.write_text(callee_scenario(body))
    common = ["-i", HOST, "-nostdin", "-trace_err"]
    answering = ["-sf", str(callee), "-p", str(proxy.callee_port), "-error_file", f"{callee}.log", *common]
    calling = ["-sf", str(caller), "-p", str(free_udp_port()), "-error_file", f"{caller}.log", *common]
    calling += ["-m", str(load.count), "-r", str(load.per_second), "-cid_str", f"{load.name}-%u@{HOST}", proxy.address]
    far = await Program.start("sipp", answering, folder / f"{load.name}-callee.log")
    try:
        near = await Program.start("sipp", calling, folder / f"{load.name}-caller.log")
        try:
            planned_s = load.count / load.per_second + load.talk_ms / 1000
            status = await asyncio.wait_for(near.process.wait(), planned_s + ENDED_WITHIN_S)
        except TimeoutError:
            raise LabError(f"SIPp did not end its {load.count} calls in time") from None
        finally:
            await near.stop()
    finally:
        await far.stop()
    if status:
        tail = "\n".join(near.output().splitlines()[-30:])
        raise LabError(f"SIPp ended with status {status}: not every call went as planned\n{tail}")


def caller_scenario(body: str, talk_ms: int) -> str:
    """Return what SIPp's caller does: a whole call. ``body``: the offer, empty for none."""
    invite = _message(
        "INVITE sip:+12025550123@[remote_ip]:[remote_port] SIP/2.0",
        "To: <sip:+12025550123@lab.test>",
        f"CSeq: {INVITE_CSEQ} INVITE",
        body=body,
    )
    to = "To: <sip:+12025550123@lab.test>[peer_tag_param]"
    ack = _message("ACK [next_url] SIP/2.0", "[routes]", to, f"CSeq: {INVITE_CSEQ} ACK")
    bye = _message("BYE [next_url] SIP/2.0", "[routes]", to, f"CSeq: {INVITE_CSEQ + 1} BYE", REASON)
    return _scenario(
        f'<send retrans="500">{invite}</send>',
        '<recv response="100" optional="true"/>',
        '<recv response="180" optional="true"/>',
        '<recv response="200" rrs="true"/>',
        f"<send>{ack}</send>",
        f'<pause milliseconds="{talk_ms}"/>',
        f'<send retrans="500">{bye}</send>',
        '<recv response="200"/>',
    )


REASON = 'Reason: Q.850;cause=16;text="Normal call clearing"'


def callee_scenario(body: str) -> str:
    """Return what SIPp's callee does: it answers at once, and waits for the end. ``body``: the answer."""
    back = ("[last_Via:]", "[last_From:]", "[last_To:];tag=c[call_number]", "[last_Call-ID:]", "[last_CSeq:]")
    answer = _lines("SIP/2.0 200 OK", *back[:1], "[last_Record-Route:]", *back[1:], CONTACT, body=body)
    ended = _lines("SIP/2.0 200 OK", "[last_Via:]", "[last_From:]", "[last_To:]", "[last_Call-ID:]", "[last_CSeq:]")
    return _scenario(
        '<recv request="INVITE"/>',
        f'<send retrans="500">{answer}</send>',
        '<recv request="ACK"/>',
        '<recv request="BYE"/>',
        f"<send>{ended}</send>",
        # A BYE that comes again, because our answer was lost, is answered again.
        '<timewait milliseconds="1000"/>',
    )


CONTACT = "Contact: <sip:[local_ip]:[local_port]>"


def _message(start: str, *lines: str, body: str = "") -> str:
    """Return a request of the caller."""
    return _lines(
        start,
        "Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]",
        "Max-Forwards: 70",
        "From: <sip:+442071838750@lab.test>;tag=t[call_number]",
        "Call-ID: [call_id]",
        CONTACT,
        *lines,
        body=body,
    )


def _lines(*lines: str, body: str = "") -> str:
    """Return a message in SIPp's notation: the length is its own to count."""
    kind = ["Content-Type: application/sdp"] if body else []
    text = body.replace("\r\n", "\n").replace(HOST, "[local_ip]")
    return "<![CDATA[\n" + "\n".join([*lines, *kind, "Content-Length: [len]", "", text]) + "\n]]>"


def _scenario(*steps: str) -> str:
    return '<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="load">\n' + "\n".join(steps) + "\n</scenario>\n"
