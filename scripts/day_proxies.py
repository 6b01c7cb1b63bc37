"""The platforms of a day: each hands in its CDRs in order, and again what was not answered 2xx, as real ones do."""

from __future__ import annotations

import http.client
import queue
import threading
import time
from typing import Final
from urllib.parse import urlsplit

from day_documents import Document

PER_POST: Final = {"kamailio": 50, "freeswitch": 1, "asterisk-json": 20}
"""Kamailio empties its queue in batches, FreeSWITCH posts each call as it ends, Asterisk's file comes in pieces."""
CONNECTIONS: Final = {"kamailio": 1, "freeswitch": 8, "asterisk-json": 1}
"""FreeSWITCH posts from the thread of each call."""
QUEUE_POSTS: Final = 200
"""A platform that waits for its agent holds the day up; this bounds the memory."""
ANSWER_S: Final = 20.0
AGAIN_S: Final = 0.2
FOR_GOOD: Final = frozenset({400, 409, 413, 415, 422})
"""Answers that no sending again will change: nothing of this day deserves one."""


class Proxy(threading.Thread):
    """One connection of a platform to an agent.

    Attributes:
        acknowledged: documents answered 2xx.
        repeated: posts that had to be sent again.
        refusal: the answer that ended its work, empty while there was none.
    """

    def __init__(self, platform: str, url: str, token: str) -> None:
        super().__init__(name=platform, daemon=True)
        self.platform = platform
        self.acknowledged = 0
        self.repeated = 0
        self.refusal = ""
        self._address = urlsplit(url).netloc
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._posts: queue.Queue[list[bytes]] = queue.Queue(QUEUE_POSTS)
        self._filling: list[bytes] = []
        self._connection: http.client.HTTPConnection | None = None
        self._is_ending = threading.Event()

    def put(self, document: Document) -> None:
        """Take a document to be handed in; wait where the platform is behind."""
        self._filling.append(document.body)
        if len(self._filling) == PER_POST[self.platform]:
            self.flush()

    def flush(self) -> None:
        """Let those that do not fill a post go, too."""
        filled, self._filling = self._filling, []
        while filled and not self._is_ending.is_set():
            try:
                self._posts.put(filled, timeout=0.5)
            except queue.Full:
                continue
            return

    @property
    def is_idle(self) -> bool:
        """Tell whether everything that was put is acknowledged."""
        return not self._filling and self._posts.unfinished_tasks == 0

    def end(self) -> None:
        """Make it stop soon, whatever is left."""
        self._is_ending.set()

    def run(self) -> None:
        """Hand in until the end."""
        while not self._is_ending.is_set():
            try:
                documents = self._posts.get(timeout=0.1)
            except queue.Empty:
                continue
            body = b"[" + b",".join(documents) + b"]" if len(documents) > 1 else documents[0]
            while not self._is_handed_in(body):
                self.repeated += 1
                if self._is_ending.wait(AGAIN_S) or self.refusal:
                    self._is_ending.set()
                    return
            self.acknowledged += len(documents)
            self._posts.task_done()

    def _is_handed_in(self, body: bytes) -> bool:
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(self._address, timeout=ANSWER_S)
            self._connection.request("POST", f"/v1/ingest/{self.platform}", body, self._headers)
            answer = self._connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException):
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            return False
        if answer.status in FOR_GOOD:
            self.refusal = f"{self.platform}: HTTP {answer.status}: {said[:500].decode('utf-8', 'replace')}"
        return 200 <= answer.status < 300


class Rate:
    """Records a second since the last time it was asked."""

    def __init__(self) -> None:
        self._at_s, self._count = time.monotonic(), 0

    def since(self, count: int) -> float:
        """Return the rate at which ``count`` grew."""
        now_s = time.monotonic()
        rate = (count - self._count) / max(now_s - self._at_s, 0.001)
        self._at_s, self._count = now_s, count
        return rate
