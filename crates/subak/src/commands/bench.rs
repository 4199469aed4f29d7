//! `subak bench`.

use std::time::Duration;

use futures::StreamExt;
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use subak_connect::{Batch, Connection, LoadRequest, ReadRequest, SourceItem, TableName, convert};
use subak_domain::{ConnectionName, LoadId, RunId, StepId, WriteMode};
use subak_engine::Connections;
use subak_project::Config;

use super::Context;
use super::run::Hold;
use crate::args::{BenchCommand, BenchMoveArgs, HowToRun};
use crate::exit::{CliError, Exit};
use crate::open::ProjectConnections;
use crate::printer::Table;

/// How long a stage may take to be dropped by itself.
const SWEEP_WAIT: Duration = Duration::from_millis(500);

/// What the process has used so far.
struct Used {
    cpu: Duration,
    wall: Duration,
}

impl Used {
    fn now() -> Self {
        let cpu = getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| {
            let part = |time: nix::sys::time::TimeVal| {
                let micros = time.tv_usec().unsigned_abs() + time.tv_sec().unsigned_abs() * 1_000_000;
                Duration::from_micros(micros)
            };
            part(usage.user_time()) + part(usage.system_time())
        });
        let wall = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        Self { cpu, wall }
    }
}

/// Forgets the peak of the memory so far, where the system lets us.
fn forget_peak() {
    drop(std::fs::write("/proc/self/clear_refs", "5"));
}

/// The peak of the memory in MiB.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib / 1024)
}

/// What one way took.
struct Measured {
    way: String,
    rows: u64,
    bytes: u64,
    used: Used,
    peak_mib: Option<u64>,
}

impl Measured {
    fn row(&self) -> Vec<Value> {
        let per = |amount: u64, time: Duration| {
            let micros = time.as_micros().max(1);
            u64::try_from(u128::from(amount) * 1_000_000 / micros).unwrap_or(u64::MAX)
        };
        let seconds = |time: Duration| Value::String(format!("{}.{:02}", time.as_secs(), time.subsec_millis() / 10));
        vec![
            json!(self.way),
            json!(self.rows),
            json!(self.bytes / 1_048_576),
            seconds(self.used.cpu),
            seconds(self.used.wall),
            json!(per(self.rows, self.used.cpu)),
            json!(per(self.rows, self.used.wall)),
            self.peak_mib.map_or(Value::Null, |peak| json!(peak)),
        ]
    }
}

const COLUMNS: [&str; 8] =
    ["way", "rows", "mib", "cpu_seconds", "wall_seconds", "rows_per_cpu_second", "rows_per_second", "peak_mib"];

pub(super) fn execute(context: &Context<'_>, command: &BenchCommand) -> Result<Exit, CliError> {
    let BenchCommand::Move(args) = command;
    let opened = context.open()?;
    let config = &opened.project.config;
    let from = named(config, &args.connection)?;
    let to: Vec<ConnectionName> = args.to.iter().map(|name| named(config, name)).collect::<Result<_, _>>()?;
    let measured = context.block_on(async {
        if to.is_empty() {
            let connections = ProjectConnections::new(&opened.root, config, context.settings, true);
            return measure(&connections, args, &from, &to).await;
        }
        // Nobody else loads meanwhile: what is left behind is swept away afterwards.
        let hold = Hold::take(context, &opened, &HowToRun { parallel: 1, wait: 0 }).await?;
        let connections = ProjectConnections::new(&opened.root, config, context.settings, false);
        let measured = measure(&connections, args, &from, &to).await;
        hold.give_back().await?;
        measured
    })?;
    let mut table = Table::new("bench", &COLUMNS);
    table.rows.extend(measured.iter().map(Measured::row));
    context.printer.table(&table);
    context.printer.note("CPU and memory are those of this process; those of servers are not in it. Nothing was published.");
    Ok(Exit::Ok)
}

fn named(config: &Config, name: &str) -> Result<ConnectionName, CliError> {
    config
        .connections
        .keys()
        .find(|known| known.as_str() == name)
        .cloned()
        .ok_or_else(|| CliError::not_found("connection", name, config.connections.keys().map(ConnectionName::as_str)))
}

async fn measure(
    connections: &ProjectConnections,
    args: &BenchMoveArgs,
    from: &ConnectionName,
    to: &[ConnectionName],
) -> Result<Vec<Measured>, CliError> {
    let source = connections.open(from).await?;
    let mut measured = vec![take(source.as_ref(), args, None, format!("read from {from}")).await?];
    for name in to {
        let destination = connections.open(name).await?;
        let way = format!("{from} to {name}");
        let taken = take(source.as_ref(), args, Some(destination.as_ref()), way).await;
        // Stages are dropped in the background; what that does not reach is swept.
        tokio::time::sleep(SWEEP_WAIT).await;
        if let Some(sink) = destination.sink() {
            sink.clean_up().await?;
        }
        measured.push(taken?);
    }
    Ok(measured)
}

fn lacks(message: &str) -> CliError {
    let problem = subak_diag::Diagnostic::error(subak_diag::codes::LACKS_ABILITY, message.to_owned());
    CliError::new(problem.help("`subak docs connectors` shows what each type can do"), Exit::Invalid)
}

/// Reads a stream once, and stages it where a destination is given. The stage is dropped and never published.
async fn take(
    source: &dyn Connection,
    args: &BenchMoveArgs,
    destination: Option<&dyn Connection>,
    way: String,
) -> Result<Measured, CliError> {
    let source = source.source().ok_or_else(|| lacks(&format!("`{}` cannot be read", args.connection)))?;
    let options = args.set.iter().filter_map(|pair| pair.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned()));
    let request = ReadRequest { stream: args.stream.clone(), options: options.collect(), ..ReadRequest::default() };
    forget_peak();
    let before = Used::now();
    let (mut rows, mut bytes, mut load) = (0, 0, None);
    let mut items = source.read(request);
    while let Some(item) = items.next().await {
        let SourceItem::Batch(batch) = item? else { continue };
        rows += batch.row_count() as u64;
        bytes += batch.records.get_array_memory_size() as u64;
        let Some(destination) = destination else { continue };
        let batch = Batch::new(convert::to_declared(batch, &std::collections::BTreeMap::new())?.records);
        let open = match &mut load {
            Some(open) => open,
            None => {
                let sink = destination.sink().ok_or_else(|| lacks("a destination cannot be written"))?;
                let table = TableName { schema: None, name: "subak_bench".to_owned() };
                let id = LoadId::new(RunId::from_parts(0, u128::from(std::process::id())), &StepId::check("bench"), &way);
                load.insert(sink.begin(LoadRequest::new(id, table, batch.records.schema(), WriteMode::Replace)).await?)
            }
        };
        open.write(batch).await?;
    }
    if let Some(load) = load {
        drop(load.stage().await?);
    }
    let after = Used::now();
    let used = Used { cpu: after.cpu.saturating_sub(before.cpu), wall: after.wall.saturating_sub(before.wall) };
    Ok(Measured { way, rows, bytes, used, peak_mib: peak_mib() })
}
