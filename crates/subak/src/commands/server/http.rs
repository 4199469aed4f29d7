//! What a server counts, and which of its sensors are told things over HTTP.

#![expect(clippy::cast_precision_loss, reason = "what is counted is shown as floating point numbers")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use subak_domain::{Freshness, FreshnessStatus, RunState, RunStatus, Sensor, Watch};
use subak_engine::{Clock, Connections, SystemClock};
use subak_server::{Hook, Kind, Metric, Sample};
use subak_store::SqliteStore;

use crate::freshness;
use crate::open::ProjectConnections;
use crate::printer::Printer;
use crate::project::Opened;

/// Assets whose age and rows are shown; more would be a burden for whoever collects them.
const ASSET_COUNT_MAX: usize = 10_000;

/// Sensors that are told things, by name.
pub(in crate::commands) type Hooks = Arc<BTreeMap<String, Hook>>;

/// Runs that ended.
#[derive(Debug, Default)]
struct Ended {
    count: u64,
    seconds: f64,
}

/// Steps of runs that ended.
#[derive(Debug, Default)]
struct Steps {
    by_status: BTreeMap<&'static str, u64>,
    seconds: f64,
    rows_read: u64,
    rows_written: u64,
    rows_rejected: u64,
}

impl Steps {
    fn add(&mut self, state: &RunState) {
        for step in state.steps.values() {
            *self.by_status.entry(step.status.as_str()).or_default() += 1;
            let Some(outcome) = &step.outcome else { continue };
            self.seconds += outcome.elapsed_ms as f64 / 1000.0;
            if let Some(account) = outcome.account {
                self.rows_read += account.read;
                self.rows_written += account.written;
                self.rows_rejected += account.rejected;
            }
        }
    }
}

/// A job and a status.
type JobStatus = (String, &'static str);

/// What has been counted since the process began.
#[derive(Debug, Default)]
pub(in crate::commands) struct Counts {
    /// Runs that ended and the seconds that they took, by job and status.
    ended: Mutex<BTreeMap<JobStatus, Ended>>,
    /// What came of the steps of these runs.
    steps: Mutex<Steps>,
    /// How long the last renewal of the right to act took, in microseconds: the state was written for it.
    pub(in crate::commands) write_us: AtomicU64,
    /// Deliveries by sensor.
    delivered: Mutex<BTreeMap<String, u64>>,
    /// Whether the server takes on no more work.
    pub(in crate::commands) is_stopping: AtomicBool,
    /// Whether the files of the project have errors just now.
    pub(in crate::commands) is_broken: AtomicBool,
    /// Whether the state cannot be written just now.
    pub(in crate::commands) is_stalled: AtomicBool,
}

impl Counts {
    /// Begins to count jobs: each has its numbers before it has had a run, so that the first one is seen to come.
    pub(in crate::commands) fn begin<'j>(&self, jobs: impl Iterator<Item = &'j String>) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        for job in jobs {
            for status in [RunStatus::Succeeded, RunStatus::Failed, RunStatus::Canceled] {
                ended.entry((job.clone(), status.as_str())).or_default();
            }
        }
    }

    /// Counts a delivery that was kept.
    pub(in crate::commands) fn delivered(&self, sensor: String) {
        *self.delivered.lock().unwrap_or_else(PoisonError::into_inner).entry(sensor).or_default() += 1;
    }

    /// Counts a run that ended.
    pub(in crate::commands) fn ended(&self, state: &RunState, elapsed_ms: u64) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = ended.entry((state.job.clone().unwrap_or_default(), state.status.as_str())).or_default();
        entry.count += 1;
        entry.seconds += elapsed_ms as f64 / 1000.0;
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).add(state);
    }
}

/// The sensors that are told things. One whose secret is not there takes nothing, and says so.
pub(in crate::commands) fn hooks(sensors: &[Sensor], connections: &ProjectConnections, printer: Printer) -> Hooks {
    let mut hooks = BTreeMap::new();
    for sensor in sensors {
        let Watch::Webhook { secret, signature_header } = &sensor.watch else { continue };
        let found = connections.resolve(secret, &mut str::to_owned);
        match found {
            Ok(secret) if !secret.is_empty() => {
                let hook = Hook { secret: subak_domain::Secret::new(secret), signature_header: signature_header.clone() };
                hooks.insert(sensor.name.clone(), hook);
            }
            Ok(_) => printer.note(&format!("the sensor `{}` takes nothing: its secret is empty", sensor.name)),
            Err(error) => printer.note(&format!("the sensor `{}` takes nothing: {error}", sensor.name)),
        }
    }
    Arc::new(hooks)
}

fn one(value: f64) -> Vec<Sample> {
    vec![Sample { labels: Vec::new(), value }]
}

fn gauge(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Metric {
    Metric { name, help, kind: Kind::Gauge, samples }
}

fn counter(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Metric {
    Metric { name, help, kind: Kind::Counter, samples }
}

fn of_store(store: &SqliteStore, opened: Option<&Opened>) -> Result<Vec<Metric>, String> {
    let failed = |error: subak_store::StoreError| error.to_string();
    let (now, counts) = (SystemClock.now(), store.run_counts().map_err(failed)?);
    let queued = counts.by_status.iter().find(|(status, _)| status == "queued").map_or(0, |(_, count)| *count);
    let by_status = |(status, count): (String, u64)| Sample { labels: vec![("status", status)], value: count as f64 };
    let age = counts.queued_since.map_or(0.0, |oldest| now.duration_since(oldest).as_secs_f64().max(0.0));
    let snapshot = store.snapshot().map_err(failed)?;
    let latest: Vec<_> = snapshot.latest.iter().take(ASSET_COUNT_MAX).collect();
    let of = |asset: &subak_domain::AssetKey, value: f64| Sample { labels: vec![("asset", asset.to_string())], value };
    let ages = latest.iter().map(|(asset, latest)| of(asset, now.duration_since(latest.confirmed_at).as_secs_f64())).collect();
    let rows = latest.iter().filter_map(|(asset, latest)| Some(of(asset, latest.row_count? as f64))).collect();
    let assets = opened.map(|opened| opened.graph().assets()).unwrap_or_default();
    let is_late = |found: Freshness| f64::from(found.status == FreshnessStatus::Late);
    let late = assets.iter().filter_map(|asset| Some(of(&asset.key, is_late(freshness::of(asset, &snapshot, now)?))));
    let late = late.take(ASSET_COUNT_MAX).collect();
    let exports = opened.map(|opened| opened.project.config.exports.keys()).into_iter().flatten();
    let newest = store.newest_position().map_err(failed)?;
    let told = |name: &String| Some((name.clone(), store.exported(name).ok().flatten()?));
    let behind = exports
        .filter_map(told)
        .map(|(name, position)| Sample { labels: vec![("export", name)], value: newest.saturating_sub(position) as f64 });
    let behind = behind.collect();
    let size = std::fs::metadata(store.path()).map_or(0, |metadata| metadata.len());
    Ok(vec![
        gauge("subak_runs", "Runs that are kept, by status", counts.by_status.into_iter().map(by_status).collect()),
        gauge("subak_queue_runs", "Runs that wait to be begun", one(queued as f64)),
        gauge("subak_queue_age_seconds", "How long the oldest of them has waited", one(age)),
        gauge("subak_asset_age_seconds", "Time since an asset was last found up to date", ages),
        gauge("subak_asset_late", "Whether an asset is older than its freshness policy lets it be", late),
        gauge("subak_asset_rows", "Rows of an asset, where they are known", rows),
        gauge("subak_store_bytes", "Size of the state", one(size as f64)),
        gauge("subak_export_behind_events", "Events of the log that a system was not told yet", behind),
    ])
}

impl Counts {
    fn of_process(&self) -> Vec<Metric> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |(job, status): &JobStatus, value: f64| {
            let labels = vec![("job", job.clone()), ("status", (*status).to_owned())];
            Sample { labels, value }
        };
        let runs = ended.iter().map(|(key, ended)| of(key, ended.count as f64)).collect();
        let seconds = ended.iter().map(|(key, ended)| of(key, ended.seconds)).collect();
        let delivered = self.delivered.lock().unwrap_or_else(PoisonError::into_inner);
        let told = |(sensor, count): (&String, &u64)| Sample { labels: vec![("sensor", sensor.clone())], value: *count as f64 };
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let of_status =
            |(status, count): (&&str, &u64)| Sample { labels: vec![("status", (*status).to_owned())], value: *count as f64 };
        let by_status = steps.by_status.iter().map(of_status).collect();
        let version = vec![Sample { labels: vec![("version", env!("CARGO_PKG_VERSION").to_owned())], value: 1.0 }];
        let is_broken = self.is_broken.load(Ordering::Relaxed);
        let mut metrics = vec![
            gauge("subak_build_info", "The version that runs", version),
            gauge(
                "subak_project_broken",
                "Whether the files of the project have errors, so that the last version without goes on",
                one(f64::from(is_broken)),
            ),
            gauge(
                "subak_state_stalled",
                "Whether the state cannot be written just now, so that everything waits",
                one(f64::from(self.is_stalled.load(Ordering::Relaxed))),
            ),
            counter("subak_runs_ended", "Runs that have ended since the process began", runs),
            counter("subak_run_seconds", "Time that these runs took", seconds),
            counter("subak_steps_ended", "Steps of these runs, by what came of them", by_status),
            counter("subak_step_seconds", "Time that steps which succeeded took", one(steps.seconds)),
            counter("subak_rows_read", "Rows that these steps read from sources", one(steps.rows_read as f64)),
            counter("subak_rows_written", "Rows that they wrote", one(steps.rows_written as f64)),
            counter("subak_rows_rejected", "Rows that they refused", one(steps.rows_rejected as f64)),
            gauge(
                "subak_state_write_seconds",
                "How long it last took to write the state durably",
                one(self.write_us.load(Ordering::Relaxed) as f64 / 1e6),
            ),
            counter(
                "subak_deliveries",
                "Deliveries that sensors were told since the process began",
                delivered.iter().map(told).collect(),
            ),
        ];
        if let Ok(usage) = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF) {
            let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
            metrics.push(counter(
                "process_cpu_seconds",
                "CPU time of the process",
                one(seconds(usage.user_time()) + seconds(usage.system_time())),
            ));
            // Kibibytes, as the kernel counts them.
            metrics.push(gauge(
                "process_peak_memory_bytes",
                "The most memory that the process had",
                one(usage.max_rss() as f64 * 1024.0),
            ));
        }
        metrics
    }
}

/// What a server counts: of the process, and of the state.
pub(in crate::commands) fn metrics(counts: &Counts, store: &SqliteStore, opened: Option<&Opened>) -> Result<Vec<Metric>, String> {
    let mut metrics = counts.of_process();
    metrics.extend(of_store(store, opened)?);
    Ok(metrics)
}
