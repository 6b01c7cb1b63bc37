"""baresip as a caller: a phone that is not ours, with RTCP that is not ours."""

from __future__ import annotations

import shutil
from pathlib import Path

from siplab.programs import Program

CALLER = "+442071838751"
TALK_S = 14.0
"""baresip sends RTCP every 5 s, and a MOS takes a round trip from both sides: two reports."""
QUIT_S = 40
"""Ends by itself after this, whatever happens to the lab."""

_CONFIG = """\
sip_listen 127.0.0.1:0
net_interface 127.0.0.1
audio_player aufile,/dev/null
audio_source ausine,440
ausrc_srate 48000
ausrc_channels 2
audio_alert aufile,/dev/null
module_path {modules}
module g711.so
module ausine.so
module aufile.so
module_app account.so
module_app menu.so
rtp_ports 32000-32700
"""


def is_installed() -> bool:
    """Whether Debian's baresip-core is here with the modules the lab loads."""
    return shutil.which("baresip") is not None and _modules() is not None


def _modules() -> Path | None:
    for folder in (Path("/usr/lib/baresip/modules"), *Path("/usr/lib").glob("*/baresip/modules")):
        if (folder / "ausine.so").exists():
            return folder
    return None


async def start_baresip(folder: Path, proxy: tuple[str, int], callee: str) -> Program:
    """Start baresip; it calls ``callee`` through ``proxy`` and sends a tone as G.711 A-law."""
    home = folder / "baresip"
    home.mkdir(exist_ok=True)
    (home / "config").write_text(_CONFIG.format(modules=_modules()))
    account = f'<sip:{CALLER}@lab.test>;regint=0;outbound="sip:{proxy[0]}:{proxy[1]}";audio_codecs=PCMA/8000/1'
    (home / "accounts").write_text(account + "\n")
    (home / "contacts").touch()
    dial = f"/dial sip:{callee}@lab.test"
    return await Program.start("baresip", ["-f", str(home), "-e", dial, "-t", str(QUIT_S)], folder / "baresip.log")
