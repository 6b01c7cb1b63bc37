// What this browser keeps for itself in IndexedDB: the key that signs, the key of call commitments, and the private
// part of each record. Keys are kept as such: no script, this one included, can read them.

const DATABASE = "ledgerd-call";
const STORES = ["keys", "calls"];

function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => STORES.forEach((name) => request.result.createObjectStore(name));
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Run `work(store)` in a transaction and return the result of the request that it returns, once all is on disk. */
async function within(store, mode, work) {
  const database = await open();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(store, mode, { durability: "strict" });
      const request = work(transaction.objectStore(store));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

/** Return {pair, recordKey} of a chain, undefined where none was made. */
export function loadKeys(chainId) {
  return within("keys", "readonly", (store) => store.get(chainId));
}

/** Keep the keys of a chain; never over keys that are there: whoever made two at once has the first. */
export async function saveKeys(chainId, keys) {
  await within("keys", "readwrite", (store) => store.add(keys, chainId)).catch(() => {});
  return loadKeys(chainId);
}

/** Forget the keys of a chain. */
export function dropKeys(chainId) {
  return within("keys", "readwrite", (store) => store.delete(chainId));
}

/** Keep what belongs to a record: {chainId, memberId, record, private}. */
export function saveCall(txId, call) {
  return within("calls", "readwrite", (store) => store.put(call, txId));
}

/** Return what was kept of a chain's calls: [[tx id, call]]. */
export async function loadCalls(chainId) {
  const keys = await within("calls", "readonly", (store) => store.getAllKeys());
  const calls = await within("calls", "readonly", (store) => store.getAll());
  return keys.map((key, i) => [key, calls[i]]).filter(([, call]) => call?.chainId === chainId);
}
