"""Kamailio's configurations in docs/ as Kamailio itself reads them, and a phone's report on its way through one."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Self

import pytest

from ledger.cdr import Observer
from telephony.adapters.vq_report import VqReportAdapter

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "docs" / "kamailio"
REPORT = ROOT / "tests" / "telephony" / "fixtures" / "vq-reports" / "rfc6035-session.txt"
sys.path.insert(0, str(ROOT / "scripts"))

from siplab.programs import free_udp_port, missing_packages, program, start_kamailio  # noqa: E402 - by the line above

MISSING = [package for package in missing_packages() if "kamailio" in package]
WAIT_S = 60.0

needs_kamailio = pytest.mark.skipif(bool(MISSING), reason=f"Debian packages missing: {' '.join(MISSING)}")


def checked(config: Path) -> subprocess.CompletedProcess[str]:
    """Return what ``kamailio -c`` says."""
    command = [program("kamailio"), "-c", "-f", str(config), "-m", "64", "-M", "8"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.system
@needs_kamailio
@pytest.mark.parametrize("name", ["kamailio", "kamailio-acc", "vq-reports"])
def test_kamailio_takes_the_configuration(tmp_path, name):
    config = Path(shutil.copy(CONFIGS / f"{name}.cfg", tmp_path))
    done = checked(config)
    output = done.stdout + done.stderr
    assert (done.returncode, "config file ok" in output, "ERROR" in output) == (0, True, False), output


def with_answers() -> str:
    """Return kamailio.cfg with what voice-metrics.md says to add for rtpengine's answers."""
    document = (ROOT / "docs" / "voice-metrics.md").read_text()
    parameters, routes = re.findall(r"^```kamailio\n(.*?)^```$", document, flags=re.MULTILINE | re.DOTALL)
    post = re.search(
        r"^route\[REPORT_POST\] \{\n.*?^\}\n", (CONFIGS / "vq-reports.cfg").read_text(), re.MULTILINE | re.DOTALL
    )
    assert post
    text = (CONFIGS / "kamailio.cfg").read_text()
    text = text.replace("\nrequest_route {", f"\n{parameters}\nrequest_route {{")
    called = text.replace("    route(MEDIA_COUNTERS);\n", "    route(MEDIA_COUNTERS);\n    route(MEDIA_ANSWER);\n")
    assert called != text
    return f"{called}\n{routes}\n{post[0]}"


@pytest.mark.system
@needs_kamailio
def test_kamailio_takes_the_lines_for_rtpengines_answers(tmp_path):
    (tmp_path / "kamailio.cfg").write_text(with_answers())
    done = checked(tmp_path / "kamailio.cfg")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.system
@needs_kamailio
def test_kamailio_refuses_a_parameter_there_is_not(tmp_path):
    """What the check is worth: one misspelt name, and it fails."""
    text = (CONFIGS / "kamailio-acc.cfg").read_text()
    (tmp_path / "bad.cfg").write_text(text.replace('"acc_time_mode"', '"acc_time_mod"'))
    assert checked(tmp_path / "bad.cfg").returncode != 0


class Sink:
    """Takes posts; the first is answered 503."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, str, str, bytes]] = []
        self.is_done = threading.Event()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                kind, token = self.headers["Content-Type"], self.headers["Authorization"]
                sink.posts.append((self.path, kind, token, body))
                self.send_response(503 if len(sink.posts) == 1 else 202)
                self.send_header("Content-Length", "0")
                self.end_headers()
                if len(sink.posts) == 2:
                    sink.is_done.set()

            def log_message(self, *_arguments: object) -> None:
                """Keep the tests' output clean."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/ingest/vq-report"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def publish(port: int, body: bytes, kind: str = "application/vq-rtcpxr") -> bytes:
    """Send a PUBLISH as a phone does, and return the answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind(("127.0.0.1", 0))
        phone.settimeout(0.5)
        own = f"127.0.0.1:{phone.getsockname()[1]}"
        head = (
            f"PUBLISH sip:reports@127.0.0.1:{port} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKvq1;rport\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:alice@example.org>;tag=vq\r\nTo: <sip:reports@127.0.0.1:{port}>\r\n"
            f"Call-ID: publish-1@{own}\r\nCSeq: 1 PUBLISH\r\nContact: <sip:alice@{own}>\r\nEvent: vq-rtcpxr\r\n"
            f"Expires: 3600\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        for _ in range(int(WAIT_S / 0.5)):
            phone.sendto(head.encode() + body, ("127.0.0.1", port))
            with contextlib.suppress(TimeoutError, ConnectionError):
                return phone.recv(65_536)
    raise AssertionError("no answer from Kamailio")


@pytest.mark.system
@needs_kamailio
async def test_report_of_a_phone_comes_through_the_proxy_unchanged(tmp_path):
    """PUBLISH in, 200 at once with the headers that RFC 3903 wants, and the body at the agent, also after a 503."""
    body, port = REPORT.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), free_udp_port()
    with Sink() as sink:
        settings = {
            "LISTEN_ON": f"udp:127.0.0.1:{port}",
            "REPORTS_URL": f'"{sink.url}"',
            "INGEST_TOKEN": '"secret"',
        }
        kamailio = await start_kamailio(tmp_path, CONFIGS / "vq-reports.cfg", settings)
        try:
            wrong = await asyncio.to_thread(publish, port, b"x", "text/plain")
            answer = await asyncio.to_thread(publish, port, body)
            await asyncio.to_thread(sink.is_done.wait, WAIT_S)
        finally:
            await kamailio.stop()
    assert (wrong.split(b"\r\n")[0], answer.split(b"\r\n")[0]) == (
        b"SIP/2.0 415 Unsupported Media Type",
        b"SIP/2.0 200 OK",
    )
    assert b"\r\nExpires: 0\r\n" in answer
    assert b"\r\nSIP-ETag: vq-" in answer
    expected = ("/v1/ingest/vq-report", "application/vq-rtcpxr", "Bearer secret", body)
    assert sink.posts[:2] == [expected, expected], kamailio.output()
    assert VqReportAdapter().parse(body).qualities[0].observer is Observer.CALLER
