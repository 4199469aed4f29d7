"""No-op tasks against a local server of their own: 100 in sequence, 1,000 in fan-out. Prints JSON like subak-bench.

CPU seconds are those of this process and of the server that it starts."""
import json, os, pathlib, resource, time
from prefect import flow, task
from prefect.testing.utilities import prefect_test_harness

@task
def step(_=None):
    return 1

@flow
def chain(count):
    last = None
    for _ in range(count):
        last = step(last)

@flow
def fan(count):
    futures = [step.submit() for _ in range(count)]
    for future in futures:
        future.wait()

def descendants(process):
    for task in pathlib.Path(f"/proc/{process}/task").glob("*/children"):
        for child in task.read_text().split():
            yield child
            yield from descendants(child)

def used():
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    total = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    # The server goes on, so that nobody has waited for it: proc(5), fields 14 and 15.
    for process in descendants(os.getpid()):
        try:
            fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total

def measure(case, count, work):
    before, wall = used(), time.time()
    work(count)
    print(json.dumps({"case": case, "units": count, "cpu_s": used() - before, "wall_s": time.time() - wall,
                      "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}), flush=True)

with prefect_test_harness(server_startup_timeout=180):
    measure("100 steps in sequence", 100, chain)
    measure("1,000 steps in fan-out", 1000, fan)
