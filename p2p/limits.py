"""Every bound of the peering, named, with its reason: nothing a peer sends can grow without one.

Times are milliseconds, sizes bytes, everything else a count.
"""

from __future__ import annotations

# --- Frames ---------------------------------------------------------------------------------------------------

FRAME_BYTES_MAX = 4 * 1024 * 1024
"""Largest frame. A block of 65,535 transactions, one void bit for each of 1,000,000 records and a certificate of two
sets is 2.7 MB; the largest transaction, 512 KiB, fits eight times."""
HANDSHAKE_FRAME_BYTES_MAX = 1_024
"""A hello is at most 350 bytes: whoever is not yet proven a member may not make us parse more."""
CLOSE_REASON_CHARACTERS_MAX = 400
"""A sentence with two chain ids in it fits."""
VERSIONS_MAX = 8
"""Protocol versions a hello may offer."""
AGENT_CHARACTERS_MAX = 64
"""Name and version of a peer's program."""

# --- What one message may hold --------------------------------------------------------------------------------

TRANSACTIONS_MAX = 1_024
"""Transactions of a message: one for each id that may be asked for at once, and pushes of small ones."""
TRANSACTIONS_BYTES_MAX = 1024 * 1024
"""Bodies put into one message, unless it is one alone: large enough to be cheap, small enough that a vote behind it
waits 8 ms at 1 Gbit/s."""
ANNOUNCE_IDS_MAX = 4_096
"""Ids of an announce, stored or not-found message: 140 kB."""
GET_TRANSACTIONS_MAX = 64
"""Ids asked of one peer at once: small, so that several peers share a large need."""
VOTES_MAX = 256
"""Votes of a message: twelve heights of 21 producers."""
HEADERS_MAX = 256
"""Headers of a response: at most 3.6 kB each with the certificates of two sets of 21."""
HEADERS_BYTES_MAX = 1024 * 1024
"""Headers put into one response, unless it is one alone."""
BODIES_MAX = 32
"""Block bodies asked for at once."""
BODIES_BYTES_MAX = 1024 * 1024
"""Bodies put into one response, unless it is one alone."""
PEER_ADDRESSES_MAX = 64
"""Addresses of a peers message: three times the producers."""

# --- Transactions ---------------------------------------------------------------------------------------------

BUNDLE_DELAY_MS = 20
"""Announces, votes passed on, and ``stored`` that follows another, are bundled this long: it saves messages when it
matters, and is a fiftieth of a slot."""
ANNOUNCE_DELAY_MS = 30
"""Nothing is announced earlier than this, a bundle and a way: whoever got the push has said ``stored`` by then."""
STORED_PULL_DELAY_MS = 200
"""After a ``stored`` for an unknown transaction, its push or announce gets this long before it is asked for."""
PULL_TIMEOUT_MS = 3_000
"""An answer of 1 MiB takes 0.8 s at 10 Mbit/s; after this another peer is asked."""
INVENTORY_ENTRIES_MAX = 262_144
"""Transactions remembered that are not final yet: half a minute of 8,000 a second, about 150 MB at worst."""
OFFERS_PER_PEER_MAX = 32_768
"""Ids one peer may announce that are not here: beyond this, its announces are ignored until some came."""
UNCHECKED_BYTES_MAX = 32 * 1024 * 1024
"""Bodies handed out to be checked and not yet answered for: beyond this nothing is asked for and pushes are dropped."""
UNUSABLE_IDS_MAX = 16_384
"""Transactions remembered as not usable here, so that they are not pulled again from each peer."""
UNUSABLE_MS = 60_000
"""After this such a transaction may be tried again: a key may have been admitted, or a full disk emptied."""
PEER_UP_IDS_MAX = 65_536
"""Ids that a new peer is told of, newest first to be kept."""

# --- Blocks and votes -----------------------------------------------------------------------------------------

BLOCK_PULL_DELAY_MS = 20
"""A block often overtakes the push of its last transactions: this long they may still come by themselves."""
BLOCK_RETRY_MS = 1_000
"""After this, what a waiting block misses is asked of every peer, not only of the block's sender."""
BLOCK_WAIT_MS = 30_000
"""A block whose transactions did not come by then is dropped; sync brings it if it counts."""
BLOCKS_WAITING_MAX = 64
"""Blocks waiting for transactions: a minute of them. The oldest goes first."""
BLOCKS_WAITING_PER_PEER_MAX = 16
"""One peer may not fill the waiting room."""
BLOCKS_SEEN_MAX = 1_024
"""Block ids remembered, so that relayed copies are dropped at once."""
VOTES_SEEN_MAX = 4_096
"""Votes remembered: nearly 200 heights of 21 producers."""
VOTES_TO_NEW_PEER_MAX = 128
"""Newest votes given to a new peer: a chain at rest sends no others, and it may lack the last certificate."""

# --- Sync -----------------------------------------------------------------------------------------------------

STATUS_INTERVAL_MS = 5_000
"""Each peer hears our heights this often."""
SEEN_INTERVAL_MS = 5_000
"""Each peer hears what we saw of it this often."""
SEEN_KEYS_MAX = 8
"""Node keys of one member that are told of: one is in use, a second while it is rotated."""
SKEW_SAMPLES = 4
"""Of so many comparisons of clocks the one that was least under way counts: twenty seconds."""
SYNC_LAG_BLOCKS = 2
"""Heights a peer may be ahead before we ask: one block is always under way."""
SYNC_GRACE_MS = 2_000
"""An unknown head that is no higher may still arrive as a block; after this it is fetched."""
SYNC_WINDOW_BLOCKS = 256
"""Headers and bodies held ahead of the block that is applied next."""
SYNC_WINDOW_BYTES = 16 * 1024 * 1024
"""Bodies held ahead, as encoded. One block more may be asked for."""
SYNC_TRANSACTIONS_WANTED_MAX = 4_096
"""Transactions asked for ahead: they wait on disk, not in memory."""
SYNC_TIMEOUT_MS = 5_000
"""After this a range is asked elsewhere."""
SYNC_COOL_OFF_MS = 10_000
"""A peer that did not answer is not asked again for this long, unless there is no other."""
SYNC_STALL_MS = 5_000
"""A block whose transactions do not come for this long has them asked of every peer again."""
SYNC_FORKS_MAX = 3
"""Times a leader may change its mind about unfinal blocks before another leads."""
SYNC_BAD_BLOCKS_MAX = 256
"""Blocks remembered as refused by the engine, so that a chain over them is not fetched again."""

# --- Penalties ------------------------------------------------------------------------------------------------

REJECT_SCORE = 25
"""A lie or malformed message: the fourth within the hour bans."""
BAN_SCORE = 100
"""Score at which a peer is banned."""
SCORE_DECAY_MS = 60_000
"""A point is forgiven each minute."""
BAN_MS = 600_000
"""A ban's duration: members are few and known, their faults are mostly bugs that get mended."""
SCORED_PEERS_MAX = 1_024
"""Peers whose score is remembered: more than there are members."""

# --- Connections ----------------------------------------------------------------------------------------------

PEERS_MAX = 64
"""Connections kept: three times the producers."""
HANDSHAKES_MAX = 32
"""Unproven connections at a time: with the frame bound this bounds what strangers can make us hold."""
HANDSHAKE_TIMEOUT_MS = 5_000
"""Four short messages."""
NONCES_MAX = 4_096
"""Nonces remembered, to tell a replayed hello."""
OUTBOX_MESSAGES_MAX = 4_096
"""Messages waiting for a slow peer; beyond this it is dropped, never waited for."""
OUTBOX_BYTES_MAX = 32 * 1024 * 1024
"""Bytes waiting for a slow peer: eight of the largest frames."""
INBOX_TURN_MESSAGES = 16
"""Messages read from one peer before the others get their turn."""
PING_INTERVAL_MS = 15_000
"""A connection that does not answer a ping within half of this is closed."""
CLOSE_TIMEOUT_MS = 1_000
"""How long a closing connection is waited for."""
BACKOFF_MIN_MS = 200
"""First wait before dialling again."""
BACKOFF_MAX_MS = 15_000
"""Longest wait; a peer that comes back is found within this."""
DIALS_MAX = 64
"""Addresses dialled: those given and those learned."""
ADDRESSES_MAX = 256
"""Addresses remembered."""
