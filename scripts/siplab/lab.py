"""Bring the lab up, make the calls, see every CDR delivered, take everything down again."""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import re
import secrets
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from siplab.calls import Exchange, Outcome, Plan, ask_rtpengine, plans
from siplab.phone import is_installed
from siplab.programs import PRIVATE_MIB, Program, free_udp_port, missing_packages, start_kamailio, start_rtpengine
from siplab.relay import Path as NetworkPath
from siplab.sink import Sink
from siplab.sip import Dialog, LabError, Message, new_branch

CONFIG = Path(__file__).resolve().parents[2] / "docs" / "kamailio" / "kamailio.cfg"
START_DEADLINE_S = 15.0
DELIVERY_DEADLINE_S = 30.0
INGEST_PATH = "/v1/ingest/kamailio"
CHECK_TIMEOUT_S = 5.0
CALLS_AT_ONCE = 8
"""Side by side: eight calls are 800 packets a second to send, which one Python process does in time."""


def main(arguments: list[str] | None = None) -> int:
    """Run the lab; return 0 when all went as planned, 1 when not, 2 when programs are missing."""
    options = parse(arguments)
    packages = missing_packages()
    if options.baresip and not is_installed():
        packages.append("baresip-core")
    if packages:
        print(
            f"sip-lab needs programs that are not here. On Debian: apt-get install {' '.join(packages)}",
            file=sys.stderr,
        )
        return 2
    try:
        return asyncio.run(run(options))
    except LabError as error:
        print(f"sip-lab: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("sip-lab: interrupted; everything it started has been ended", file=sys.stderr)
        return 130


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="sip-lab",
        description="Real calls through Kamailio and rtpengine on loopback; their CDRs go to a node, or are printed.",
    )
    parser.add_argument("--ingest-url", help="where Kamailio posts its CDRs; default: a sink that prints them")
    parser.add_argument("--token", help="bearer token for --ingest-url")
    parser.add_argument("--calls", type=int, default=2, help="answered calls with RTCP, 1 to 100 (default 2)")
    parser.add_argument(
        "--path",
        action="append",
        default=[],
        metavar="LOSS,DELAY,JITTER",
        help="one more call over a network that loses LOSS %% of packets, with DELAY and up to JITTER ms more each way",
    )
    parser.add_argument("--busy", type=int, default=1, help="calls to a busy number, 1 to 1000 (default 1)")
    parser.add_argument("--baresip", action="store_true", help="one more call, of 14 s, from Debian's baresip")
    parser.add_argument("--out", type=Path, help="write calls and CDRs to this file as JSON")
    parser.add_argument("--keep-logs", type=Path, help="leave configuration and logs of the programs in this folder")
    parser.add_argument("--config", type=Path, default=CONFIG, help="Kamailio configuration to run")
    parser.add_argument("--sink-refuses", type=int, default=0, help="the sink first answers 503 so many times")
    parser.add_argument(
        "--private-mib", type=int, default=PRIVATE_MIB, help="memory of each Kamailio process, 8 to 256 (default 32)"
    )
    options = parser.parse_args(arguments)
    if not 8 <= options.private_mib <= 256:
        parser.error("--private-mib: 8 to 256")
    if not 1 <= options.calls <= 100:
        parser.error("--calls: 1 to 100")
    if not 1 <= options.busy <= 1000:
        parser.error("--busy: 1 to 1000")
    try:
        options.path = [NetworkPath.parse(text) for text in options.path]
    except ValueError:
        parser.error("--path: LOSS,DELAY,JITTER: percent below 100, milliseconds up to 2000")
    if options.ingest_url and not options.ingest_url.startswith(("http://", "https://")):
        parser.error(f"--ingest-url: http://HOST:PORT{INGEST_PATH}")
    if options.ingest_url and not options.token:
        parser.error("--ingest-url needs --token")
    for name in ("ingest_url", "token"):
        if re.search(r'["\s\\]', getattr(options, name) or ""):
            parser.error(f"--{name.replace('_', '-')}: no quotes, spaces or backslashes")
    return options


async def run(options: argparse.Namespace) -> int:
    """Run the lab within a temporary folder."""
    task = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    if options.ingest_url:
        await asyncio.to_thread(check_ingest, options.ingest_url, options.token)
    with tempfile.TemporaryDirectory(prefix="sip-lab-") as scratch:
        folder = options.keep_logs or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        sink = None
        token = options.token
        if not options.ingest_url:
            token = secrets.token_urlsafe(18)
            sink = Sink(token, print_cdr, options.sink_refuses)
            sink.start()
        try:
            outcomes = await run_calls(options, folder.resolve(), sink.url if sink else options.ingest_url, token)
        finally:
            if sink:
                await sink.stop()
    cdrs, batches = (sink.cdrs, sink.batches) if sink else ([], [])
    if options.out:
        result = {"calls": [outcome.facts() for outcome in outcomes], "cdrs": cdrs, "batches": batches}
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return summarise(outcomes, cdrs if sink else None, sys.stdout)


def check_ingest(url: str, token: str) -> None:
    """Ask where CDRs go whether it would take one. Raises LabError naming what to mend, before any call is made.

    An empty post of the wrong type: whoever takes CDRs there looks at the token, says 415 and keeps nothing.
    """
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "text/plain"}
    try:
        request = urllib.request.Request(url, data=b"", headers=headers)  # noqa: S310 - the user's own URL
        with urllib.request.urlopen(request, timeout=CHECK_TIMEOUT_S) as answer:  # noqa: S310
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
        error.close()
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise LabError(f"--ingest-url {url}: nobody answers: {reason}. Is the node or agent running?") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise LabError(f"--ingest-url {url}: {error}. It should be http://HOST:PORT{INGEST_PATH}") from None
    if status in {401, 403}:
        raise LabError(f"--token: not known to {url}, or without the role submit. Was it started since it was made?")
    if status in {404, 405}:
        raise LabError(f"--ingest-url {url}: CDRs are not taken there. Its path should be {INGEST_PATH}")


def print_cdr(cdr: dict[str, str]) -> None:
    """Print one CDR as a line of JSON."""
    print(json.dumps(cdr, sort_keys=True), flush=True)


async def run_calls(options: argparse.Namespace, folder: Path, url: str, token: str) -> list[Outcome]:
    """Start the programs, make the calls, wait for the CDRs to be delivered, stop the programs."""
    programs: list[Program] = []
    exchange = None
    try:
        rtpengine, control = await start_rtpengine(folder)
        programs.append(rtpengine)
        await until(lambda: ask_rtpengine(control, timeout_s=0.2), rtpengine, "rtpengine to answer")
        proxy = ("127.0.0.1", free_udp_port())
        exchange = Exchange(proxy, control)
        await exchange.caller.open()
        await exchange.callee.open()
        settings = {
            "LISTEN_ON": f"udp:{proxy[0]}:{proxy[1]}",
            "DOWNSTREAM": f'"sip:127.0.0.1:{exchange.callee.port}"',
            "RTPENGINE_SOCK": f'"udp:127.0.0.1:{control}"',
            "INGEST_URL": f'"{url}"',
            "INGEST_TOKEN": f'"{token}"',
        }
        kamailio = await start_kamailio(folder, options.config, settings, private_mib=options.private_mib)
        programs.append(kamailio)
        await ping_proxy(exchange, kamailio)
        outcomes = await place_all(
            exchange, plans(options.calls, options.busy, options.path), folder if options.baresip else None
        )
        await until_delivered(kamailio, len(outcomes))
        return outcomes
    finally:
        if exchange:
            exchange.caller.close()
            exchange.callee.close()
        for program in reversed(programs):
            await program.stop()


async def until(attempt: Callable[[], object], program: Program, what: str) -> None:
    """Call ``attempt`` until it raises no LabError; in a thread, since it may block."""
    deadline = time.monotonic() + START_DEADLINE_S
    while True:
        program.check_alive()
        try:
            await asyncio.to_thread(attempt)
        except LabError:
            if time.monotonic() > deadline:
                raise LabError(f"gave up after {START_DEADLINE_S:.0f} s waiting for {what}") from None
            await asyncio.sleep(0.1)
        else:
            return


async def ping_proxy(exchange: Exchange, kamailio: Program) -> None:
    """Wait until Kamailio answers OPTIONS."""
    here = f"127.0.0.1:{exchange.caller.port}"
    target = f"sip:{exchange.caller.proxy[0]}:{exchange.caller.proxy[1]}"
    dialog = Dialog(f"ping-{secrets.token_hex(6)}", f"<sip:ping@{here}>;tag=ping", f"<{target}>", target, [])
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        kamailio.check_alive()
        branch = new_branch()
        options: Message = exchange.caller.request("OPTIONS", dialog, branch)
        try:
            async for response in exchange.caller.responses(options, branch, 1.0):
                if response.status == 200:
                    return
        except LabError:
            dialog.cseq += 1
    raise LabError(
        f"Kamailio did not answer OPTIONS within {START_DEADLINE_S:.0f} s; its log:\n{kamailio.output()[-2000:]}"
    )


async def place_all(exchange: Exchange, planned: list[Plan], baresip_folder: Path | None) -> list[Outcome]:
    """Make all calls, a few at a time; the first that fails ends the others.

    baresip_folder: where baresip may keep its files; None for no call from it.
    """
    room = asyncio.Semaphore(CALLS_AT_ONCE)

    async def one(plan: Plan) -> Outcome:
        async with room:
            return await exchange.place(plan)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(plan)) for plan in planned]
            if baresip_folder:
                tasks.append(group.create_task(exchange.answer_baresip(baresip_folder)))
    except ExceptionGroup as failures:
        raise LabError(f"a call failed: {failures.exceptions[0]}") from failures
    return [task.result() for task in tasks]


async def until_delivered(kamailio: Program, count: int) -> None:
    """Wait until Kamailio's log says that ``count`` CDRs were taken."""
    deadline = time.monotonic() + DELIVERY_DEADLINE_S
    while True:
        kamailio.check_alive()
        log = kamailio.output()
        delivered = sum(int(n) for n in re.findall(r"ledger: delivered (\d+) CDRs", log))
        if delivered >= count:
            return
        if "ledger: dead letter" in log:
            refused = next(line for line in log.splitlines() if "ledger: dead letter" in line)
            # Without the CDR, which is long; --keep-logs has it whole.
            answer = refused.partition("dead letter, ")[2].partition(", CDR ")[0]
            raise LabError(f"a CDR was refused for good: {answer}")
        if time.monotonic() > deadline:
            tail = "\n".join(line for line in log.splitlines() if "ledger:" in line or "ERROR" in line)
            raise LabError(f"{delivered} of {count} CDRs delivered within {DELIVERY_DEADLINE_S:.0f} s; log:\n{tail}")
        await asyncio.sleep(0.1)


EXPECTED_STATUS = {"answered": 200, "impaired": 200, "without-rtcp": 200, "baresip": 200, "busy": 486, "cancelled": 487}


def summarise(outcomes: list[Outcome], cdrs: list[dict[str, str]] | None, output: TextIO) -> int:
    """Print a line for each call; return 1 if one did not end as planned, or its CDR is missing."""
    by_call = {cdr.get("call_id"): cdr for cdr in cdrs or []}
    wrong = 0
    for outcome in outcomes:
        cdr = by_call.get(outcome.call_id)
        right = outcome.status == EXPECTED_STATUS[outcome.kind] and (cdrs is None or cdr is not None)
        wrong += not right
        mos = f"MOS {cdr['mos_avg'] or 'not measured'}" if cdr else "CDR delivered" if cdrs is None else "no CDR"
        mark = "" if right else "  <- not as planned"
        print(f"{outcome.kind:13} {outcome.status} ended by {outcome.ended_by:7} {mos}{mark}", file=output)
    return 1 if wrong else 0
