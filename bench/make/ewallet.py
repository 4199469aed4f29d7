#!/usr/bin/env python3
"""E-wallet data at scale, the same bytes on every machine: each value is a hash of seed, stream and position.

  ewallet.py tables FOLDER     users.csv, merchants.csv and 1,000,000 rows in transactions.csv: tabs, no header, no quotes (seed 1007)
  ewallet.py events FOLDER     cdc_events.jsonl: 1,000,000 change events on 300,000 keys, some late, about 1 % twice (seed 1008)
  ewallet.py documents FOLDER  transactions.jsonl: 1,000,000 documents with missing, odd and unknown fields (seed 1009)
"""
import datetime, hashlib, json, pathlib, sys
import numpy as np

EPOCH = datetime.datetime(2025, 1, 1)
STATUS = ["SUCCESS"] * 17 + ["FAILED"] * 2 + ["PENDING"]
CATEGORIES = ["F&B", "Retail", "Transport", "Utility", "Entertainment"]
FIRST_NAMES = ["Andi", "Budi", "Citra", "Dewi", "Eka", "Fajar", "Gita", "Hadi", "Indah", "Joko", "Kartika", "Lina", "Made", "Nia", "Oka", "Putri"]
LAST_NAMES = ["Setiawan", "Santoso", "Lestari", "Wijaya", "Pratama", "Sirait", "Nugraha", "Hidayat", "Utami", "Siregar", "O'Brien", "Muñoz", "Nguyễn"]
EDGES = [1, 999999, 1000000, 1000001, 4999999, 5000000, 5000001, 9999999, 10000000, 10000001, 14999999, 15000000, 99999999, 100000000, 100000001, 9999999999]
USER_COUNT, MERCHANT_COUNT = 20_000, 500

def mix(x):
    """The finalizer of splitmix64."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))

class Random:
    def __init__(self, seed):
        self.seed = seed

    def u64(self, stream, count, start=0):
        digest = hashlib.blake2b(f"{self.seed}/{stream}".encode(), digest_size=8).digest()
        with np.errstate(over="ignore"):
            return mix(mix(np.arange(start, start + count, dtype=np.uint64) + np.uint64(int.from_bytes(digest, "little"))))

    def below(self, stream, count, bound, start=0):
        return (self.u64(stream, count, start) % np.uint64(bound)).astype(np.int64)

    def unit(self, stream, count, start=0):
        return (self.u64(stream, count, start) >> np.uint64(11)).astype(np.float64) / float(1 << 53)

def users(random):
    first, last = random.below("u.f", USER_COUNT, len(FIRST_NAMES)), random.below("u.l", USER_COUNT, len(LAST_NAMES))
    age = random.below("u.t", USER_COUNT, 86400 * 700)
    for k in range(USER_COUNT):
        at = EPOCH - datetime.timedelta(seconds=int(age[k]) + 1)
        yield k + 1, f"{FIRST_NAMES[first[k]]} {LAST_NAMES[last[k]]}", f"user{k + 1}@mail.example", f"0812{k + 1:08d}", at, at

def merchants(random):
    category, status = random.below("m.c", MERCHANT_COUNT, 5), random.below("m.s", MERCHANT_COUNT, 12)
    age = random.below("m.t", MERCHANT_COUNT, 86400 * 900)
    for k in range(MERCHANT_COUNT):
        at = EPOCH - datetime.timedelta(seconds=int(age[k]) + 1)
        name = f"Merchant {101 + k}" + (" & Co, Ltd" if k % 7 == 3 else "")
        yield 101 + k, name, CATEGORIES[category[k]], (["ACTIVE"] * 10 + ["INACTIVE", "BANNED"])[status[k]], at, at

def cents(random, count, start=0):
    scale, value = random.below("t.exp", count, 5, start), random.below("t.amt", count, 900000, start)
    edge, which = random.below("t.edge", count, 50, start), random.below("t.b", count, len(EDGES), start)
    return np.where(edge == 0, np.array(EDGES)[which], (100000 + value) * np.array([1, 3, 10, 60, 400])[scale])

def transactions(random, count, start, days, total):
    """User, merchant, cents, status and seconds since EPOCH: skewed, and roughly in order, with ties and jitter."""
    at = np.arange(start, start + count) * (days * 86400 - 7200) // total + random.below("t.jit", count, 7200, start)
    user, merchant = random.unit("t.u", count, start), random.unit("t.m", count, start)
    return ((user * user * USER_COUNT).astype(np.int64) + 1, (merchant * merchant * MERCHANT_COUNT).astype(np.int64) + 101,
            cents(random, count, start), random.below("t.s", count, len(STATUS), start), at)

def money(value):
    return f"{value // 100}.{value % 100:02d}"

def time(seconds):
    return (EPOCH + datetime.timedelta(seconds=int(seconds))).strftime("%Y-%m-%d %H:%M:%S")

def write_tables(folder, random, total=1_000_000, part=500_000):
    for name, rows in [("users", users(random)), ("merchants", merchants(random))]:
        (folder / f"{name}.csv").write_text("".join("%s\t%s\t%s\t%s\t%s\t%s\n" % row for row in rows), encoding="utf-8")
    status = np.array(STATUS)
    with open(folder / "transactions.csv", "w", encoding="utf-8") as file:
        for start in range(0, total, part):
            count = min(part, total - start)
            user, merchant, amount, state, at = transactions(random, count, start, 90, total)
            times = np.char.replace((np.datetime64(EPOCH, "s") + at.astype("timedelta64[s]")).astype(str), "T", " ")
            rows = zip(user.tolist(), merchant.tolist(), amount.tolist(), status[state].tolist(), times.tolist())
            file.writelines(f"TX{start + i + 1001}\t{u}\t{m}\t{money(c)}\t{s}\t{t}\t{t}\t{t}\n" for i, (u, m, c, s, t) in enumerate(rows))

def write_documents(folder, random, total=1_000_000, part=100_000):
    devices, promos = ["Android", "iOS", "Web", "POS"], ["", "HEMAT10", "GAJIAN", "CASHBACK5"]
    with open(folder / "transactions.jsonl", "w", encoding="utf-8") as file:
        for start in range(0, total, part):
            user, merchant, amount, state, at = transactions(random, part, start, 90, total)
            device, promo, edge = random.below("d.dev", part, 6, start), random.below("d.pro", part, 6, start), random.below("d.edge", part, 24, start)
            for i in range(part):
                metadata = {}
                if device[i] < 4:
                    metadata["device"] = devices[device[i]]
                if promo[i] < 4:
                    metadata["promo"] = promos[promo[i]]
                value = int(amount[i])
                document = {"_id": f"{int(random.u64('oid', 1, start + i)[0]):016x}{start + i:08x}", "user_id": int(user[i]), "merchant_id": int(merchant[i]),
                            "amount": value / 100 if value % 100 else value // 100, "currency": "IDR", "transaction_time": time(at[i]),
                            "status": STATUS[state[i]], "metadata": metadata}
                if edge[i] == 0:
                    del document["metadata"]
                elif edge[i] == 1:
                    document["metadata"] = None
                elif edge[i] == 2:
                    document["metadata"] = "not an object"
                elif edge[i] == 3:
                    metadata["geo"] = {"lat": -6.2, "lon": 106.8}
                    document["channel"] = "app"
                file.write(json.dumps(document, separators=(",", ":")) + "\n")

def write_events(folder, random, total=1_000_000, key_count=300_000):
    key, amount, operation = random.below("c.key", total, key_count), cents(random, total), random.below("c.op", total, 20)
    state, delay, chance = random.below("c.s", total, len(STATUS)), random.below("c.j", total, 3600), random.below("c.x", total, 100)
    user, merchant = random.below("c.u", key_count, USER_COUNT) + 1, random.below("c.m", key_count, MERCHANT_COUNT) + 101
    seen, earlier = np.zeros(key_count, dtype=bool), None
    with open(folder / "cdc_events.jsonl", "w", encoding="utf-8") as file:
        for i in range(total):
            k = int(key[i])
            # 20 in 100 carry a later version: they overtake their successors.
            version = i * (86400 * 30 // total) + (int(delay[i]) if chance[i] < 20 else 0)
            word = "INSERT" if not seen[k] else ("DELETE" if operation[i] < 2 else "UPDATE")
            seen[k] = True
            event = {"op": word, "transaction_id": f"TX{k + 1001}", "user_id": int(user[k]), "merchant_id": int(merchant[k]), "amount": money(int(amount[i])),
                     "status": STATUS[state[i]], "transaction_time": time(k * 60), "_version": time(version)}
            line = json.dumps(event, separators=(",", ":")) + "\n"
            file.write(line)
            if chance[i] == 99 and earlier:
                file.write(earlier)
            earlier = line if chance[i] % 10 == 0 else earlier

if __name__ == "__main__":
    kind, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    write, seed = {"tables": (write_tables, 1007), "events": (write_events, 1008), "documents": (write_documents, 1009)}[kind]
    write(folder, Random(seed))
