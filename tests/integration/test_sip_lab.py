"""Real calls through a real Kamailio and rtpengine: their CDRs say what happened and what rtpengine measured."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ledger.cdr import CallRecord, Observer, ReleasedBy
from ledger.codec import decode, encode
from ledger.models import rtpengine
from telephony.adapters.kamailio import parse_cdr
from telephony.builder import Profile, build_record, fresh_salts
from telephony.source import SourceQuality, SourceReading

SCRIPT = Path(__file__).parents[2] / "scripts" / "sip-lab"
sys.path.insert(0, str(SCRIPT.parent))

from siplab.lab import check_ingest, main  # noqa: E402 - found through the line above
from siplab.phone import is_installed  # noqa: E402
from siplab.programs import missing_packages, start_kamailio  # noqa: E402
from siplab.sip import LabError  # noqa: E402

MISSING = missing_packages()

# One worker plays the lab, once, for all of these tests.
pytestmark = pytest.mark.xdist_group("sip-lab")

needs_programs = pytest.mark.skipif(bool(MISSING), reason=f"Debian packages missing: {' '.join(MISSING)}")


def run_lab(folder: Path, *options: str) -> dict[str, list[dict[str, object]]]:
    """Run the lab once and return what it wrote; its output is shown when it fails."""
    out = folder / "lab.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--out", out, "--keep-logs", folder / "logs", *options],
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text())


@dataclass(frozen=True)
class Batches:
    """Runs of the lab in which CDRs queue up; each is for the most part waiting.

    Attributes:
        full: with memory for full batches.
        small: without it.
        logs: of ``small``.
    """

    full: Future[dict[str, list[dict[str, object]]]]
    small: Future[dict[str, list[dict[str, object]]]]
    logs: Path


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Batches]:
    """Begin both runs; they go on beside the tests that follow, none of which measures time."""
    full, small = (tmp_path_factory.mktemp(name) for name in ("full", "small"))
    refusing = ("--calls", "1", "--sink-refuses", "4")
    with ThreadPoolExecutor(2) as pool:
        yield Batches(
            pool.submit(run_lab, full, *refusing, "--busy", "130"),
            pool.submit(run_lab, small, *refusing, "--busy", "600", "--private-mib", "8"),
            small / "logs",
        )


@pytest.fixture(scope="module")
def lab(batches: Batches, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, object]]]:
    """One run of the lab, beside those of ``batches``, with a call from baresip where that is installed.

    Its sink answers 503 once, so that delivery is seen to try again.
    """
    options = ["--sink-refuses", "1", *(["--baresip"] if is_installed() else [])]
    return run_lab(tmp_path_factory.mktemp("lab"), *options)


def calls_of(lab: dict, kind: str) -> list[tuple[dict, object]]:
    """Return each call of a kind with its CDR, parsed."""
    cdrs = {cdr["call_id"]: parse_cdr(cdr) for cdr in lab["cdrs"]}
    return [(call, cdrs[call["call_id"]]) for call in lab["calls"] if call["kind"] == kind]


def quality_of(rtpengine: dict, label: str, observer: Observer) -> SourceQuality:
    """Return what rtpengine itself answered about one label, in our units."""
    (tag,) = (tag for tag in rtpengine["tags"].values() if tag["label"] == label)
    heard = rtpengine["SSRC"][str(tag["medias"][0]["streams"][0]["SSRC"])]

    def reading(name: str) -> SourceReading:
        figures = heard[name]
        at_s = figures.get("reported at")
        return SourceReading(
            figures["MOS"] * 100,
            figures["round-trip time"],
            figures["jitter"] * 1000,
            figures["packet loss"] * 10_000,
            None if at_s is None else (at_s - rtpengine["created"]) * 1000,
        )

    samples = heard["average MOS"]["samples"]
    return SourceQuality(observer, samples, reading("average MOS"), reading("lowest MOS"), reading("highest MOS"))


@pytest.mark.system
@needs_programs
def test_every_call_has_one_cdr(lab):
    """Nothing is lost and nothing comes twice, though the first post was turned away."""
    assert sorted(cdr["call_id"] for cdr in lab["cdrs"]) == sorted(call["call_id"] for call in lab["calls"])


@pytest.mark.system
@needs_programs
def test_mos_is_rtpengines_own(lab):
    """For both observers, every figure of the CDR equals rtpengine's answer just before BYE."""
    answered = calls_of(lab, "answered")
    assert len(answered) == 2
    for call, parsed in answered:
        caller = quality_of(call["rtpengine"], "A", Observer.CALLER)
        callee = quality_of(call["rtpengine"], "B", Observer.CALLEE)
        assert parsed.qualities[1:] == (caller, callee)
        both = parsed.qualities[0].average.mos_milli
        assert both == (caller.average.mos_milli + callee.average.mos_milli) // 200 * 100


@pytest.mark.system
@needs_programs
@pytest.mark.skipif(not is_installed(), reason="Debian package missing: baresip-core")
def test_baresips_own_rtcp_gives_a_mos(lab):
    """A phone and an RTCP that are not ours: the same figures on both sides, all the same."""
    ((call, parsed),) = calls_of(lab, "baresip")
    assert parsed.qualities[1] == quality_of(call["rtpengine"], "A", Observer.CALLER)
    assert parsed.qualities[2] == quality_of(call["rtpengine"], "B", Observer.CALLEE)
    assert parsed.caller == "sip:+442071838751@lab.test"


@pytest.mark.system
@needs_programs
def test_loss_is_heard_where_it_happened(lab):
    """Label A is what A heard: the caller that lost packets has the lower MOS."""
    (_, clean), (_, lossy) = calls_of(lab, "answered")
    assert clean.qualities[1].average.loss_ppm == 0
    assert lossy.qualities[1].average.loss_ppm >= 10_000
    assert lossy.qualities[1].average.mos_milli < lossy.qualities[2].average.mos_milli


@pytest.mark.system
@needs_programs
def test_counters_and_release(lab):
    """Packets and payload octets are those the user agents sent; who hung up is known."""
    for call, parsed in calls_of(lab, "answered") + calls_of(lab, "without-rtcp"):
        assert (parsed.caller_packets, parsed.caller_octets) == (call["caller_packets"], 160 * call["caller_packets"])
        assert (parsed.callee_packets, parsed.callee_octets) == (call["callee_packets"], 160 * call["callee_packets"])
        assert (parsed.released_by.name.lower(), parsed.q850_cause) == (call["ended_by"], 16)
        assert (parsed.from_tag, parsed.to_tag, parsed.codec) == (call["from_tag"], call["to_tag"], "PCMA")
        assert parsed.setup_ms < parsed.answer_ms < parsed.end_ms


@pytest.mark.system
@needs_programs
def test_no_rtcp_no_mos(lab):
    """Media without receiver reports: a call like any other, but nothing measured."""
    ((call, parsed),) = calls_of(lab, "without-rtcp")
    assert (parsed.sip_code, parsed.qualities, call["rtpengine"]["SSRC"]) == (200, (), {})


@pytest.mark.system
@needs_programs
@pytest.mark.parametrize(
    ("kind", "code", "by"), [("busy", 486, ReleasedBy.CALLEE), ("cancelled", 487, ReleasedBy.CALLER)]
)
def test_failed_calls(lab, kind, code, by):
    """Busy and cancelled calls have a CDR with the code, and no answer."""
    ((_, parsed),) = calls_of(lab, kind)
    assert (parsed.sip_code, parsed.released_by, parsed.answer_ms, parsed.qualities) == (code, by, 0, ())
    assert parsed.end_ms > parsed.setup_ms


@pytest.mark.system
@needs_programs
def test_every_cdr_becomes_a_record(lab):
    """From the proxy's JSON to canonical bytes, with the MOS of rtpengine, and nothing to warn about."""
    mos_milli = {}
    for cdr in lab["cdrs"]:
        record, _, warnings = build_record(parse_cdr(cdr), Profile(bytes(32)), fresh_salts())
        assert warnings == []
        assert decode(encode(record), CallRecord) == record
        mos_milli[cdr["call_id"]] = record.quality and record.quality.mean.mos_milli
    assert mos_milli == {
        call["call_id"]: quality_of(call["rtpengine"], "A", Observer.CALLER).average.mos_milli
        if call["kind"] in ("answered", "baresip")
        else None
        for call in lab["calls"]
    }


@pytest.mark.system
@needs_programs
def test_a_queue_comes_in_batches(batches):
    """CDRs queue up while the answer is 503; then they come, each once, 50 to a post, past the 100th loop turn."""
    lab = batches.full.result()
    assert sorted(cdr["call_id"] for cdr in lab["cdrs"]) == sorted(call["call_id"] for call in lab["calls"])
    assert (sum(lab["batches"]), max(lab["batches"])) == (133, 50)


@pytest.mark.system
@needs_programs
def test_too_little_memory_for_full_batches_costs_no_cdr(batches):
    """Where Kamailio cannot make a batch of 50, smaller ones go, each CDR once, and the log says what to mend."""
    lab = batches.small.result()
    assert "ledger: no memory for a batch" in (batches.logs / "kamailio.log").read_text("utf-8", "replace")
    assert sorted(cdr["call_id"] for cdr in lab["cdrs"]) == sorted(call["call_id"] for call in lab["calls"])


PATHS = ("0,0,0", "1,40,10", "3,120,20", "8,250,40", "20,400,60")
"""Loss in percent, delay and jitter in milliseconds: from a good line to one that nobody can talk over."""


@pytest.mark.system
@needs_programs
def test_mos_falls_as_the_network_gets_worse(tmp_path, batches):
    """Real calls over a relay that delays and loses: rtpengine measures what the relay does, and the MOS follows.

    It measures time, and so waits for the runs that go on beside other tests.
    """
    wait([batches.full, batches.small])
    lab = run_lab(tmp_path, "--calls", "1", *(f"--path={path}" for path in PATHS))
    impaired = calls_of(lab, "impaired")
    assert len(impaired) == len(PATHS)
    heard = [parsed.qualities[1].average for _, parsed in impaired]
    mos_milli = [average.mos_milli for average in heard]
    assert mos_milli == sorted(set(mos_milli), reverse=True)
    assert mos_milli[0] >= 4300
    assert mos_milli[-1] == 1000
    for (call, parsed), average in zip(impaired, heard, strict=True):
        path = call["path"]
        least_us = 2 * path["delay_ms"] * 1000
        assert least_us <= average.rtt_us <= least_us + 2 * path["jitter_ms"] * 1000 + 40_000
        # rtpengine has whole percent of each report, and rounds down.
        assert abs(average.loss_ppm / 10_000 - path["loss_percent"]) <= 5
        # This machine, with other work to do, adds some milliseconds of its own.
        assert average.jitter_us <= (path["jitter_ms"] + 5) * 1000
        for reading in (parsed.qualities[1].lowest, parsed.qualities[1].highest):
            expected = rtpengine.mos_milli(reading.rtt_us, reading.jitter_us, reading.loss_ppm)
            assert abs(reading.mos_milli - expected) <= rtpengine.STEP_MILLI
        record, _, warnings = build_record(parsed, Profile(bytes(32)), fresh_salts())
        assert (record.quality.mean.mos_milli, warnings) == (average.mos_milli, [])


def processes_under(folder: Path) -> list[str]:
    """Return the command lines of living Kamailio and rtpengine processes that name ``folder``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if str(folder) in line and "--keep-logs" not in line:
            found.append(line)
    return found


@pytest.mark.system
@needs_programs
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(tmp_path, number):
    """Stopped in the middle of its calls, it ends all that it started."""
    logs = tmp_path / "logs"
    lab = subprocess.Popen(
        [sys.executable, SCRIPT, "--keep-logs", logs], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 20
        while not (logs / "kamailio.log").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(1)
        assert processes_under(logs) != []
    finally:
        os.kill(lab.pid, number)
        _, errors = lab.communicate(timeout=20)
    assert (lab.returncode, errors) == (130, "sip-lab: interrupted; everything it started has been ended\n")
    assert processes_under(logs) == []


def test_missing_programs_are_named(monkeypatch, capsys):
    """Without the programs it says what to install, and exits 2."""
    monkeypatch.setattr("siplab.lab.missing_packages", lambda: ["kamailio", "rtpengine-daemon"])
    assert main([]) == 2
    assert "apt-get install kamailio rtpengine-daemon" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--calls", "0"], "--calls: 1 to 100"),
        (["--busy", "1001"], "--busy: 1 to 1000"),
        (["--private-mib", "7"], "--private-mib: 8 to 256"),
        (["--ingest-url", "http://127.0.0.1:1/"], "--ingest-url needs --token"),
        (["--ingest-url", "127.0.0.1:8080", "--token", "t"], "--ingest-url: http://HOST:PORT/v1/ingest/kamailio"),
        (["--ingest-url", 'http://"', "--token", "t"], "--ingest-url: no quotes"),
    ],
)
def test_bad_options(options, complaint, capsys):
    """An option that cannot work is refused before anything starts."""
    with pytest.raises(SystemExit) as caught:
        main(options)
    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err


@contextmanager
def answering(status: int) -> Iterator[str]:
    """Serve one status to every post while the context is open; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/ingest/kamailio"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "complaint"),
    [
        (401, "--token: not known"),
        (403, "--token: not known"),
        (404, "Its path should be"),
        (405, "Its path should be"),
    ],
)
def test_a_place_that_will_take_no_cdrs_is_named_before_any_call(status: int, complaint: str) -> None:
    """A wrong token or path is said in a sentence."""
    with answering(status) as url, pytest.raises(LabError, match=complaint):
        check_ingest(url, "t")


def test_a_place_that_takes_cdrs_passes() -> None:
    """Who looks at the content type is past token and path."""
    with answering(415) as url:
        check_ingest(url, "t")


@pytest.mark.parametrize(
    ("url", "complaint"),
    [("http://127.0.0.1:1/v1/ingest/kamailio", "nobody answers"), ("http://[", "It should be http://")],
)
def test_an_address_where_nobody_is(url: str, complaint: str) -> None:
    """A wrong port, or no address at all."""
    with pytest.raises(LabError, match=complaint):
        check_ingest(url, "t")


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A mistyped file is a sentence, not a trace."""
    with pytest.raises(LabError, match=r"no\.cfg cannot be read: No such file"):
        asyncio.run(start_kamailio(tmp_path, tmp_path / "no.cfg", {}))
