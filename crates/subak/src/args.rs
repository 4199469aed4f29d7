//! The command line: what can be typed. What it does stands in `commands`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::ArgValueCompleter;
use subak_domain::Role;

use crate::complete;

/// Moves, checks, transforms and orchestrates data.
///
/// Data goes to standard output, everything else to standard error.
///
/// Exit codes: 0 ok; 1 a run or check failed; 2 usage or project invalid; 3 an outside system is unreachable or refused;
/// 4 authentication or permission; 5 `--check` found something to do; 6 somebody else holds what is needed; 7 timed out waiting;
/// 70 a bug of ours; 130 and 143 stopped by a signal.
#[derive(Debug, Parser)]
#[command(name = "subak", version, propagate_version = true, arg_required_else_help = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args, Clone)]
pub(crate) struct Global {
    /// Work on the project in this folder, or in one above it
    #[arg(short = 'C', long = "project", global = true, value_name = "DIR", env = "SUBAK_PROJECT", value_hint = ValueHint::DirPath)]
    pub(crate) project: Option<PathBuf>,
    /// Lay this profile over the settings
    #[arg(long, global = true, value_name = "NAME", env = "SUBAK_PROFILE")]
    pub(crate) profile: Option<String>,
    /// The time that counts as now, in the project's time zone: `{{ as_of }}` in templates. By default today
    #[arg(long, global = true, value_name = "TIME", value_parser = wall_clock)]
    pub(crate) as_of: Option<String>,
    /// Give a variable of templates another value
    #[arg(long = "var", global = true, value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) vars: Vec<(String, String)>,
    /// How results are printed
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Human, env = "SUBAK_OUTPUT")]
    pub(crate) output: Format,
    /// When colours are used; `NO_COLOR` and `CLICOLOR_FORCE` are honoured
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
    /// Show every problem instead of the first 20
    #[arg(long, global = true)]
    pub(crate) all: bool,
    /// Say less: no progress, only results and problems
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables and sentences.
    Human,
    /// One JSON document with a version.
    Json,
    /// One JSON object a line.
    Jsonl,
    /// Comma-separated values with a header.
    Csv,
}

/// When colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write the e-wallet example into a folder, run it twice, say what to look at
    Demo(DemoArgs),
    /// Make a new project that runs offline at once
    Init(InitArgs),
    /// Make a project from the files of another tool, and say what did not map
    #[command(subcommand)]
    Import(ImportCommand),
    /// Show what a source has; or find out and keep which streams the project's patterns name
    Discover(DiscoverArgs),
    /// Load the project and report every problem; touches no outside system
    Validate,
    /// List assets and how they stand
    List(Selection),
    /// Show one asset: definition, state, columns
    Show(KeyArgs),
    /// Write the data catalog as Markdown: assets, columns with their types, meanings and origins, checks
    Catalog(Selection),
    /// Show what an asset is made from and what is made from it
    Lineage(LineageArgs),
    /// Show what a run would do, and why; changes nothing
    Plan(PlanArgs),
    /// Run the unit tests below `tests/`; needs no warehouse
    Test(TestArgs),
    /// Compare tables with their sources, row by row
    Verify(VerifyArgs),
    /// Look at rows that were refused, load them after all, or discard them
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Bring assets up to date; or look at runs with `run list|show|logs|resume`
    #[command(args_conflicts_with_subcommands = true)]
    Run(RunArgs),
    /// Look at the partitions of an asset, and add keys to sets of partitions that grow
    #[command(subcommand)]
    Partition(PartitionCommand),
    /// Bring many partitions up to date, over as many runs as it takes
    #[command(subcommand)]
    Backfill(BackfillCommand),
    /// Look at jobs; `subak run --job NAME` starts one
    #[command(subcommand)]
    Job(JobCommand),
    /// Look at schedules, sensors and automated assets, and at their ticks; switch them on and off
    #[command(subcommand)]
    Automation(AutomationCommand),
    /// Look at the pools of the project: how many of their slots steps have, and which steps wait
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Look after who may sign in to a server
    #[command(subcommand)]
    User(UserCommand),
    /// Make tokens that programs send to a server, and end them
    #[command(subcommand)]
    Token(TokenCommand),
    /// Look at what was done by whom, and whether that list is as it was written
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Look after the state of the project: how much it keeps, copies, what is old
    #[command(subcommand)]
    Db(DbCommand),
    /// Look at what people were told about runs, and test whether they can be told
    #[command(subcommand)]
    Notification(NotificationCommand),
    /// Serve the project
    #[command(subcommand)]
    Server(ServerCommand),
    /// Let an assistant look at the project: the Model Context Protocol on standard input and output
    ///
    /// Tools for the catalog, lineage, plans, runs, logs, checks and queries that only read. A server has the same at `POST /api/v1/mcp`, for whoever
    /// sends a token. Nothing that an assistant can do here changes anything.
    Mcp,
    /// Say in one sentence why an asset, a run or a step stands as it does
    Why(WhyArgs),
    /// Evaluate checks on what the assets hold now
    Check(CheckArgs),
    /// Run a query on a connection and print the rows
    Query(QueryArgs),
    /// Measure
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Explain an error code
    Explain(ExplainArgs),
    /// Read the documentation
    Docs(DocsArgs),
    /// Look for what could go wrong here: versions, clock, disk, permissions, connections
    Doctor,
    /// Print the completion script of a shell
    Completions(CompletionsArgs),
}

/// Which assets are meant.
#[derive(Debug, Args, Clone, Default)]
pub(crate) struct Selection {
    /// Assets: keys with `*`, `+upstream`, `downstream+`, `2+a`, `a+2`, `@a`, `tag:`, `group:`, `owner:`, `path:`, `kind:`,
    /// `changed`, `all`; spaces unite, commas intersect. By default all
    #[arg(value_name = "SELECT", add = ArgValueCompleter::new(complete::assets))]
    pub(crate) select: Vec<String>,
    /// Leave these out
    #[arg(long, value_name = "SELECT", add = ArgValueCompleter::new(complete::assets))]
    pub(crate) exclude: Vec<String>,
}

/// `subak bench`.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Read a stream, and load it into each destination, without leaving anything there; print rows, CPU seconds and peak memory
    Move(BenchMoveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BenchMoveArgs {
    /// The connection that is read
    #[arg(value_name = "CONNECTION")]
    pub(crate) connection: String,
    /// The stream, by its name at the source
    #[arg(value_name = "STREAM")]
    pub(crate) stream: String,
    /// Load it into this connection too; may be given more than once
    #[arg(long, value_name = "CONNECTION")]
    pub(crate) to: Vec<String>,
    /// A key of the stream, for example `ranges=4`; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<String>,
}

fn key_value(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.to_owned()),
        _ => Err("write it as `key=value`".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// An empty or new folder
    #[arg(default_value = "ewallet", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// Transactions to generate
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    pub(crate) transactions: u32,
    /// Only write the project and its data
    #[arg(long)]
    pub(crate) no_run: bool,
}

/// What can be imported.
#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// A replication of Sling
    Sling(ImportSlingArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ImportSlingArgs {
    /// The replication, as YAML or JSON
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Where the project is made: an empty or new folder
    #[arg(default_value = "imported", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// Sling's `env.yaml`, which says what its connections are; passwords in it become secrets of the project
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) env: Option<PathBuf>,
    /// Only say what would map and what would not
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DiscoverArgs {
    /// The connection whose streams are shown
    #[arg(value_name = "CONNECTION", conflicts_with_all = ["save", "check"])]
    pub(crate) connection: Option<String>,
    /// Only streams whose names match, for example `public.*`
    #[arg(long, value_name = "PATTERN", requires = "connection")]
    pub(crate) like: Option<String>,
    /// Look which streams the patterns of the project's ingest files name, and keep them in the `.lock` files beside these
    #[arg(long)]
    pub(crate) save: bool,
    /// Look, and end with code 5 when that is not what the `.lock` files say; write nothing
    #[arg(long, conflicts_with = "save")]
    pub(crate) check: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// An empty or new folder
    #[arg(default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// What the project begins with
    #[arg(long, value_enum, default_value_t = Template::Warehouse)]
    pub(crate) template: Template,
}

/// What a new project begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Template {
    /// A seed and two SQL assets with checks.
    Warehouse,
    /// CSV and NDJSON files loaded into the warehouse.
    Ingest,
}

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// The asset
    #[arg(add = ArgValueCompleter::new(complete::assets))]
    pub(crate) key: String,
}

#[derive(Debug, Args)]
pub(crate) struct LineageArgs {
    /// The asset
    #[arg(add = ArgValueCompleter::new(complete::assets))]
    pub(crate) key: String,
    /// Steps upstream; by default all
    #[arg(long, value_name = "N")]
    pub(crate) up: Option<usize>,
    /// Steps downstream; by default all
    #[arg(long, value_name = "N")]
    pub(crate) down: Option<usize>,
    /// How the graph is drawn
    #[arg(long, value_enum, default_value_t = LineageFormat::Tree)]
    pub(crate) format: LineageFormat,
    /// Follow columns instead of assets
    #[arg(long)]
    pub(crate) columns: bool,
}

/// How a graph is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LineageFormat {
    /// Indented text.
    Tree,
    /// A Mermaid flow chart.
    Mermaid,
    /// Nodes and edges.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Rebuild everything that is selected from nothing
    #[arg(long)]
    pub(crate) full_refresh: bool,
    /// Only these partitions: a key, `FIRST..LAST`, `latest`, `missing`, `failed`, `all`. By default those that need it
    #[arg(long, value_name = "KEY", value_delimiter = ',', conflicts_with = "full_refresh")]
    pub(crate) partition: Vec<String>,
    /// Exit with 5 when there is something to do
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(subcommand)]
    pub(crate) command: Option<RunCommand>,
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Rebuild everything that is selected from nothing
    #[arg(long)]
    pub(crate) full_refresh: bool,
    /// Read only rows whose cursor is at or above this value, and leave the cursor where it is
    #[arg(long, value_name = "VALUE", conflicts_with = "full_refresh")]
    pub(crate) from: Option<String>,
    /// Read only rows whose cursor is below this value, and leave the cursor where it is
    #[arg(long, value_name = "VALUE", conflicts_with = "full_refresh")]
    pub(crate) until: Option<String>,
    /// Only these partitions: a key, `FIRST..LAST`, `latest`, `missing`, `failed`, `all`. By default those that need it
    #[arg(long, value_name = "KEY", value_delimiter = ',', conflicts_with_all = ["full_refresh", "from", "until"])]
    pub(crate) partition: Vec<String>,
    /// Start this job instead of bringing selected assets up to date
    #[arg(long, value_name = "NAME", conflicts_with_all = ["select", "exclude", "full_refresh", "from", "until", "partition"])]
    pub(crate) job: Option<String>,
    /// A parameter of the job; may be given more than once
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value, requires = "job")]
    pub(crate) set: Vec<String>,
    /// Show the plan and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) how: HowToRun,
}

/// `subak server`.
#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Serve the project: start jobs by their schedules, and run what other commands hand over
    Start(ServerStartArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ServerStartArgs {
    /// Runs that go on at a time; two that bring the same asset up to date never do
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64), env = "SUBAK_RUNS")]
    pub(crate) runs: u16,
    /// Serve the web app and the HTTP interface there. An address of this machine, such as 127.0.0.1:7070
    #[arg(long, value_name = "ADDRESS", env = "SUBAK_LISTEN")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// A name by which HTTP requests may call the server, besides `localhost`; may be repeated
    #[arg(long, value_name = "NAME", requires = "listen")]
    pub(crate) host: Vec<String>,
    /// Where a proxy puts the server below its host, such as /data/subak
    #[arg(long, value_name = "PATH", requires = "listen", default_value = "")]
    pub(crate) path_prefix: String,
    #[command(flatten)]
    pub(crate) how: HowToRun,
}

/// `subak automation`.
#[derive(Debug, Subcommand)]
pub(crate) enum AutomationCommand {
    /// List schedules, sensors and automated assets, how they stand, and when they come next
    List,
    /// Show the newest ticks of a schedule, those too that started nothing, of a sensor, or of an automated asset
    Show(AutomationShowArgs),
    /// Switch one on; ticks that came while a schedule was off are not made good, a sensor goes on where it was
    On(AutomationArgs),
    /// Switch one off
    Off(AutomationArgs),
    /// Show the next ticks of a schedule, what a sensor would start, or which conditions of an asset are true; start nothing
    Test(AutomationTestArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AutomationArgs {
    /// The job that has the schedule, the sensor, or the asset
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct AutomationShowArgs {
    /// The job that has the schedule, the sensor, or the asset
    pub(crate) name: String,
    /// Ticks to show
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct AutomationTestArgs {
    /// The job that has the schedule, the sensor, or the asset
    pub(crate) name: String,
    /// Of a schedule: from this moment on: `2026-03-29T00:00:00Z`, or a time of its clock. By default now
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// Of a schedule: ticks to show
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) limit: usize,
}

/// `subak pool`.
#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// List the pools, and the connections with `parallel:`, with how much of each is taken
    List,
    /// Show the steps that have slots of a pool, and those that wait for some
    Show(PoolArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PoolArgs {
    /// The pool, or the connection
    pub(crate) name: String,
}

/// `subak user`.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// List everybody who may sign in
    List,
    /// Add somebody; their password is read from standard input
    Add(UserAddArgs),
    /// Change what somebody may, shut them out or let them in, or set another password; their sessions end
    Set(UserSetArgs),
    /// Remove somebody, with their sessions and tokens
    Remove(UserArgs),
}

/// What somebody may do.
#[derive(Debug, Args)]
pub(crate) struct GrantArgs {
    /// viewer, operator, editor or admin
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Role,
    /// Let a viewer read what programs wrote
    #[arg(long)]
    pub(crate) logs: bool,
    /// Let a viewer see rows of tables
    #[arg(long)]
    pub(crate) data: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UserAddArgs {
    /// The name to sign in with
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) grants: GrantArgs,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("change").required(true).multiple(true)))]
pub(crate) struct UserSetArgs {
    /// The user
    pub(crate) name: String,
    /// Another role
    #[arg(long, value_name = "ROLE", group = "change")]
    pub(crate) role: Option<Role>,
    /// Whether they may read what programs wrote, whatever their role
    #[arg(long, value_name = "BOOL", group = "change")]
    pub(crate) logs: Option<bool>,
    /// Whether they may see rows of tables, whatever their role
    #[arg(long, value_name = "BOOL", group = "change")]
    pub(crate) data: Option<bool>,
    /// `false` shuts them out, `true` lets them in again
    #[arg(long, value_name = "BOOL", group = "change")]
    pub(crate) active: Option<bool>,
    /// Set another password, which is read from standard input
    #[arg(long, group = "change")]
    pub(crate) password_stdin: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UserArgs {
    /// The user
    pub(crate) name: String,
}

/// `subak token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// List tokens, without their secrets
    List,
    /// Make a token for a program, and print its secret, once
    Create(TokenCreateArgs),
    /// End a token
    Revoke(TokenArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TokenCreateArgs {
    /// What it is for
    pub(crate) name: String,
    /// The user whose token it is; it may do no more than they may
    #[arg(long, value_name = "NAME")]
    pub(crate) user: String,
    #[command(flatten)]
    pub(crate) grants: GrantArgs,
    /// Days until it ends
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=365))]
    pub(crate) days: u32,
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// The id that `subak token list` shows
    pub(crate) id: String,
}

/// `subak audit`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Show what was done by whom, the newest first
    List(AuditListArgs),
    /// Prove that no entry was changed or taken out since it was written
    Verify,
}

#[derive(Debug, Args)]
pub(crate) struct AuditListArgs {
    /// Entries to show
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: usize,
}

/// `subak db`.
#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Show how much the state keeps, and how much of it is old
    Status,
    /// Check the file for damage
    Check,
    /// Write a copy of the state to a new file; commands and a server may go on meanwhile
    Backup(DbBackupArgs),
    /// Remove what is older than `retention:` says; a server does so each hour, `subak run` once a day
    Purge(DbPurgeArgs),
    /// Give the room of what was removed back to the file system
    Vacuum,
}

#[derive(Debug, Args)]
pub(crate) struct DbBackupArgs {
    /// The file
    pub(crate) path: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DbPurgeArgs {
    /// Another age than that of `retention:`
    #[arg(long, value_name = "DAYS")]
    pub(crate) older_than: Option<u32>,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `subak backfill`.
#[derive(Debug, Subcommand)]
pub(crate) enum BackfillCommand {
    /// Start one; a server takes it over, else it is done here
    Start(BackfillStartArgs),
    /// List backfills, newest first
    List(BackfillListArgs),
    /// Show how one stands, and what it waits for
    Show(BackfillIdArgs),
    /// Start nothing more of it; the run that goes on is finished
    Pause(BackfillIdArgs),
    /// Go on with one that was paused, or whose process is gone
    Resume(BackfillResumeArgs),
    /// Give it up; its run is stopped, and what is done stays
    Cancel(BackfillIdArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BackfillStartArgs {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// The partitions: a key, `FIRST..LAST`, `latest`, `missing`, `failed`, `all`
    #[arg(long, value_name = "KEY", value_delimiter = ',', default_value = "missing")]
    pub(crate) partition: Vec<String>,
    /// Partitions in one run
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) per_run: u64,
    /// Begin with the last partitions
    #[arg(long)]
    pub(crate) newest_first: bool,
    /// Show what it would be about, and start nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) how: HowToRun,
}

#[derive(Debug, Args)]
pub(crate) struct BackfillListArgs {
    /// Backfills to show
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct BackfillIdArgs {
    /// Its id, the beginning of it, or `last`
    #[arg(value_name = "ID")]
    pub(crate) backfill: String,
}

#[derive(Debug, Args)]
pub(crate) struct BackfillResumeArgs {
    /// Its id, the beginning of it, or `last`
    #[arg(value_name = "ID")]
    pub(crate) backfill: String,
    #[command(flatten)]
    pub(crate) how: HowToRun,
}

/// `subak partition`.
#[derive(Debug, Subcommand)]
pub(crate) enum PartitionCommand {
    /// List the partitions of an asset and how they stand, the last ones first
    List(PartitionListArgs),
    /// Add keys to a set of dynamic partitions; those that it has stay as they are
    Add(PartitionKeysArgs),
    /// Remove keys from a set of dynamic partitions; their rows stay where they are
    Remove(PartitionKeysArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PartitionListArgs {
    /// The asset
    #[arg(value_name = "KEY")]
    pub(crate) asset: String,
    /// Only partitions that stand so
    #[arg(long, value_name = "STATE", value_parser = ["done", "outdated", "failed", "missing", "undeclared"])]
    pub(crate) state: Option<String>,
    /// Partitions to show
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct PartitionKeysArgs {
    /// The set, as `partition: { dynamic: NAME }` calls it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The keys
    #[arg(value_name = "KEY", required = true)]
    pub(crate) keys: Vec<String>,
}

/// `subak notification`.
#[derive(Debug, Subcommand)]
pub(crate) enum NotificationCommand {
    /// List what people were told, are still to be told, and could not be told, newest first
    List(NotificationListArgs),
    /// Send a test message to a receiver
    Test(NotificationTestArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NotificationListArgs {
    /// Notices to show
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct NotificationTestArgs {
    /// The receiver, by its name under `notifications:`
    #[arg(value_name = "NAME")]
    pub(crate) receiver: String,
}

/// `subak job`.
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// List the jobs of the project
    List,
    /// Show what a job does: its tasks with what they need, and its parameters
    Show(JobArgs),
}

#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// The job
    #[arg(value_name = "NAME")]
    pub(crate) job: String,
}

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Only tests whose name or asset contains one of these
    #[arg(value_name = "TEXT")]
    pub(crate) filter: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Differing rows to list of each asset
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// Count the rejects of each asset
    List(Selection),
    /// Show the rejects of an asset: where they came from, why they were refused, the row
    Show(QuarantineShowArgs),
    /// Try rejects again, as the project is declared now, and load those that fit
    Replay(QuarantineReplayArgs),
    /// Mark rejects as not wanted; they stay in the table of rejects
    Discard(QuarantineDiscardArgs),
}

#[derive(Debug, Args)]
pub(crate) struct QuarantineShowArgs {
    /// The asset
    #[arg(add = ArgValueCompleter::new(complete::assets))]
    pub(crate) key: String,
    /// Which rejects
    #[arg(long, value_enum, default_value_t = RejectWord::Open)]
    pub(crate) status: RejectWord,
    /// Rejects to show at most
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: u64,
}

/// What became of a reject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RejectWord {
    /// Nobody has decided.
    Open,
    /// It was loaded after all.
    Replayed,
    /// It is not wanted.
    Discarded,
}

#[derive(Debug, Args)]
pub(crate) struct QuarantineReplayArgs {
    /// The asset
    #[arg(add = ArgValueCompleter::new(complete::assets))]
    pub(crate) key: String,
    /// The rejects; by default all that are open
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Give a column of the source another value; `column=` alone is NULL. Needs ids
    #[arg(long, value_name = "COLUMN=VALUE", value_parser = assignment, requires = "ids")]
    pub(crate) set: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) how: HowToRun,
}

#[derive(Debug, Args)]
pub(crate) struct QuarantineDiscardArgs {
    /// The asset
    #[arg(add = ArgValueCompleter::new(complete::assets))]
    pub(crate) key: String,
    /// The rejects
    #[arg(value_name = "ID", required_unless_present = "every")]
    pub(crate) ids: Vec<String>,
    /// Every open reject of the asset
    #[arg(long, conflicts_with = "ids")]
    pub(crate) every: bool,
    #[command(flatten)]
    pub(crate) how: HowToRun,
}

/// `name=value`.
fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as `name=value`".to_owned()),
    }
}

/// A date, or a date and time.
fn wall_clock(text: &str) -> Result<String, String> {
    let is_date = text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok();
    let is_time = text.len() >= 16 && subak_connect::convert::parse_datetime(text).is_some();
    if is_date || is_time { Ok(text.to_owned()) } else { Err("write it as `2026-11-21` or `2026-11-21 08:30:00`".to_owned()) }
}

/// How a run is executed.
#[derive(Debug, Args, Clone)]
pub(crate) struct HowToRun {
    /// Steps that run at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256), env = "SUBAK_PARALLEL")]
    pub(crate) parallel: u16,
    /// When another command works on this project, wait so long for it
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=604_800))]
    pub(crate) wait: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    /// List runs, the newest first
    List(RunListArgs),
    /// Show one run: its steps, counts, checks and failures
    Show(RunIdArgs),
    /// Ask the server to stop a run; what it has published stays
    Cancel(RunIdArgs),
    /// Show what happened in a run, event by event
    Logs(RunLogsArgs),
    /// Go on with a run that failed or was canceled, with what is not done
    Resume(RunResumeArgs),
    /// List the questions that runs wait for
    Questions,
    /// Answer the question of a task with yes
    Approve(RunAnswerArgs),
    /// Answer the question of a task with no
    Reject(RunAnswerArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunAnswerArgs {
    /// The run's id or the beginning of it; `last` is the newest
    pub(crate) run: String,
    /// The task; by default the only one of the run that asks
    pub(crate) task: Option<String>,
    /// What the answer says besides: `note=checked`
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// Who answers
    #[arg(long, value_name = "NAME", env = "USER", default_value = "somebody", hide_env_values = true)]
    pub(crate) by: String,
}

#[derive(Debug, Args)]
pub(crate) struct RunListArgs {
    /// Runs to list at most
    #[arg(long, default_value_t = 20)]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct RunIdArgs {
    /// The run's id or the beginning of it; `last` is the newest
    #[arg(default_value = "last")]
    pub(crate) run: String,
}

#[derive(Debug, Args)]
pub(crate) struct RunLogsArgs {
    /// The run's id or the beginning of it; `last` is the newest
    #[arg(default_value = "last")]
    pub(crate) run: String,
    /// Only this step
    pub(crate) step: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RunResumeArgs {
    /// The run's id or the beginning of it; `last` is the newest
    #[arg(default_value = "last")]
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) how: HowToRun,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// An asset, a partition as `ASSET@KEY`, a job, a run id or the beginning of one, or `RUN/STEP`
    #[arg(add = ArgValueCompleter::new(complete::assets))]
    pub(crate) what: String,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) selection: Selection,
    #[command(flatten)]
    pub(crate) how: HowToRun,
}

#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// The query; `-` reads it from standard input
    pub(crate) sql: String,
    /// The connection; by default the warehouse
    #[arg(long)]
    pub(crate) on: Option<String>,
    /// Rows to print at most; 0 prints all
    #[arg(long, default_value_t = 100)]
    pub(crate) limit: u64,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A code such as `SBK0104`; without one, all codes are listed
    pub(crate) code: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DocsArgs {
    /// A topic; without one, all topics are listed
    pub(crate) topic: Option<String>,
    /// Print the JSON Schema of project files for editors
    #[arg(long, value_enum, conflicts_with = "topic")]
    pub(crate) json_schema: Option<SchemaKind>,
}

/// A kind of project file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaKind {
    /// `subak.yml`.
    Project,
    /// YAML files below `assets/`.
    Assets,
    /// YAML files below `tests/`.
    Tests,
    /// YAML files below `jobs/`.
    Jobs,
    /// The HTTP interface of a server, as OpenAPI 3.1.
    HttpApi,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}
