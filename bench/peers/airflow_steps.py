"""No-op tasks through `dag.test()`, in this process and without a scheduler: 100 in sequence, 1,000 in fan-out. Prints JSON like subak-bench.

A run through the scheduler costs more: this is the least that Airflow needs."""
import json, logging, os, resource, subprocess, sys, tempfile, time

home = tempfile.TemporaryDirectory()
os.environ.update({
    "AIRFLOW_HOME": home.name, "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR", "AIRFLOW__CORE__DAGS_FOLDER": f"{home.name}/dags",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
})
DAGS = '''
from datetime import datetime
from airflow.sdk import DAG
from airflow.providers.standard.operators.python import PythonOperator

def nothing():
    return None

def made(name, count, is_chain):
    with DAG(dag_id=name, schedule=None, start_date=datetime(2024, 1, 1), catchup=False) as dag:
        last = None
        for at in range(count):
            task = PythonOperator(task_id=f"s{at:04}", python_callable=nothing)
            if is_chain and last is not None:
                last >> task
            last = task
    return dag

chain = made("chain", 100, True)
fan = made("fan", 1000, False)
'''
os.makedirs(f"{home.name}/dags")
with open(f"{home.name}/dags/bench.py", "w") as file:
    file.write(DAGS)
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
binary = os.path.join(os.path.dirname(sys.executable), "airflow")
subprocess.run([binary, "db", "migrate"], check=True, **quiet)
subprocess.run([binary, "dags", "reserialize"], check=True, **quiet)

def used():
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime

def measure(case, name, count):
    before, wall = used(), time.time()
    subprocess.run([binary, "dags", "test", name], check=True, **quiet)
    print(json.dumps({"case": case, "units": count, "cpu_s": used() - before, "wall_s": time.time() - wall,
                      "peak_rss_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024}), flush=True)

measure("100 steps in sequence", "chain", 100)
measure("1,000 steps in fan-out", "fan", 1000)
