"""What the cases share: where things are, peers, and what a process costs."""
import os, pathlib, shutil, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("SUBAK_CACHE", pathlib.Path.home() / ".cache/subak"))
TARGET = pathlib.Path(subprocess.check_output([ROOT / "scripts/target-dir"], text=True).strip()) / "release"
SUBAK = TARGET / "subak"
DATA = CACHE / "bench-data"
ROUNDS = 3
# Prefect 3.8.8 does not start with the newest FastAPI that it allows.
PEERS = {
    "dagster": ["dagster==1.13.28", "duckdb==1.5.6"],
    "prefect": ["prefect==3.8.8", "fastapi==0.139.0"],
    "airflow": ["apache-airflow==3.3.2"],
    "postgres": ["duckdb==1.5.5", "duckdb-extension-postgres-scanner==1.5.5"],
    "mariadb": ["connectorx==0.4.6", "duckdb==1.5.6", "pyarrow==26.0.1"],
    "files": ["duckdb==1.5.6", "pandas==3.1.1", "pyarrow==26.0.1"],
}

def peer(name):
    """The Python that has a peer."""
    folder = CACHE / f"bench-{name}"
    wanted = " ".join(PEERS[name])
    if not (folder / "ok").exists() or (folder / "ok").read_text() != wanted:
        print(f"bench: installing {wanted}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin/pip", "install", "--quiet", *PEERS[name]], check=True)
        (folder / "ok").write_text(wanted)
    return folder / "bin/python"

def made(name, make):
    """A folder of generated data; made once."""
    folder = DATA / name
    if not (folder / "ok").exists():
        print(f"bench: generating {name}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder)
        (folder / "ok").write_text("")
    return folder

def cost(command, **options):
    """CPU seconds, wall seconds and peak MiB of a process and whatever it waited for."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=errors, text=True, **options)
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        errors.seek(0)
        err = errors.read()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"bench: {' '.join(map(str, command))} ended with {process.returncode}\n{out}\n{err}")
    return {"cpu_s": usage.ru_utime + usage.ru_stime, "wall_s": time.perf_counter() - start, "peak_rss_mib": usage.ru_maxrss // 1024, "out": out}

def paired(case, runs, rounds=ROUNDS):
    """Runs every tool in turn, `rounds` times, and prints the cheapest round of each beside the first tool's. A run is a function that
    returns a cost; what it does besides is not counted."""
    best = {}
    for _ in range(rounds):
        for name, run in runs.items():
            found = run()
            if name not in best or found["cpu_s"] < best[name]["cpu_s"]:
                best[name] = found
    own = next(iter(best.values()))["cpu_s"]
    for name, found in best.items():
        print(f"{case:<34} {name:<28} {found['cpu_s']:8.2f} s CPU {found['wall_s']:8.2f} s wall {found['peak_rss_mib']:6} MiB   "
              f"subak needs {own / found['cpu_s']:5.2f} x", flush=True)
    return best
