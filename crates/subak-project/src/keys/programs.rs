//! Keys of assets that programs make.

use super::{AUTOMATION, FRESHNESS_KEY, HTTP_CALL, Key, POOLS, PROGRAM, RETRY, STATEMENT, STREAM, Shape, key, required};

/// A script: `script` in a YAML file, or the header of a Python file or a shell script. It takes the keys of a stream too, but for [`NOT_OF_SCRIPTS`].
pub static SCRIPT: &[Key] = &[
    key(
        "run",
        Shape::Program(PROGRAM),
        "The program: a line for the shell, a list of words that are started as they are, or a mapping. In the header of a file it is that file.",
    ),
    PROGRAM[2],
    key("to", Shape::Text, "The connection into which the rows go that the program writes. By default the warehouse."),
    key(
        "stored_as",
        Shape::Word(&["table", "outside"]),
        "`table`, the default: the program writes files into the folder `$SUBAK_OUTPUT`, and their rows are loaded. `outside`: it keeps its data itself.",
    ),
    key(
        "inputs",
        Shape::Texts,
        "Assets that the program finds as files in the folder `$SUBAK_INPUTS`, named `KEY.parquet`. It depends on them.",
    ),
    key("input_format", Shape::Word(&["parquet", "csv"]), "The format of these files. By default `parquet`."),
    key("depends_on", Shape::Texts, "Other assets that it depends on."),
    key(
        "assets",
        Shape::Named(&Shape::Stream(STREAM)),
        "Several assets that one start of the program makes, by name; what stands beside holds for each. `$SUBAK_ASSETS` says which of them are asked for.",
    ),
];

/// `dbt`.
pub static DBT: &[Key] = &[
    required(
        "project",
        Shape::Text,
        "The folder with `dbt_project.yml`, relative to the project. `dbt parse` writes the manifest there, from which the assets are read.",
    ),
    key("on", Shape::Text, "The connection to the database in which dbt builds. By default the warehouse."),
    key("command", Shape::Texts, "How dbt is started: one word, or a list such as `[uv, run, dbt]`. By default `dbt`."),
    key("target", Shape::Text, "dbt's target. By default that of its profile."),
    key("profiles", Shape::Text, "The folder with `profiles.yml`, relative to the project. By default dbt looks for it."),
    key("vars", Shape::Named(&Shape::Text), "Variables of dbt."),
    PROGRAM[2],
    key("owner", Shape::Text, "Who answers for the assets."),
    key("group", Shape::Text, "Their group. By default the first part of each key, which is dbt's schema."),
    key("tags", Shape::Texts, "Free labels, beside those that dbt knows."),
    key(
        "automation",
        Shape::TextOr(AUTOMATION),
        "When they are brought up to date by themselves, while `subak server start` runs.",
    ),
    FRESHNESS_KEY,
    POOLS,
    key("retry", Shape::Map(RETRY), "How often a failed step is tried again."),
    key("timeout", Shape::Duration, "Upper bound for one start of dbt."),
];

/// Keys of a stream that mean nothing for a script.
pub const NOT_OF_SCRIPTS: &[&str] = &["stream", "exclude", "asset", "cursor", "path"];

/// `graph`: an asset that tasks make.
pub static GRAPH: &[Key] = &[
    required(
        "tasks",
        Shape::Tasks,
        "The tasks that make it, by name, as in a job; the asset is made when the last of them have succeeded.",
    ),
    key("asset", Shape::Text, "Its key. By default that of the file's path."),
    key("on", Shape::Text, "The connection that holds its table, on which its checks are evaluated. By default the warehouse."),
    key("depends_on", Shape::Texts, "The assets that its tasks read: the first tasks wait for them."),
    key("checks", Shape::List(&Shape::Check), "Statements about the table, evaluated when the tasks have made it."),
    key("description", Shape::Text, "What the asset is, for people."),
    key("owner", Shape::Text, "Who answers for it."),
    key("group", Shape::Text, "Its group. By default the first part of its key."),
    key("tags", Shape::Texts, "Free labels."),
    key(
        "automation",
        Shape::TextOr(AUTOMATION),
        "When it is brought up to date by itself, while `subak server start` runs: `on_upstream_update`, `on_missing`, `none`, or a mapping.",
    ),
    FRESHNESS_KEY,
    POOLS,
    key("retry", Shape::Map(RETRY), "How often a failed task is tried again. By default a task is tried once."),
    key("timeout", Shape::Duration, "Upper bound for one attempt of a task."),
];

/// `external`.
pub static EXTERNAL: &[Key] = &[
    key("asset", Shape::Text, "Its key. By default that of the file's path."),
    key(
        "observe",
        Shape::Map(OBSERVE),
        "How each run looks whether it has changed: what reads it is due when what is found is another one than before. Without it, whatever reads it is due in each run.",
    ),
    key("description", Shape::Text, "What the asset is, for people."),
    key("owner", Shape::Text, "Who answers for it."),
    key("group", Shape::Text, "Its group. By default the first part of its key."),
    key("tags", Shape::Texts, "Free labels."),
    key("automation", Shape::TextOr(AUTOMATION), "When it is looked at by itself, while `subak server start` runs."),
    FRESHNESS_KEY,
    POOLS,
    key("retry", Shape::Map(RETRY), "How often a failed look is tried again."),
    key("timeout", Shape::Duration, "Upper bound for one look."),
];

/// How to see whether something has changed: one of these.
pub static OBSERVE: &[Key] = &[
    key(
        "query",
        Shape::TextOr(STATEMENT),
        "A query, on the warehouse where nothing else is said: `select max(updated_at), count(*) from raw.orders`. The first row counts.",
    ),
    key("http", Shape::TextOr(HTTP_CALL), "A request; status and body of the answer count."),
    key("run", Shape::Program(PROGRAM), "A program; what it writes to the file `SUBAK_VALUE_PATH` as JSON counts."),
    key("python", Shape::Texts, "A Python file and its arguments; the same."),
];
