"""What all tests share."""

from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import settings

# A machine with other work to do is no reason to fail: properties are held, times are not measured here.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

SYSTEM_PROGRAMS = ("kamailio", "rtpengine", "baresip", "sipp")
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"  # not on everybody's PATH, yet where the daemons are


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked ``system`` when the programs they start are not installed, and put the clusters first.

    The mark names them, ``system("chromium")``; without a name they are those of a telephone network.
    The group "cluster" takes a worker longest: begun late, it would keep that worker busy alone at the end.
    """
    items.sort(key=lambda item: not any(mark.args == ("cluster",) for mark in item.iter_markers("xdist_group")))
    path = os.pathsep.join([os.environ.get("PATH", ""), SBIN])
    for item in items:
        mark = item.get_closest_marker("system")
        programs = (mark.args or SYSTEM_PROGRAMS) if mark else ()
        missing = [program for program in programs if shutil.which(program, path=path) is None]
        if missing:
            reason = f"not installed: {', '.join(missing)}; ./scripts/test --system installs them"
            item.add_marker(pytest.mark.skip(reason=reason))
