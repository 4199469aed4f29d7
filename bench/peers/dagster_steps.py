"""No-op ops in process: 100 in sequence, 1,000 in fan-out. Prints JSON like subak-bench."""
import json, resource, tempfile, time
from dagster import DagsterInstance, In, Nothing, Out, job, op as make

def run(case, count, chain):
    ops = []
    for at in range(count):
        has_need = chain and at > 0
        @make(name=f"s{at:04}", ins={"start": In(Nothing)} if has_need else {}, out=Out(Nothing))
        def step(): pass
        ops.append(step)
    @job(name="bench")
    def bench():
        last = None
        for at, step in enumerate(ops):
            last = step(last) if chain and at > 0 else step()
    with tempfile.TemporaryDirectory() as folder:
        instance = DagsterInstance.local_temp(folder)
        before, wall = resource.getrusage(resource.RUSAGE_SELF), time.time()
        result = bench.execute_in_process(instance=instance)
        after = resource.getrusage(resource.RUSAGE_SELF)
        assert result.success
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(json.dumps({"case": case, "units": count, "cpu_s": cpu, "wall_s": time.time() - wall, "peak_rss_mib": after.ru_maxrss // 1024}))

run("100 steps in sequence", 100, True)
run("1,000 steps in fan-out", 1000, False)
