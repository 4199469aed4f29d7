"""365 daily partitions of one asset, each materialized by a run in process, kept in an instance on disk; each writes one row into a DuckDB file."""
import tempfile, pathlib
import duckdb
from dagster import AssetExecutionContext, DagsterInstance, DailyPartitionsDefinition, asset, materialize

days = DailyPartitionsDefinition(start_date="2023-01-01", end_date="2024-01-01")
folder = tempfile.TemporaryDirectory()
path = str(pathlib.Path(folder.name) / "w.duckdb")

@asset(partitions_def=days)
def gold_days(context: AssetExecutionContext):
    with duckdb.connect(path) as connection:
        connection.execute("create table if not exists gold_days (day date, amount integer)")
        connection.execute("begin")
        connection.execute("delete from gold_days where day = ?", [context.partition_key])
        connection.execute("insert into gold_days values (?, 1)", [context.partition_key])
        connection.execute("commit")

with tempfile.TemporaryDirectory() as home:
    instance = DagsterInstance.local_temp(home)
    for key in days.get_partition_keys():
        assert materialize([gold_days], partition_key=key, instance=instance).success
    print(f"{len(days.get_partition_keys())} made, in process, without its daemon")
