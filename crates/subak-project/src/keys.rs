//! Every key that a project file knows: its shape, its meaning, whether it must be there. Decoding, the editor schema and the
//! reference pages read these tables.

mod partition;
mod programs;
mod upkeep;

pub use partition::{DIMENSION, PARTITION, READS};
pub use programs::{DBT, EXTERNAL, GRAPH, NOT_OF_SCRIPTS, OBSERVE, SCRIPT};
pub use upkeep::{AUTOMATION, FRESHNESS_KEY, FRESHNESS_POLICY};

/// A key of a mapping.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// What stands behind it.
    pub shape: Shape,
    /// Whether it must be there.
    pub is_required: bool,
    /// What it means, one or two sentences.
    pub doc: &'static str,
}

/// What stands behind a key.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// A text.
    Text,
    /// A whole number above zero.
    Count,
    /// A name, a list of names, or a mapping from names to whole numbers above zero.
    Counts,
    /// A number from 0 to 1.
    Share,
    /// `true` or `false`.
    Boolean,
    /// A duration such as `10s` or `1h30m`.
    Duration,
    /// One of these words.
    Word(&'static [&'static str]),
    /// One text or a list of texts.
    Texts,
    /// A mapping with these keys.
    Map(&'static [Key]),
    /// A mapping from free names to this shape.
    Named(&'static Shape),
    /// A list of this shape.
    List(&'static Shape),
    /// A column type.
    Type,
    /// A column type or a mapping with these keys.
    TypeOr(&'static [Key]),
    /// A list of rows: mappings from column to value.
    Rows,
    /// A connection: `type` and the keys of its connector.
    Connection,
    /// A text or a mapping with these keys.
    TextOr(&'static [Key]),
    /// A stream: these keys and those of the source's connector.
    Stream(&'static [Key]),
    /// A script: these keys, and those of a stream of files.
    Script(&'static [Key]),
    /// A check.
    Check,
    /// A mapping from names to tasks.
    Tasks,
    /// A line for the shell, a list of words, or a mapping with these keys.
    Program(&'static [Key]),
    /// A list, or an expression that is one.
    Items,
    /// A text, a mapping or a list.
    Body,
    /// A receiver of notifications: `type` and the keys of its kind.
    Receiver,
    /// A system that is told everything.
    Export,
}

const fn key(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { name, shape, is_required: false, doc }
}

const fn required(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { name, shape, is_required: true, doc }
}

/// What a step takes of pools.
const POOLS: Key = key(
    "pools",
    Shape::Counts,
    "What one attempt takes of pools of the project: a name, a list of names, or how many slots by name. It waits until all of it is free.",
);

/// A job: one document of a file below `jobs/`.
pub static JOB: &[Key] = &[
    required("job", Shape::Text, "Its name."),
    key("description", Shape::Text, "What it is for, for people."),
    key("select", Shape::Texts, "The assets that it brings up to date, as a selection: `+gold.daily_revenue`, `tag:nightly`."),
    key("tasks", Shape::Tasks, "The tasks that it runs, by name."),
    key(
        "params",
        Shape::Named(&Shape::Map(PARAM)),
        "What can be said when it is started: `subak run --job NAME --set date=2026-11-21`.",
    ),
    key(
        "schedule",
        Shape::TextOr(SCHEDULE),
        "When it starts by itself, while `subak server start` runs: a cron line, or a mapping.",
    ),
    key("on_failure", Shape::List(&Shape::TextOr(NOTICE)), "Who is told when a run of it fails."),
    key("on_success", Shape::List(&Shape::TextOr(NOTICE)), "Who is told when a run of it succeeds."),
    key("on_recovery", Shape::List(&Shape::TextOr(NOTICE)), "Who is told when a run of it succeeds after one that failed."),
    key("on_late", Shape::List(&Shape::TextOr(NOTICE)), "Who is told when a run of it has not ended by its deadline."),
    key("deadline", Shape::Duration, "How long after it was due or asked for a run is late; told once to those of `on_late`."),
    key(
        "priority",
        Shape::Text,
        "A whole number; of runs that wait for a server, those with the highest are begun first. By default 0.",
    ),
    key("runs_max", Shape::Count, "Runs of it that a server lets go on at a time. By default 1."),
    key(
        "when_full",
        Shape::Word(&["wait", "cancel"]),
        "What becomes of one more run: it waits, or it is canceled. By default `wait`.",
    ),
    key(
        "needs_previous",
        Shape::Boolean,
        "Whether a run waits while the one before it has failed, until that is resumed and succeeds.",
    ),
    key(
        "tags",
        Shape::Texts,
        "Labels of its runs, as templates over its parameters: `customer={{ params.customer }}`. `run_limits` in `subak.yml` bounds runs by them.",
    ),
    POOLS,
    key("retry", Shape::Map(RETRY), "How often a failed task is tried again. By default a task is tried once."),
    key("timeout", Shape::Duration, "Upper bound for one attempt of a task."),
];

/// A sensor: one document of a file below `jobs/`.
pub static SENSOR: &[Key] = &[
    required("sensor", Shape::Text, "Its name; jobs and sensors share theirs."),
    key("description", Shape::Text, "What it is for, for people."),
    required("watch", Shape::Map(WATCH), "What it looks at, while `subak server start` runs."),
    required("start", Shape::TextOr(SENSOR_START), "The job that it starts when there is something new, or a mapping."),
    key(
        "per",
        Shape::Word(&["item", "look"]),
        "Whether each new item (file, row, update, run) gets a run of its own, or one run is for all that is new in a look. By default `item`; with `asset`, `look`.",
    ),
    key(
        "min_interval",
        Shape::Duration,
        "The least time from the start of one look to the next. By default `30s`; with `asset` and `job`, `1s`.",
    ),
    key("timeout", Shape::Duration, "Upper bound for one look. By default `60s`."),
];

/// What a sensor looks at.
pub static WATCH: &[Key] = &[
    key("files", Shape::TextOr(WATCH_FILES), "Files that come: a pattern such as `raw/*/incoming/*.csv`, or a mapping."),
    key("query", Shape::TextOr(WATCH_QUERY), "Rows of a query that are new."),
    key(
        "http",
        Shape::TextOr(WATCH_HTTP),
        "The answer to a request: what is new in it when it is a list, else that it is another one.",
    ),
    key("asset", Shape::Texts, "Assets whose data change, whoever changes them."),
    key(
        "require",
        Shape::Word(&["any", "all"]),
        "With several assets: whether one of them is enough (the default), or all must have changed since the last run.",
    ),
    key("job", Shape::Texts, "Jobs whose runs end."),
    key(
        "status",
        Shape::Word(&["succeeded", "failed", "canceled", "ended"]),
        "With `job`: how they end. By default `succeeded`; `ended` is any end.",
    ),
    key(
        "webhook",
        Shape::Map(WATCH_WEBHOOK),
        "What others send to `POST /api/v1/webhooks/NAME` of a server with `--listen`; it is kept before they get their answer.",
    ),
    key(
        "run",
        Shape::Program(PROGRAM),
        "What a program says: it gets `SUBAK_CURSOR`, and writes `{\"cursor\": …, \"runs\": [{\"key\": …}]}` to the file that `SUBAK_VALUE_PATH` names.",
    ),
    key("python", Shape::Texts, "The same from a Python file and its arguments."),
];

/// Files that a sensor looks at.
pub static WATCH_FILES: &[Key] = &[
    required(
        "pattern",
        Shape::Text,
        "Their paths, relative to the connection: `raw/*/incoming/*.csv`. Names that begin with a dot do not count.",
    ),
    key(
        "on",
        Shape::Text,
        "The connection of type `files` that holds them: a folder or an object store. By default the project's folder.",
    ),
    key(
        "settle",
        Shape::Duration,
        "How long a file must have stayed the same before it counts. By default `5s`; `0s` where files come by being renamed.",
    ),
];

/// A query that a sensor looks at.
pub static WATCH_QUERY: &[Key] = &[
    STATEMENT[0],
    STATEMENT[1],
    key(
        "cursor",
        Shape::Text,
        "The column by which rows are new: `{{ cursor }}` in the query is its highest value so far. Without one, rows that were not there at the last look are new.",
    ),
    key("from", Shape::Text, "With `cursor`: where it begins, for example `0` or `2026-01-01`."),
];

/// A request whose answer a sensor looks at.
pub static WATCH_HTTP: &[Key] = &[
    HTTP_CALL[0],
    HTTP_CALL[1],
    HTTP_CALL[2],
    HTTP_CALL[3],
    HTTP_CALL[4],
    key("value", Shape::Text, "An expression over `status` and `body` that is looked at: `body.releases`. By default the body."),
];

/// `webhook` of `watch`.
pub static WATCH_WEBHOOK: &[Key] = &[
    required("secret", Shape::Text, "What senders must know: a reference such as `${secret:orders_hook}`."),
    key(
        "signature_header",
        Shape::Text,
        "The header with `sha256=` and the HMAC-SHA-256 of the body, for example `X-Hub-Signature-256` of GitHub; nothing else is taken then. By default `Authorization: Bearer SECRET`, or a signature in `X-Subak-Signature`.",
    ),
];

/// What a sensor starts.
pub static SENSOR_START: &[Key] = &[
    required("job", Shape::Text, "The job."),
    key("set", Shape::Named(&Shape::Text), "Its parameters, with `{{ item.path }}` and the like: what is new."),
    key("partition", Shape::Text, "The partition that the run is for, of a job that selects assets: `{{ item.stem }}`."),
    key("add_to", Shape::Text, "The set of dynamic partitions that gets this key before the run, unless it has it."),
];

/// Somebody who is told.
pub static NOTICE: &[Key] = &[required("notify", Shape::Text, "The receiver, by its name under `notifications:`.")];

/// A parameter of a job.
pub static PARAM: &[Key] = &[
    key("type", Shape::Word(&["text", "integer", "number", "boolean", "date"]), "What it is. By default `text`."),
    key("default", Shape::Text, "What it is where nobody says; without one somebody must."),
    key("choices", Shape::List(&Shape::Text), "The values that it can have."),
    key("description", Shape::Text, "What it means, for people."),
];

/// A schedule.
pub static SCHEDULE: &[Key] = &[
    key(
        "cron",
        Shape::Texts,
        "Cron lines of five fields, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`; an instant that several name is one tick.",
    ),
    key("every", Shape::Duration, "An interval instead. Below a day it counts real time; from a day on the clock."),
    key("timezone", Shape::Text, "The time zone of its clock. By default the project's."),
    key(
        "catchup",
        Shape::Word(&["none", "latest", "all", "false", "true"]),
        "What happens to ticks of a time in which no server ran: none of them starts anything, the newest one does (the default, `false`), or all do (`true`).",
    ),
    key("dst", Shape::Map(DST), "What a fixed time does when the clock is put forward or back."),
    key(
        "jitter",
        Shape::Duration,
        "Up to so long after its tick a run begins, so that not everything begins at the full hour: another wait for each job and tick, and the same one whoever looks. Shorter than the time between two ticks.",
    ),
    key("start", Shape::Text, "No tick comes before this day or time of its clock."),
    key("end", Shape::Text, "No tick comes behind it."),
];

/// What fixed times do when the clock is put forward or back.
pub static DST: &[Key] = &[
    key(
        "gap",
        Shape::Word(&["shift", "skip"]),
        "A time that the clock leaves out: it comes at the first moment behind the gap (the default), or not that day.",
    ),
    key(
        "fold",
        Shape::Word(&["first", "last", "both"]),
        "A time that the clock shows twice: it comes the first time (the default), the second, or both.",
    ),
];

/// A task of a job. It has one of `run`, `python`, `sql`, `query`, `http`, `notify`, `wait`, `asset` and `tasks`.
pub static TASK: &[Key] = &[
    key("run", Shape::Program(PROGRAM), "A program: a line for the shell, a list of words, or a mapping."),
    key("python", Shape::Texts, "A Python file and its arguments; by `uv` where it is installed, else by `python3`."),
    key("sql", Shape::TextOr(STATEMENT), "A statement, on the warehouse where nothing else is said."),
    key("query", Shape::TextOr(STATEMENT), "A question; the first row of the answer is the value, by column."),
    key("http", Shape::TextOr(HTTP_CALL), "Sends one request; the answer is the value."),
    key("notify", Shape::Map(MESSAGE), "Tells somebody something."),
    key("wait", Shape::Duration, "Waits so long."),
    key(
        "approve",
        Shape::TextOr(APPROVAL),
        "Asks a person, and waits for the answer, by default 7 days: a question, or a mapping.",
    ),
    key("asset", Shape::Text, "Brings an asset up to date."),
    key("tasks", Shape::Tasks, "A group: tasks that share what they need."),
    key(
        "for_each",
        Shape::Items,
        "Makes the group once for each item of a list, or of an expression that is one: `tasks.list.value`. `item` stands for it.",
    ),
    key("items_max", Shape::Count, "The most items of a list that is known only in the run. By default 1000."),
    key("needs", Shape::Texts, "The tasks beside it that come first."),
    key(
        "trigger",
        Shape::Word(&[
            "all_success",
            "all_failed",
            "all_done",
            "all_done_min_one_success",
            "all_done_setup_success",
            "always",
            "none_failed",
            "none_failed_min_one_success",
            "none_skipped",
            "one_success",
            "one_failed",
            "one_done",
            "all_skipped",
        ]),
        "When it runs, by how the tasks that it needs ended. By default `all_success`.",
    ),
    key("when", Shape::Text, "A condition: `tasks.check.value.found`, `params.full`. When it is false the task is skipped."),
    key(
        "short_circuit",
        Shape::Word(&["all", "direct"]),
        "What is skipped when its value is false, zero or empty: all tasks behind it, or those right behind it.",
    ),
    key(
        "role",
        Shape::Word(&["work", "setup", "teardown"]),
        "A teardown runs when a setup that it needs succeeded, even when the work failed, and does not count for how the run ends.",
    ),
    key("fails_run", Shape::Boolean, "Whether a failed teardown counts all the same."),
    key("description", Shape::Text, "What it is for, for people."),
    POOLS,
    key("retry", Shape::Map(RETRY), "How often it is tried again."),
    key("timeout", Shape::Duration, "Upper bound for one attempt."),
];

/// A request of a task.
pub static HTTP_CALL: &[Key] = &[
    required(
        "url",
        Shape::Text,
        "The address. `${NAME}` and `${secret:name}` are filled in when it is sent, here and in headers and body.",
    ),
    key("method", Shape::Word(&["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]), "By default `GET`, with a body `POST`."),
    key("headers", Shape::Named(&Shape::Text), "Headers by name."),
    key("body", Shape::Body, "What is sent: a text, or a mapping or list, which is sent as JSON."),
    key("expect", Shape::Texts, "Status codes that count as success. By default any from 200 to 299."),
];

/// What a task tells somebody.
pub static MESSAGE: &[Key] = &[
    required("to", Shape::Text, "The receiver, by its name under `notifications:`."),
    required("message", Shape::Text, "The text; a template."),
];

/// What a person is asked.
pub static APPROVAL: &[Key] = &[
    required("message", Shape::Text, "The question; a template."),
    key(
        "input",
        Shape::Named(&Shape::Map(PARAM)),
        "What the answer says besides yes or no: `subak run approve RUN TASK --set name=value`.",
    ),
    key(
        "default",
        Shape::Word(&["approve", "reject"]),
        "What holds when nobody answers before the `timeout` of the task; without one the task fails.",
    ),
    key(
        "on_reject",
        Shape::Word(&["fail", "continue"]),
        "Whether a no fails the task (the default), or what is behind it goes on and can tell: `tasks.NAME.value.approved`.",
    ),
    key("notify", Shape::Text, "Who is told that there is a question: a receiver under `notifications:`."),
];

/// A program.
pub static PROGRAM: &[Key] = &[
    key("command", Shape::Texts, "A line for the shell, or a program and its arguments."),
    key("python", Shape::Texts, "A Python file and its arguments."),
    key(
        "env",
        Shape::Named(&Shape::Text),
        "Variables of its environment; `${NAME}` and `${secret:name}` are filled in when it starts.",
    ),
    key("dir", Shape::Text, "The folder in which it runs, relative to the project."),
    key(
        "memory_max",
        Shape::Text,
        "How much memory it may use at a time together with what it starts: `500MB`, `2GiB`. What uses more is killed, and the step fails. By default there is no bound.",
    ),
    key(
        "cpu_max",
        Shape::Duration,
        "How much processor time it may use in all, together with what it starts. By default there is no bound.",
    ),
];

/// A statement of a task.
pub static STATEMENT: &[Key] =
    &[key("on", Shape::Text, "The connection. By default the warehouse."), required("sql", Shape::Text, "The statement.")];

/// `subak.yml`.
pub static PROJECT: &[Key] = &[
    required("project", Shape::Text, "Name of the project."),
    key("timezone", Shape::Text, "Time zone by its IANA name, for example `Asia/Jakarta`. By default `UTC`."),
    key(
        "warehouse",
        Shape::Text,
        "The connection in which SQL assets and loads are stored where nothing else is said. By default `warehouse`.",
    ),
    required("connections", Shape::Named(&Shape::Connection), "The outside systems by name."),
    key("profiles", Shape::Named(&Shape::Map(PROFILE)), "Overlays that `--profile NAME` lays over these settings."),
    key("notifications", Shape::Named(&Shape::Receiver), "Who can be told about runs, by name: webhooks, chats, mail."),
    key(
        "exports",
        Shape::Named(&Shape::Export),
        "Systems that are told everything that runs do, by name: OpenLineage, OpenTelemetry.",
    ),
    key("defaults", Shape::Map(DEFAULTS), "Settings that assets have where they say nothing."),
    key("lint", Shape::Map(LINT), "House rules for names; `subak validate` warns of names that break them."),
    key(
        "vars",
        Shape::Named(&Shape::Text),
        "Values that templates read as `{{ var('name') }}`; `--var name=value` takes their place.",
    ),
    key("retention", Shape::Map(RETENTION), "How long what happened is kept."),
    key(
        "pools",
        Shape::Named(&Shape::Count),
        "Rooms for steps, by name, and how many slots each has: `{ api: 4 }`. Steps say `pools: api`.",
    ),
    key(
        "run_limits",
        Shape::Named(&Shape::Count),
        "How many runs with a tag a server lets go on at a time: `{ nightly: 2, \"customer=*\": 1 }`; with `*`, for each value by itself.",
    ),
    key("external", Shape::List(&Shape::Text), "Keys of assets that something outside keeps up to date in the warehouse."),
];

/// `retention`.
pub static RETENTION: &[Key] = &[
    key(
        "keep",
        Shape::Text,
        "How long runs that have ended, their events and logs, ticks and notices are kept: a duration, or `forever`. By default `90d`. What is known of assets stays.",
    ),
    key(
        "logs_max",
        Shape::Text,
        "How much room the output of programs may take: `500MB`, `10GB`; the oldest goes first. By default `10GB`.",
    ),
];

/// `lint`.
pub static LINT: &[Key] = &[
    key(
        "tables",
        Shape::Named(&Shape::Text),
        "Regular expressions for the last part of keys, by a pattern of keys such as `gold.*`.",
    ),
    key("columns", Shape::Text, "A regular expression for names of columns, where they are known."),
];

/// One profile.
pub static PROFILE: &[Key] = &[
    key("warehouse", Shape::Text, "The connection that takes the place of `warehouse`."),
    key("connections", Shape::Named(&Shape::Connection), "Connections that take the place of those with the same name."),
];

/// `defaults`.
pub static DEFAULTS: &[Key] = &[
    key("retry", Shape::Map(RETRY), "How often a failed step is tried again."),
    key("timeout", Shape::Duration, "Upper bound for one attempt of a step. By default `6h`."),
    key("on_failure", Shape::List(&Shape::TextOr(NOTICE)), "Who is told when a run of a job fails that says nothing itself."),
    key("on_recovery", Shape::List(&Shape::TextOr(NOTICE)), "The same for a success after a failure."),
    key("on_late", Shape::List(&Shape::TextOr(NOTICE)), "The same for a run that has not ended by the deadline of its job."),
];

/// `retry`.
pub static RETRY: &[Key] = &[
    key("attempts_max", Shape::Count, "Attempts in all, the first one included. By default 3."),
    key("delay_first", Shape::Duration, "Wait before the second attempt; doubles each time. By default `1s`."),
    key("delay_max", Shape::Duration, "Upper bound for the wait between two attempts. By default `60s`."),
    key("jitter", Shape::Share, "Share of the wait that varies, from 0 to 1. By default 0.2."),
];

/// `hooks`.
pub static HOOKS: &[Key] = &[
    key(
        "before",
        Shape::List(&Shape::TextOr(HOOK)),
        "Statements that run before anything is read or written, in order. When one fails, nothing else happens.",
    ),
    key(
        "after",
        Shape::List(&Shape::TextOr(HOOK)),
        "Statements that run after the rows are published, in order, each time the step runs. When one fails, the step has failed and its rows are published.",
    ),
];

/// One statement of `hooks`.
pub static HOOK: &[Key] = &[
    required("sql", Shape::Text, "One statement. `{{ this }}` stands for the table of the asset."),
    key("on", Shape::Text, "The connection that runs it. By default the one that holds the asset."),
];

/// A file with `ingest:`.
pub static INGEST_FILE: &[Key] = &[
    key("ingest", Shape::Map(INGEST), "Loads streams of a source into tables; each stream is an asset."),
    key("seed", Shape::Map(SEED), "Types and checks of the seed with the same name as this file."),
    key("dbt", Shape::Map(DBT), "The models, seeds and snapshots of a dbt project, each as an asset."),
    key("script", Shape::Script(SCRIPT), "Makes the asset with the same name as this file, or several, by a program."),
    key("graph", Shape::Map(GRAPH), "Makes the asset with the same name as this file by several tasks."),
    key(
        "external",
        Shape::Map(EXTERNAL),
        "An asset that something outside keeps up to date, and how to see whether it has changed.",
    ),
];

/// `ingest`.
pub static INGEST: &[Key] = &[
    required("from", Shape::Text, "The connection that is read."),
    key("to", Shape::Text, "The connection that is written. By default the warehouse."),
    key("defaults", Shape::Stream(STREAM), "Settings of every stream that does not say otherwise."),
    required(
        "streams",
        Shape::Named(&Shape::Stream(STREAM)),
        "The streams by the name of the asset that they become. A name with `*` or `?` is a pattern over the streams of the source, those that `subak discover --save` found.",
    ),
];

/// One stream.
pub static STREAM: &[Key] = &[
    key("stream", Shape::Text, "Name of the stream in the source. By default the asset's name."),
    key(
        "exclude",
        Shape::Texts,
        "Only where the stream's name is a pattern such as `public.*`: patterns of streams that it leaves out.",
    ),
    key(
        "asset",
        Shape::Text,
        "Only where the stream's name is a pattern: the names of the assets. `{table}`, the default, and `{schema}` stand for parts of each stream's name, in small letters; what no key may have becomes `_`.",
    ),
    key(
        "mode",
        Shape::Word(&["replace", "append", "merge", "delete_insert", "snapshot"]),
        "What happens to rows that the table holds: they are replaced, they stay, those with the same key are replaced, all with a key that arrives are deleted first, or every version is kept (slowly changing dimension, type 2). By default `merge` with a `primary_key`, `append` with a `cursor` alone, else `replace`.",
    ),
    key("primary_key", Shape::Texts, "The columns that identify a row."),
    key("cursor", Shape::TextOr(CURSOR), "The column by which new rows are found."),
    key(
        "columns",
        Shape::Named(&Shape::TypeOr(COLUMN)),
        "Columns of the table: a type, or where the value comes from. Other columns keep the type that the source reports.",
    ),
    key(
        "naming",
        Shape::Word(&["keep", "lower", "snake_case"]),
        "How names of columns are written where `columns:` does not name them. By default `keep`.",
    ),
    key(
        "derive",
        Shape::Named(&Shape::TextOr(DERIVE)),
        "Computed columns: SQL expressions over the row, or bands. `run.started_at`, `run.id` and `as_of` stand for the run.",
    ),
    key("filter", Shape::Text, "A SQL condition; rows for which it is not true are left out and counted."),
    key(
        "on_filter_exit",
        Shape::Word(&["delete", "keep"]),
        "With `mode: merge`, what happens to a row of the table whose new version fails the filter. By default `delete`.",
    ),
    key("select", Shape::Texts, "The columns to keep, in this order. By default all."),
    key(
        "contract",
        Shape::Word(&["evolve", "freeze", "discard_row", "discard_value"]),
        "What happens to columns and types that the table does not know: they are taken over where nothing changes by it, the load fails, the row is refused, or the value is left out and counted. By default `evolve`.",
    ),
    key(
        "on_reject",
        Shape::Word(&["error", "null", "text", "quarantine"]),
        "What happens to a value that does not fit its column: the load fails, it becomes NULL and is counted, its text is kept in `<column>__text`, or the row goes to the table `<table>__rejects`. By default `error`.",
    ),
    key(
        "rejects_max",
        Shape::Text,
        "How many rows may be refused before the load fails: a number, or a share such as `5%`. By default any.",
    ),
    key(
        "deduplicate",
        Shape::Texts,
        "Which of several arriving rows with one key stays: the first in this order, for example `updated_at desc`; the highest value comes first unless `asc` is said. Rows that are equal in it: the one that arrived last.",
    ),
    key(
        "keep_first",
        Shape::Boolean,
        "With `deduplicate`, of rows that are equal in the order the one stays that arrived first.",
    ),
    key("history", Shape::Map(HISTORY), "With `mode: snapshot`, how versions are kept."),
    key(
        "layout",
        Shape::Map(LAYOUT),
        "How the table is laid out where the warehouse has a choice (ClickHouse); others take no notice.",
    ),
    key(
        "changes",
        Shape::Map(CHANGES),
        "The rows are change events: the highest version of each key wins, whatever the order of arrival. Needs `mode: merge`.",
    ),
    key(
        "children",
        Shape::Named(&Shape::Map(CHILD)),
        "Nested lists that become tables `<table>__<name>`, replaced together with their rows.",
    ),
    key("checks", Shape::List(&Shape::Check), "Statements about the table, evaluated before readers see it."),
    key("description", Shape::Text, "What the asset is, for people."),
    key("owner", Shape::Text, "Who answers for it."),
    key("group", Shape::Text, "Its group. By default the first part of its key."),
    key("tags", Shape::Texts, "Free labels."),
    key(
        "automation",
        Shape::TextOr(AUTOMATION),
        "When it is brought up to date by itself, while `subak server start` runs: `on_upstream_update` (also `eager`), `on_missing`, `none`, or a mapping.",
    ),
    FRESHNESS_KEY,
    key("partition", Shape::Map(PARTITION), "How it is cut into partitions, which are brought up to date one by one."),
    key("hooks", Shape::Map(HOOKS), "Statements of your own that run around each step."),
    POOLS,
    key("retry", Shape::Map(RETRY), "How often a failed step is tried again."),
    key("timeout", Shape::Duration, "Upper bound for one attempt."),
];

/// `cursor` as a mapping.
pub static CURSOR: &[Key] = &[
    required("column", Shape::Text, "The column whose highest committed value bounds the next read from below."),
    key(
        "lag",
        Shape::Text,
        "How far below that value the next read starts, so that rows that were committed late are found: a duration for dates and times, a number for numbers. Needs a key.",
    ),
    key(
        "lower",
        Shape::Word(&["closed", "open"]),
        "Whether rows at exactly that value are read again. By default `closed`: a tie loses no row, and rows that the table holds are recognised.",
    ),
    key(
        "until",
        Shape::Word(&["run"]),
        "Ends the read at the time of the run (`--as-of`), which then is the next lower bound. By default it ends with the stream.",
    ),
    key(
        "upper",
        Shape::Word(&["open", "closed"]),
        "With `until`, whether rows at exactly that time are read too. By default `open`.",
    ),
    key(
        "nulls",
        Shape::Word(&["include", "exclude", "error"]),
        "What happens to rows without a value in the column: they are read each time and recognised, never read, or fail the load. By default `include`.",
    ),
    key(
        "future_max",
        Shape::Duration,
        "How far above the time of the run the committed value may stand; a clock that is wrong must not hide what comes after. By default `5m`.",
    ),
];

/// A column of `columns` as a mapping.
pub static COLUMN: &[Key] = &[
    key("type", Shape::Type, "Its type. By default what the source reports; text for values out of JSON."),
    key(
        "from",
        Shape::Texts,
        "Where its value comes from: a column of the source, or a place inside the JSON that it holds, such as `metadata.device` or `items[0].sku`. Of several, the first that has a value.",
    ),
    key("default", Shape::Text, "The value of rows that have none."),
    key(
        "format",
        Shape::Text,
        "How a date or time is written, in `strftime` letters; `any` reads every common spelling, `%s` seconds and `%Q` milliseconds since 1970. By default ISO 8601.",
    ),
    key(
        "on_reject",
        Shape::Word(&["error", "null", "text", "quarantine"]),
        "What happens to a value that does not fit. By default what the stream says.",
    ),
    key(
        "flatten",
        Shape::Named(&Shape::TypeOr(FLATTENED)),
        "Columns out of the JSON object that this column of the source holds; the column itself is left out.",
    ),
];

/// A column of `flatten` as a mapping.
pub static FLATTENED: &[Key] = &[
    key("type", Shape::Type, "Its type. By default `text`."),
    key(
        "from",
        Shape::Texts,
        "The key inside the object, or several of which the first with a value counts. By default the name of the column.",
    ),
    key("default", Shape::Text, "The value of rows that have none."),
    key("format", Shape::Text, "How a date or time is written."),
    key("on_reject", Shape::Word(&["error", "null", "text", "quarantine"]), "What happens to a value that does not fit."),
];

/// A computed column as bands.
pub static DERIVE: &[Key] = &[
    required("categorize", Shape::Text, "The column whose value falls into a band."),
    required("bands", Shape::Named(&Shape::Text), "The bands by name with their lowest values. Compared exactly."),
    key("else", Shape::Text, "The name for values below every band. By default NULL."),
];

/// `layout`.
pub static LAYOUT: &[Key] = &[
    key(
        "engine",
        Shape::Text,
        "The engine with its arguments, for example `SummingMergeTree(amount)`. By default `MergeTree`; a table that is merged into keeps versions of its rows and has no other.",
    ),
    key(
        "order_by",
        Shape::Texts,
        "Expressions by which rows are ordered. By default none; a table that is merged into is ordered by its key.",
    ),
    key("partition_by", Shape::Texts, "Expressions by which the table is divided, for example `toYYYYMM(created_at)`."),
    key("ttl", Shape::Text, "When rows leave the table, for example `created_at + interval 90 day`."),
];

/// `history`.
pub static HISTORY: &[Key] = &[
    key(
        "updated_at",
        Shape::Text,
        "The column that says when a row changed; a version holds from then. By default it holds from the time of the run.",
    ),
    key(
        "missing_rows",
        Shape::Word(&["keep", "close"]),
        "What happens to the open version of a key that a complete read does not have. By default `keep`.",
    ),
    key("valid_from", Shape::Text, "Column with the time from which a version holds. By default `valid_from`."),
    key(
        "valid_to",
        Shape::Text,
        "Column with the time at which it ceased to hold, NULL for the current one. By default `valid_to`.",
    ),
    key("is_current", Shape::Text, "Column that is true for the current version. By default `is_current`."),
];

/// `changes`.
pub static CHANGES: &[Key] = &[
    key("operation", Shape::Text, "The column that says what happened. By default `op`, for Debezium `__op`."),
    key("delete_when", Shape::Texts, "The words in it that mean a deletion, whatever their case. By default `delete` and `d`."),
    key(
        "upsert_when",
        Shape::Texts,
        "The words in it that mean that the row is as the event says. Any other word is refused. By default `insert`, `update`, `upsert`, `read`, `create`, `c`, `i`, `u` and `r`.",
    ),
    key(
        "version",
        Shape::Text,
        "The column whose highest value wins. Times are read in every common spelling. By default `_version`, for Debezium `__version`.",
    ),
    key(
        "deletes",
        Shape::Word(&["tombstone", "remove", "ignore"]),
        "What a deletion does: it stays as the newest version, and the view `<table>__live` leaves it out; the row is removed; or nothing. By default `tombstone`.",
    ),
    key(
        "tie",
        Shape::Word(&["last", "first"]),
        "Which of two events with one version wins: the one that arrived last or first. By default `last`.",
    ),
];

/// A nested list.
pub static CHILD: &[Key] = &[
    key(
        "from",
        Shape::Text,
        "Where the list stands, for example `order.items`. By default the column with the name of the child.",
    ),
    key(
        "columns",
        Shape::Named(&Shape::TypeOr(COLUMN)),
        "The columns of an element. By default the whole element as JSON in `value`.",
    ),
];

/// `seed`.
pub static SEED: &[Key] = &[
    key("columns", Shape::Named(&Shape::Type), "Types by column. Other columns are text."),
    key("checks", Shape::List(&Shape::Check), "Statements about the table, evaluated before readers see it."),
    key("description", Shape::Text, "What the asset is, for people."),
    key("owner", Shape::Text, "Who answers for it."),
    key("group", Shape::Text, "Its group. By default the first part of its key."),
    key("tags", Shape::Texts, "Free labels."),
    key(
        "automation",
        Shape::TextOr(AUTOMATION),
        "When it is brought up to date by itself, while `subak server start` runs: `on_upstream_update` (also `eager`), `on_missing`, `none`, or a mapping.",
    ),
    FRESHNESS_KEY,
];

/// The header comment of a SQL asset.
pub static SQL_HEADER: &[Key] = &[
    key(
        "stored_as",
        Shape::Word(&["view", "table", "materialized_view", "incremental", "snapshot"]),
        "How the result is kept: as a query, as rows made anew each time, as a query whose rows the system makes anew in place (PostgreSQL), as rows to which each run adds, or as every version that a row ever had. By default `view`.",
    ),
    key(
        "mode",
        Shape::Word(&["append", "merge", "delete_insert"]),
        "With `stored_as: incremental`, what happens to rows that are there. By default `merge` with a `unique_key`, else `append`.",
    ),
    key("unique_key", Shape::Texts, "The columns that identify a row."),
    key(
        "deduplicate",
        Shape::Texts,
        "Which of several rows with one key stays: the first in this order, for example `updated_at desc`.",
    ),
    key(
        "on_schema_change",
        Shape::Word(&["append", "sync", "ignore", "fail"]),
        "What happens when the query returns other columns than the table has: new ones are added, new ones are added and old ones removed, new ones are left out, or the step fails. By default `append`.",
    ),
    key("history", Shape::Map(HISTORY), "With `stored_as: snapshot`, how versions are kept."),
    key(
        "layout",
        Shape::Map(LAYOUT),
        "How the table is laid out where the warehouse has a choice (ClickHouse); others take no notice.",
    ),
    key(
        "surrogate_key",
        Shape::Map(SURROGATE_KEY),
        "A number that each row gets once and keeps for ever; the first column of the table. Needs `stored_as: table`.",
    ),
    key("columns", Shape::Named(&Shape::Text), "What the columns mean, for people and the data catalogue."),
    key("on", Shape::Text, "The connection that runs the query. By default the warehouse."),
    key("depends_on", Shape::Texts, "Assets that it reads, where the SQL does not say so in a way that can be parsed."),
    key("checks", Shape::List(&Shape::Check), "Statements about the result, evaluated before readers see it."),
    key("description", Shape::Text, "What the asset is, for people."),
    key("owner", Shape::Text, "Who answers for it."),
    key("group", Shape::Text, "Its group. By default the first part of its key."),
    key("tags", Shape::Texts, "Free labels."),
    key(
        "automation",
        Shape::TextOr(AUTOMATION),
        "When it is brought up to date by itself, while `subak server start` runs: `on_upstream_update` (also `eager`), `on_missing`, `none`, or a mapping.",
    ),
    FRESHNESS_KEY,
    key("partition", Shape::Map(PARTITION), "How it is cut into partitions, which are brought up to date one by one."),
    key("hooks", Shape::Map(HOOKS), "Statements of your own that run around each step."),
    POOLS,
    key("retry", Shape::Map(RETRY), "How often a failed step is tried again."),
    key("timeout", Shape::Duration, "Upper bound for one attempt."),
];

/// `surrogate_key`.
pub static SURROGATE_KEY: &[Key] = &[
    required("column", Shape::Text, "The column that holds the number."),
    required("of", Shape::Texts, "The natural key: columns that the query returns."),
    key(
        "unknown",
        Shape::Text,
        "The number of a row for facts whose dimension is not known; its other columns are NULL. By default `-1`; `none` makes no such row.",
    ),
];

/// The header comment of a standalone check.
pub static CHECK_HEADER: &[Key] = &[
    key("on", Shape::Text, "The connection that runs the query. By default the warehouse."),
    key("depends_on", Shape::Texts, "Assets that it reads, where the SQL does not say so in a way that can be parsed."),
    key("severity", Shape::Word(&["error", "warn"]), "Whether bad rows fail the run. By default `error`."),
    key("description", Shape::Text, "What it proves, for people."),
];

/// A check of an asset: exactly one statement, and how to take a failure.
pub static CHECK: &[Key] = &[
    key("not_null", Shape::Texts, "Columns in which no row has a NULL."),
    key(
        "unique",
        Shape::Texts,
        "Columns whose values, taken together, no two rows share; rows with a NULL in them do not count.",
    ),
    key("accepted_values", Shape::Map(ACCEPTED_VALUES), "The values that a column may have, besides NULL."),
    key("range", Shape::Map(RANGE), "The bounds of a column's values, both inclusive; NULL passes."),
    key("pattern", Shape::Map(PATTERN), "A regular expression that the whole text of a column matches; NULL passes."),
    key("relationships", Shape::Map(RELATIONSHIPS), "Values that are there in a column of another asset; NULL passes."),
    key("row_count", Shape::Map(ROW_COUNT), "How many rows there are."),
    key("freshness", Shape::Map(FRESHNESS), "How old the newest value of a column may be."),
    key("schema", Shape::Map(SCHEMA), "The columns and their types."),
    key("reconcile", Shape::Map(RECONCILE), "Measures that equal the same measures over another asset."),
    key("sql", Shape::Text, "A query that returns the bad rows; `{{ this }}` stands for the table."),
    key("where", Shape::Text, "A condition: only rows for which it is true are looked at."),
    key(
        "tolerance",
        Shape::Text,
        "So many bad rows are tolerated: a number, or a share of the rows such as `5%`. By default none.",
    ),
    key("name", Shape::Text, "Its name. By default it follows from what it says."),
    key("severity", Shape::Word(&["error", "warn"]), "Whether bad rows fail the run. By default `error`."),
    key("blocking", Shape::Boolean, "Whether bad rows keep readers on the old table. By default `true` with `severity: error`."),
];

/// `accepted_values`.
pub static ACCEPTED_VALUES: &[Key] =
    &[required("column", Shape::Text, "The column."), required("values", Shape::Texts, "Its values as texts.")];

/// `range`.
pub static RANGE: &[Key] = &[
    required("column", Shape::Text, "The column."),
    key("min", Shape::Text, "The lowest value."),
    key("max", Shape::Text, "The highest value."),
];

/// `pattern`.
pub static PATTERN: &[Key] =
    &[required("column", Shape::Text, "The column."), required("matches", Shape::Text, "The regular expression.")];

/// `relationships`.
pub static RELATIONSHIPS: &[Key] = &[
    required("column", Shape::Texts, "The column, or several that refer together."),
    required("to", Shape::Texts, "The column that it refers to as `asset.column`, or several of one asset in the same order."),
];

/// `row_count`.
pub static ROW_COUNT: &[Key] = &[key("min", Shape::Count, "At least."), key("max", Shape::Count, "At most.")];

/// `freshness`.
pub static FRESHNESS: &[Key] = &[
    required("column", Shape::Text, "A column with dates or times."),
    required("max_age", Shape::Duration, "How old its newest value may be."),
];

/// `schema`.
pub static SCHEMA: &[Key] = &[
    required("columns", Shape::Named(&Shape::Type), "The columns and their types."),
    key("exact", Shape::Boolean, "Whether no other columns may be there. By default `false`."),
];

/// `reconcile`.
pub static RECONCILE: &[Key] = &[
    required("with", Shape::Text, "The other asset, of the same connection."),
    key("measures", Shape::Texts, "SQL aggregates, for example `sum(amount)`. By default `count(*)`."),
    key("with_where", Shape::Text, "A condition on the rows of the other asset."),
];

/// A file below `tests/`.
pub static TEST_FILE: &[Key] = &[
    required("test", Shape::Text, "Name of the test."),
    required("asset", Shape::Text, "The asset under test."),
    key(
        "given",
        Shape::Named(&Shape::Rows),
        "Rows of the assets that it reads, by their keys; of an ingest, the rows of its source under `source`.",
    ),
    required("expect", Shape::Rows, "The rows that come out, in any order. Columns that are not named are not compared."),
    key("vars", Shape::Named(&Shape::Text), "Values of `var('…')` in this test."),
    key("as_of", Shape::Text, "The time that counts as now, for example `2026-11-21`."),
    key("description", Shape::Text, "What it proves, for people."),
];
