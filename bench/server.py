"""Loads on the program itself: a server with its queue, its schedules and programs, and a backfill. Everything is read from the state that it writes."""
import os, pathlib, signal, sqlite3, statistics, subprocess, sys, tempfile, time

from common import ROOT, SUBAK, TARGET, cost, peer

TICKS = os.sysconf("SC_CLK_TCK")

def project(folder, files):
    """A project of these files."""
    for name, text in files.items():
        path = pathlib.Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return pathlib.Path(folder)

CONFIG = "project: bench\nconnections:\n  warehouse: { type: duckdb, path: w.duckdb }\n"
NOOP = "job: noop\nruns_max: 1000\ntasks: { a: { wait: 0s } }\n"

class Server:
    """`subak server start`, watched from outside."""
    def __init__(self, folder, *arguments):
        self.folder, self.began = folder, time.time()
        self.process = subprocess.Popen([SUBAK, "-C", folder, "server", "start", *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if line.startswith("serving") or "serving `" in line:
                break
        self.ready_s = time.time() - self.began
        # What it says later is read, so that it never waits for that.
        self.reader = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)

    def cpu_s(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def status(self, name):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
        return 0

    def rss_mib(self):
        return self.status("VmRSS") // 1024

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.wait()

def ask(folder, sql):
    with sqlite3.connect(f"file:{folder}/.subak/state.db?mode=ro", uri=True, timeout=30) as state:
        return state.execute(sql).fetchall()

def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]

def idle(seconds=60):
    """L17: a server with nothing to do."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(project(folder, {"subak.yml": CONFIG, "jobs/noop.yml": NOOP}))
        time.sleep(5)
        cpu, written = server.cpu_s(), int(pathlib.Path(f"/proc/{server.process.pid}/io").read_text().split("write_bytes: ")[1].split()[0])
        time.sleep(seconds)
        written = int(pathlib.Path(f"/proc/{server.process.pid}/io").read_text().split("write_bytes: ")[1].split()[0]) - written
        share = (server.cpu_s() - cpu) / seconds
        print(f"{'idle server':<34} {share * 100:8.2f} % of a core {server.rss_mib():6} MiB, {written / seconds / 1024:6.1f} KiB/s written, ready in {server.ready_s:.2f} s", flush=True)
        server.stop()

def queue():
    """L2, L12: a server with 100 and with 100,000 runs that wait, one at a time: from the end of one to the beginning of the next."""
    for count in (100, 100_000):
        with tempfile.TemporaryDirectory() as folder:
            project(folder, {"subak.yml": CONFIG, "jobs/noop.yml": NOOP})
            subprocess.run([SUBAK, "-C", folder, "run", "--job", "noop", "-q"], check=True, stdout=subprocess.DEVNULL)
            subprocess.run([TARGET / "subak-bench", "queue", f"{folder}/.subak/state.db", str(count)], check=True)
            server = Server(folder, "--runs", 1)
            wanted, began = min(count, 5_000), time.time()
            while time.time() - began < 120 and ask(folder, "select count(*) from runs where status = 'succeeded'")[0][0] <= wanted:
                time.sleep(0.2)
            cpu, rss, took = server.cpu_s(), server.rss_mib(), time.time() - began
            rows = ask(folder, "select started_at, ended_at from runs where status = 'succeeded' order by started_at")[1:]
            gaps = [(later[0] - earlier[1]) / 1000 for earlier, later in zip(rows, rows[1:])]
            server.stop()
            print(f"{f'{count:,} runs that wait':<34} ready in {server.ready_s:.2f} s, {len(rows)} begun in {took:.1f} s, {cpu / max(1, len(rows)) * 1000:6.2f} ms CPU a run, "
                  f"end to next begin: median {statistics.median(gaps):.2f} ms, p99 {percentile(gaps, 0.99):.2f} ms {rss:6} MiB", flush=True)

def ticks(count=10_000):
    """L9: so many schedules that are due in one minute."""
    with tempfile.TemporaryDirectory() as folder:
        job = lambda at: f"job: j{at}\nschedule: \"* * * * *\"\ntasks: {{ a: {{ wait: 0s }} }}\n"
        jobs = {f"jobs/{at}.yml": "---\n".join(map(job, range(at, at + 1000))) for at in range(0, count, 1000)}
        project(folder, {"subak.yml": CONFIG, **jobs})
        time.sleep((20 - time.time()) % 60)
        server = Server(folder)
        cpu = server.cpu_s()
        due = (int(time.time()) // 60 + 1) * 60
        sql = f"select count(*), max(recorded_at) from ticks where at = {due * 1_000_000}"
        while time.time() < due + 50 and ask(folder, sql)[0][0] < count:
            time.sleep(0.2)
        found, last = ask(folder, sql)[0]
        print(f"{f'{count:,} ticks of one minute':<34} {found} written, the last one {(last or 0) / 1e6 - due:.2f} s behind it, ready in {server.ready_s:.2f} s, "
              f"{server.cpu_s() - cpu:.2f} s CPU until then {server.rss_mib():6} MiB", flush=True)
        server.process.kill()
        server.process.wait()

def programs():
    """L1, L4: programs at a time, and one after the other as fast as it goes."""
    with tempfile.TemporaryDirectory() as folder:
        items = "[" + ", ".join(str(at) for at in range(200)) + "]"
        many = "[" + ", ".join(str(at) for at in range(1000)) + "]"
        project(folder, {"subak.yml": CONFIG, "jobs/all.yml":
            f"job: sleeping\ntasks:\n  all:\n    for_each: {items}\n    tasks: {{ a: {{ run: [sleep, \"20\"] }} }}\n---\n"
            f"job: short\ntasks:\n  all:\n    for_each: {many}\n    tasks: {{ a: {{ run: [\"true\"] }} }}\n"})
        found = cost([SUBAK, "-C", folder, "run", "--job", "sleeping", "--parallel", "200", "-q"])
        print(f"{'200 programs at a time for 20 s':<34} {found['cpu_s']:8.2f} s CPU {found['wall_s']:8.2f} s wall {found['peak_rss_mib']:6} MiB", flush=True)
        found = cost([SUBAK, "-C", folder, "run", "--job", "short", "--parallel", "8", "-q"])
        with tempfile.NamedTemporaryFile("w", suffix=".sh") as script:
            script.write("i=0\nwhile [ $i -lt 1000 ]; do /bin/true; i=$((i+1)); done\n")
            script.flush()
            floor = cost(["/bin/sh", script.name])
        print(f"{'1,000 programs that do nothing':<34} {found['cpu_s']:8.2f} s CPU {found['wall_s']:8.2f} s wall ({1000 / found['wall_s']:.0f} a second) {found['peak_rss_mib']:6} MiB; "
              f"floor: a shell that starts them {floor['cpu_s']:.2f} s CPU, {floor['wall_s']:.2f} s wall", flush=True)

def soak(minutes=4):
    """L15: a hundred runs a minute, with retention at work."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = "job: often\nschedule: { every: 1s }\ntasks: { a: { run: [\"true\"] }, b: { needs: a, query: \"select 1 as one\" } }\n---\njob: more\nschedule: { every: 2s }\nselect: \"*\"\n"
        project(folder, {"subak.yml": CONFIG + "retention: { keep: 30s }\n", "jobs/all.yml": jobs, "assets/gold/now.sql": "/* subak\nstored_as: table\n*/\nselect 1 as id\n"})
        server = Server(folder)
        time.sleep(60)
        before = (server.rss_mib(), len(os.listdir(f"/proc/{server.process.pid}/fd")), server.status("Threads"))
        cpu, began = server.cpu_s(), time.time()
        time.sleep(minutes * 60 - 60)
        after = (server.rss_mib(), len(os.listdir(f"/proc/{server.process.pid}/fd")), server.status("Threads"))
        share = (server.cpu_s() - cpu) / (time.time() - began)
        runs = ask(folder, "select count(*) from runs")[0][0]
        wal = pathlib.Path(folder, ".subak/state.db-wal")
        size = wal.stat().st_size // 1024 if wal.exists() else 0
        print(f"{f'{minutes} minutes of 90 runs a minute':<34} memory {before[0]} then {after[0]} MiB, files {before[1]} then {after[1]}, threads {before[2]} then {after[2]}, "
              f"{share * 100:.1f} % of a core, {runs} runs kept, write-ahead log {size} KiB", flush=True)
        server.stop()

def backfill():
    """365 daily partitions, each a transaction of its own."""
    with tempfile.TemporaryDirectory() as folder:
        sql = "/* subak\npartition: { daily: day, start: 2023-01-01 }\n*/\nselect cast({{ partition.start }} as date) as day, 1 as amount\n"
        project(folder, {"subak.yml": CONFIG, "assets/gold/days.sql": sql})
        found = cost([SUBAK, "-C", folder, "--as-of", "2024-01-01", "backfill", "start", "gold.days", "--partition", "all", "-q"])
        count = ask(folder, "select count(*) from partitions")[0][0]
        print(f"{'365 partitions backfilled':<34} {'subak':<10} {found['cpu_s']:8.2f} s CPU {found['wall_s']:8.2f} s wall {found['peak_rss_mib']:6} MiB, {count} made", flush=True)
        other = cost([peer("dagster"), ROOT / "bench/peers/dagster_backfill.py"])
        print(f"{'365 partitions backfilled':<34} {'dagster':<10} {other['cpu_s']:8.2f} s CPU {other['wall_s']:8.2f} s wall {other['peak_rss_mib']:6} MiB, {other['out'].strip()}; subak needs {found['cpu_s'] / other['cpu_s']:.3f} x", flush=True)

CASES = {"idle": idle, "queue": queue, "ticks": ticks, "programs": programs, "soak": soak, "backfill": backfill}

def server():
    for case in CASES.values():
        case()

if __name__ == "__main__":
    for name in sys.argv[1:] or CASES:
        CASES[name]()
