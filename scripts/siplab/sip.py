"""Just enough SIP over UDP (RFC 3261) for a caller and a callee behind a record-routing proxy.

Requests are sent again until answered; dialogs keep their route set and remote target. No authentication, no forking,
no re-INVITE: the lab does not make such calls.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from dataclasses import dataclass, field

T1_S = 0.5
"""First retransmission, doubled each time (RFC 3261, 17.1.1.2)."""


class LabError(Exception):
    """The lab did not go as it must; the message says what and where."""


@dataclass
class Message:
    """A SIP request or response: its first line, headers in order, body."""

    start: str
    headers: list[tuple[str, str]]
    body: str = ""

    @classmethod
    def parse(cls, data: bytes) -> Message:
        """Parse a datagram; lenient, since only the lab's own proxy talks to it."""
        head, _, body = data.decode("utf-8", "replace").partition("\r\n\r\n")
        start, *lines = head.split("\r\n")
        pairs = [line.partition(":")[::2] for line in lines]
        return cls(start, [(name.strip(), value.strip()) for name, value in pairs], body)

    def encode(self) -> bytes:
        """Return the datagram."""
        headers = [*self.headers, ("Content-Length", str(len(self.body.encode())))]
        return "\r\n".join([self.start, *(f"{n}: {v}" for n, v in headers), "", self.body]).encode()

    def all(self, name: str) -> list[str]:
        """Return every value of a header."""
        return [value for n, value in self.headers if n.lower() == name.lower()]

    def one(self, name: str) -> str:
        """Return the first value of a header, empty when there is none."""
        values = self.all(name)
        return values[0] if values else ""

    @property
    def status(self) -> int:
        """Status code of a response, 0 for a request."""
        return int(self.start.split()[1]) if self.start.startswith("SIP/2.0") else 0

    @property
    def method(self) -> str:
        """Method of the transaction."""
        return self.one("CSeq").split()[-1]


def tag_of(value: str) -> str:
    """Return the tag parameter of a From or To header."""
    found = re.search(r";tag=([^;>\s]+)", value)
    return found[1] if found else ""


def uri_of(value: str) -> str:
    """Return the URI inside angle brackets."""
    found = re.search(r"<([^>]+)>", value)
    return found[1] if found else value


def sdp(port: int) -> str:
    """Return an offer or answer for one G.711 A-law stream with 20 ms packets."""
    lines = ("v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0")
    media = (f"m=audio {port} RTP/AVP 8", "a=rtpmap:8 PCMA/8000", "a=ptime:20", "a=sendrecv")
    return "\r\n".join([*lines, *media, ""])


def sdp_port(body: str) -> int:
    """Return the audio port of a session description."""
    found = re.search(r"^m=audio (\d+) ", body, re.MULTILINE)
    if not found:
        raise LabError(f"no audio stream in the session description: {body!r}")
    return int(found[1])


@dataclass
class Dialog:
    """One side's state of a call: what its own requests within the dialog need."""

    call_id: str
    local: str
    remote: str
    target: str
    routes: list[str]
    cseq: int = 1
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Endpoint(asyncio.DatagramProtocol):
    """A UDP socket that speaks SIP to one proxy. Subclasses say what to do with requests."""

    def __init__(self, proxy: tuple[str, int]) -> None:
        self.proxy = proxy
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: dict[str, asyncio.Queue[Message]] = {}

    async def open(self) -> None:
        """Bind a free port on loopback."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        self.port = self._transport.get_extra_info("sockname")[1]

    def close(self) -> None:
        """Give the socket back."""
        for task in self._tasks:
            task.cancel()
        self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        message = Message.parse(data)
        if not message.status:
            self.handle_request(message, addr)
            return
        branch = re.search(r";branch=([^;,\s]+)", message.one("Via"))
        queue = self._waiting.get(branch[1] + message.method) if branch else None
        if queue:
            queue.put_nowait(message)

    def handle_request(self, request: Message, addr: tuple[str, int]) -> None:
        """Answer or ignore a request."""

    def send(self, message: Message, addr: tuple[str, int] | None = None) -> None:
        """Send to the proxy, or to ``addr``."""
        self._transport.sendto(message.encode(), addr or self.proxy)

    def request(self, method: str, dialog: Dialog, branch: str, body: str = "", cseq: int | None = None) -> Message:
        """Build a request of ``dialog``."""
        headers = [
            ("Via", f"SIP/2.0/UDP 127.0.0.1:{self.port};branch={branch}"),
            ("Max-Forwards", "70"),
            *(("Route", route) for route in dialog.routes),
            ("From", dialog.local),
            ("To", dialog.remote),
            ("Call-ID", dialog.call_id),
            ("CSeq", f"{cseq or dialog.cseq} {method}"),
            ("Contact", f"<sip:lab@127.0.0.1:{self.port}>"),
        ]
        if body:
            headers.append(("Content-Type", "application/sdp"))
        if method in ("BYE", "CANCEL"):
            headers.append(("Reason", 'Q.850;cause=16;text="Normal call clearing"'))
        return Message(f"{method} {dialog.target} SIP/2.0", headers, body)

    async def responses(self, request: Message, branch: str, deadline_s: float = 20.0):
        """Send ``request`` until something comes back; yield responses up to and with the final one."""
        queue = self._waiting[branch + request.method] = asyncio.Queue()
        wait_s, heard = T1_S, False
        try:
            async with asyncio.timeout(deadline_s):
                while True:
                    if not heard:
                        self.send(request)
                    try:
                        response = await asyncio.wait_for(queue.get(), None if heard else wait_s)
                    except TimeoutError:
                        wait_s *= 2
                        continue
                    heard = True
                    yield response
                    if response.status >= 200:
                        return
        except TimeoutError:
            raise LabError(f"no final response within {deadline_s} s to: {request.start}") from None
        finally:
            del self._waiting[branch + request.method]

    async def final(self, request: Message, branch: str) -> Message:
        """Send ``request`` and return its final response."""
        async for response in self.responses(request, branch):
            last = response
        return last

    async def bye(self, dialog: Dialog) -> None:
        """End the call from this side."""
        dialog.cseq += 1
        branch = new_branch()
        answer = await self.final(self.request("BYE", dialog, branch), branch)
        if answer.status != 200:
            raise LabError(f"BYE was answered {answer.start}")


def new_branch() -> str:
    """Return a fresh Via branch."""
    return "z9hG4bK" + secrets.token_hex(8)


class Caller(Endpoint):
    """Places calls."""

    def handle_request(self, request: Message, addr: tuple[str, int]) -> None:
        if request.start.startswith("BYE"):
            self.send(reply(request, 200, "OK"), addr)
            self.ended[request.one("Call-ID")].set()

    def __init__(self, proxy: tuple[str, int]) -> None:
        super().__init__(proxy)
        self.ended: dict[str, asyncio.Event] = {}

    async def invite(
        self, caller: str, callee: str, media_port: int, *, cancel_after_s: float | None = None
    ) -> tuple[Dialog, Message]:
        """Call ``callee`` and return the dialog and the final response, acknowledged.

        cancel_after_s: give up that long after it began to ring.
        """
        target = f"sip:{callee}@lab.test"
        local = f"<sip:{caller}@lab.test>;tag=" + secrets.token_hex(4) + ".a"
        dialog = Dialog(f"lab-{secrets.token_hex(6)}@127.0.0.1", local, f"<{target}>", target, [])
        self.ended[dialog.call_id] = dialog.ended
        branch = new_branch()
        invite = self.request("INVITE", dialog, branch, sdp(media_port))
        cancelling: asyncio.Task[Message] | None = None
        try:
            async for response in self.responses(invite, branch):
                last = response
                if response.status == 180 and cancel_after_s is not None and cancelling is None:
                    cancelling = asyncio.create_task(self._cancel(dialog, branch, cancel_after_s))
            if cancelling:
                await cancelling
        finally:
            if cancelling:
                cancelling.cancel()
        dialog.remote = last.one("To")
        if last.status < 300:
            dialog.target = uri_of(last.one("Contact"))
            dialog.routes = [r.strip() for value in reversed(last.all("Record-Route")) for r in value.split(",")[::-1]]
            branch = new_branch()
        self.send(self.request("ACK", dialog, branch))
        return dialog, last

    async def _cancel(self, dialog: Dialog, branch: str, after_s: float) -> Message:
        await asyncio.sleep(after_s)
        return await self.final(self.request("CANCEL", dialog, branch), branch)


def reply(request: Message, status: int, reason: str, *, tag: str = "", body: str = "", port: int = 0) -> Message:
    """Return a response to ``request``."""
    to = request.one("To")
    if tag and not tag_of(to):
        to += f";tag={tag}"
    headers = [(n, v) for n, v in request.headers if n in ("Via", "Record-Route", "From", "Call-ID", "CSeq")]
    headers.append(("To", to))
    if port:
        headers.append(("Contact", f"<sip:lab@127.0.0.1:{port}>"))
    if body:
        headers.append(("Content-Type", "application/sdp"))
    return Message(f"SIP/2.0 {status} {reason}", headers, body)


class Callee(Endpoint):
    """Answers calls by the number called: see NUMBERS in calls.py. ``answer`` is asked for the SDP port."""

    def __init__(self, proxy: tuple[str, int], decide: object) -> None:
        super().__init__(proxy)
        self.decide = decide
        self.dialogs: dict[str, Dialog] = {}
        self.invites: dict[str, Message] = {}
        self._answers: dict[str, bytes] = {}

    def handle_request(self, request: Message, addr: tuple[str, int]) -> None:
        call_id, method = request.one("Call-ID"), request.method
        if method == "INVITE":
            if call_id in self.invites:
                if call_id in self._answers:
                    self._transport.sendto(self._answers[call_id], addr)
                return
            self.invites[call_id] = request
            task = asyncio.create_task(self._ring(request, addr))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif method == "CANCEL":
            self.send(reply(request, 200, "OK"), addr)
            self._answer(self.invites[call_id], addr, 487, "Request Terminated")
        elif method == "BYE":
            self.send(reply(request, 200, "OK"), addr)
            self.dialogs[call_id].ended.set()

    def _answer(self, invite: Message, addr: tuple[str, int], status: int, reason: str, media_port: int = 0) -> Message:
        call_id = invite.one("Call-ID")
        body = sdp(media_port) if media_port else ""
        # The dot is deliberate: a tag may hold one, and a CDR must come out right all the same.
        response = reply(invite, status, reason, tag=f"b.{call_id[4:12]}", body=body, port=self.port)
        self._answers[call_id] = response.encode()
        self._transport.sendto(self._answers[call_id], addr)
        return response

    async def _ring(self, invite: Message, addr: tuple[str, int]) -> None:
        status, reason, media_port = await self.decide(invite)
        self.send(reply(invite, 180, "Ringing", tag=f"b.{invite.one('Call-ID')[4:12]}", port=self.port), addr)
        await asyncio.sleep(0.3)
        if status == 180:
            return
        response = self._answer(invite, addr, status, reason, media_port)
        routes = [r.strip() for value in invite.all("Record-Route") for r in value.split(",")]
        self.dialogs[invite.one("Call-ID")] = Dialog(
            invite.one("Call-ID"),
            response.one("To"),
            invite.one("From"),
            uri_of(invite.one("Contact")),
            routes,
        )
