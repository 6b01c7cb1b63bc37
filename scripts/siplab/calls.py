"""The calls that the lab makes, and what is known of each besides its CDR."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from siplab import phone
from siplab.media import MediaSession
from siplab.programs import Program
from siplab.relay import Path as NetworkPath
from siplab.relay import Relay
from siplab.sip import Callee, Caller, Dialog, LabError, Message, sdp_port, tag_of

BUSY = "+12025550486"
NEVER_ANSWERS = "+12025550487"
ANSWERS = "+12025550123"
CALLER = "+442071838750"
TALK_S = 6.0
TALK_WITHOUT_RTCP_S = 3.0
IMPAIRED_TALK_S = 12.0
"""Longer: a share of few packets says little."""
RING_S = 0.6
RELAY_SEED = 4


@dataclass(frozen=True)
class Plan:
    """One call to make."""

    kind: str
    callee: str = ANSWERS
    with_rtcp: bool = True
    drop_every: int = 0
    """The caller loses every n-th packet it hears; 0 for none."""
    ended_by: str = "caller"
    talk_s: float = TALK_S
    path: NetworkPath | None = None
    """The network between the caller and rtpengine; None for one that does no harm."""


@dataclass
class Outcome:
    """What happened, as the lab itself saw it."""

    kind: str
    call_id: str
    from_tag: str
    to_tag: str
    status: int
    ended_by: str
    path: NetworkPath | None = None
    caller_packets: int = 0
    callee_packets: int = 0
    rtpengine: dict[str, object] = field(default_factory=dict)
    """rtpengine's own answer to a query when the media had stopped, just before BYE."""

    def facts(self) -> dict[str, object]:
        """Return everything as JSON has it."""
        return asdict(self)


MEASURED_WITHIN_S = 20.0
"""How much longer a call goes on until both directions have a MOS."""


def plans(answered: int, busy: int = 1, paths: Sequence[NetworkPath] = ()) -> list[Plan]:
    """Return the calls of one run: ``answered`` with RTCP, one without, ``busy`` refused, one cancelled.

    paths: one answered call more over each of these networks.
    """
    good = [
        Plan("answered", drop_every=20 if n % 2 else 0, ended_by="callee" if n % 2 else "caller")
        for n in range(answered)
    ]
    return [
        *good,
        *(Plan("impaired", path=path, talk_s=IMPAIRED_TALK_S) for path in paths),
        Plan("without-rtcp", with_rtcp=False, talk_s=TALK_WITHOUT_RTCP_S),
        Plan("cancelled", callee=NEVER_ANSWERS),
        *(Plan("busy", callee=BUSY) for _ in range(busy)),
    ]


class Exchange:
    """Both user agents, and the calls between them."""

    def __init__(self, proxy: tuple[str, int], control_port: int) -> None:
        self.caller = Caller(proxy)
        self.callee = Callee(proxy, self._decide)
        self._control_port = control_port
        self._media: dict[str, MediaSession] = {}

    async def open_media(self, drop_every: int = 0) -> MediaSession:
        """Return a media session on two free ports."""
        for _ in range(50):
            port = 40_000 + 2 * secrets.randbelow(10_000)
            try:
                return await MediaSession.open(port, drop_every=drop_every)
            except OSError:
                continue
        raise LabError("no free pair of UDP ports for RTP and RTCP")

    async def _decide(self, invite: Message) -> tuple[int, str, int]:
        if f":{BUSY}@" in invite.start:
            return 486, "Busy Here", 0
        if f":{NEVER_ANSWERS}@" in invite.start:
            return 180, "Ringing", 0
        session = self._media[invite.one("Call-ID")] = await self.open_media()
        return 200, "OK", session.port

    async def place(self, plan: Plan) -> Outcome:
        """Make one call from start to end."""
        near = await self.open_media(plan.drop_every)
        relay = await self._open_relay(near.port, plan.path) if plan.path else None
        far = None
        try:
            cancel_after_s = RING_S if plan.callee == NEVER_ANSWERS else None
            offered = relay.port if relay else near.port
            dialog, final = await self.caller.invite(CALLER, plan.callee, offered, cancel_after_s=cancel_after_s)
            outcome = Outcome(
                plan.kind,
                dialog.call_id,
                tag_of(dialog.local),
                tag_of(dialog.remote),
                final.status,
                "nobody",
                plan.path,
            )
            if final.status == 200:
                far = self._media.pop(dialog.call_id)
                answered = sdp_port(final.body)
                if relay:
                    relay.aim(answered)
                near.start(relay.port if relay else answered, with_rtcp=plan.with_rtcp)
                await self._talk(plan, dialog, near=near, far=far, outcome=outcome)
            return outcome
        finally:
            await near.stop()
            if relay:
                relay.close()
            if far:
                await far.stop()

    async def _open_relay(self, near_port: int, path: NetworkPath) -> Relay:
        for _ in range(50):
            port = 40_000 + 2 * secrets.randbelow(10_000)
            try:
                return await Relay.open(port, near_port, path, RELAY_SEED)
            except OSError:
                continue
        raise LabError("no free pair of UDP ports for the relay")

    async def _talk(
        self, plan: Plan, dialog: Dialog, *, near: MediaSession, far: MediaSession, outcome: Outcome
    ) -> None:
        far.start(sdp_port(self.callee.invites[dialog.call_id].body), with_rtcp=plan.with_rtcp)
        await asyncio.sleep(plan.talk_s)
        # Silence first: what rtpengine says now is what it will still say when Kamailio asks on BYE.
        await near.stop()
        await far.stop()
        await asyncio.sleep(0.2)
        outcome.caller_packets, outcome.callee_packets = near.packets_sent, far.packets_sent
        outcome.rtpengine = await asyncio.to_thread(ask_rtpengine, self._control_port, dialog.call_id)
        outcome.ended_by = plan.ended_by
        if plan.ended_by == "caller":
            await self.caller.bye(dialog)
            await asyncio.wait_for(self.callee.dialogs[dialog.call_id].ended.wait(), 5)
        else:
            await self.callee.bye(self.callee.dialogs[dialog.call_id])
            await asyncio.wait_for(dialog.ended.wait(), 5)

    async def answer_baresip(self, folder: Path) -> Outcome:
        """Have baresip call, and end the call from our side."""
        program = await phone.start_baresip(folder, self.callee.proxy, ANSWERS)
        far = None
        try:
            dialog = await self._dialog_with(phone.CALLER, program)
            far = self._media.pop(dialog.call_id)
            far.start(sdp_port(self.callee.invites[dialog.call_id].body), with_rtcp=True)
            await asyncio.sleep(phone.TALK_S)
            outcome = Outcome("baresip", dialog.call_id, tag_of(dialog.remote), tag_of(dialog.local), 200, "callee")
            outcome.rtpengine = await self._both_measured(dialog.call_id)
            await self.callee.bye(dialog)
            return outcome
        finally:
            if far:
                await far.stop()
            await program.stop()

    async def _both_measured(self, call_id: str) -> dict[str, object]:
        """Return rtpengine's answer once it has a MOS of both directions: on a busy machine a report more is needed."""
        deadline = time.monotonic() + MEASURED_WITHIN_S
        while True:
            answer = await asyncio.to_thread(ask_rtpengine, self._control_port, call_id)
            sources = answer.get("SSRC")
            measured = sum("average MOS" in source for source in sources.values()) if isinstance(sources, dict) else 0
            if measured >= 2 or time.monotonic() > deadline:
                return answer
            await asyncio.sleep(0.5)

    async def _dialog_with(self, caller: str, program: Program) -> Dialog:
        """Return the callee's dialog with ``caller`` once there is one."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            program.check_alive()
            for dialog in self.callee.dialogs.values():
                if f":{caller}@" in dialog.remote:
                    return dialog
            await asyncio.sleep(0.1)
        raise LabError(f"no call from {program.name} within 10 s; its output:\n{program.output()[-1000:]}")


def ask_rtpengine(port: int, call_id: str | None = None, timeout_s: float = 2.0) -> dict[str, object]:
    """Return rtpengine's JSON answer to a query about ``call_id``, or to a ping without one.

    Source: rtpengine's "ng" control protocol: a cookie, a space, a dictionary.
    """
    command = {"command": "query", "call-id": call_id} if call_id else {"command": "ping"}
    cookie = secrets.token_hex(8)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        control.settimeout(timeout_s)
        control.connect(("127.0.0.1", port))
        try:
            control.send(f"{cookie} {json.dumps(command)}".encode())
            answer = control.recv(65_536).decode()
        except OSError as error:
            raise LabError(f"rtpengine does not answer on port {port}: {error}") from None
    return dict(json.loads(answer.partition(" ")[2]))
