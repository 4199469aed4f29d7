//! Every key that a project file knows: its shape, its meaning, whether it must be there. Decoding, the editor schema and the
//! reference pages read these tables.

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
    /// A connection: `type` and the keys of its connector.
    Connection,
    /// A text or a mapping with these keys.
    TextOr(&'static [Key]),
    /// A stream: these keys and those of the source's connector.
    Stream(&'static [Key]),
    /// A check.
    Check,
}

const fn key(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { name, shape, is_required: false, doc }
}

const fn required(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { name, shape, is_required: true, doc }
}

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
    key("defaults", Shape::Map(DEFAULTS), "Settings that assets have where they say nothing."),
    key("external", Shape::List(&Shape::Text), "Keys of assets that something outside keeps up to date in the warehouse."),
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
];

/// `retry`.
pub static RETRY: &[Key] = &[
    key("attempts_max", Shape::Count, "Attempts in all, the first one included. By default 3."),
    key("delay_first", Shape::Duration, "Wait before the second attempt; doubles each time. By default `1s`."),
    key("delay_max", Shape::Duration, "Upper bound for the wait between two attempts. By default `60s`."),
    key("jitter", Shape::Share, "Share of the wait that varies, from 0 to 1. By default 0.2."),
];

/// A file with `ingest:`.
pub static INGEST_FILE: &[Key] = &[
    key("ingest", Shape::Map(INGEST), "Loads streams of a source into tables; each stream is an asset."),
    key("seed", Shape::Map(SEED), "Types and checks of the seed with the same name as this file."),
];

/// `ingest`.
pub static INGEST: &[Key] = &[
    required("from", Shape::Text, "The connection that is read."),
    key("to", Shape::Text, "The connection that is written. By default the warehouse."),
    key("defaults", Shape::Stream(STREAM), "Settings of every stream that does not say otherwise."),
    required("streams", Shape::Named(&Shape::Stream(STREAM)), "The streams by the name of the asset that they become."),
];

/// One stream.
pub static STREAM: &[Key] = &[
    key("stream", Shape::Text, "Name of the stream in the source. By default the asset's name."),
    key(
        "mode",
        Shape::Word(&["replace", "append", "merge"]),
        "What happens to rows that the table holds: they are replaced, they stay, or those with the same key are replaced. By default `merge` with a `primary_key`, `append` with a `cursor` alone, else `replace`.",
    ),
    key("primary_key", Shape::Texts, "The columns that identify a row."),
    key("cursor", Shape::TextOr(CURSOR), "The column by which new rows are found."),
    key("columns", Shape::Named(&Shape::Type), "Types by column. Other columns keep the type that the source reports."),
    key("checks", Shape::List(&Shape::Check), "Statements about the table, evaluated before readers see it."),
    key("description", Shape::Text, "What the asset is, for people."),
    key("owner", Shape::Text, "Who answers for it."),
    key("group", Shape::Text, "Its group. By default the first part of its key."),
    key("tags", Shape::Texts, "Free labels."),
    key("retry", Shape::Map(RETRY), "How often a failed step is tried again."),
    key("timeout", Shape::Duration, "Upper bound for one attempt."),
];

/// `cursor` as a mapping.
pub static CURSOR: &[Key] = &[
    required("column", Shape::Text, "The column whose highest committed value bounds the next read from below."),
    key(
        "lag",
        Shape::Duration,
        "How far below that value the next read starts, so that rows that were committed late are found. Needs `mode: merge`.",
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
];

/// The header comment of a SQL asset.
pub static SQL_HEADER: &[Key] = &[
    key("stored_as", Shape::Word(&["view", "table"]), "How the result is kept. By default `view`."),
    key("on", Shape::Text, "The connection that runs the query. By default the warehouse."),
    key("depends_on", Shape::Texts, "Assets that it reads, where the SQL does not say so in a way that can be parsed."),
    key("checks", Shape::List(&Shape::Check), "Statements about the result, evaluated before readers see it."),
    key("description", Shape::Text, "What the asset is, for people."),
    key("owner", Shape::Text, "Who answers for it."),
    key("group", Shape::Text, "Its group. By default the first part of its key."),
    key("tags", Shape::Texts, "Free labels."),
    key("retry", Shape::Map(RETRY), "How often a failed step is tried again."),
    key("timeout", Shape::Duration, "Upper bound for one attempt."),
];

/// The header comment of a standalone check.
pub static CHECK_HEADER: &[Key] = &[
    key("on", Shape::Text, "The connection that runs the query. By default the warehouse."),
    key("depends_on", Shape::Texts, "Assets that it reads, where the SQL does not say so in a way that can be parsed."),
    key("severity", Shape::Word(&["error", "warn"]), "Whether bad rows fail the run. By default `error`."),
    key("description", Shape::Text, "What it proves, for people."),
];

/// A check of an asset: exactly one of the first three, and how to take a failure.
pub static CHECK: &[Key] = &[
    key("not_null", Shape::Texts, "Columns in which no row has a NULL."),
    key("unique", Shape::Texts, "Columns whose values, taken together, no two rows share."),
    key("sql", Shape::Text, "A query that returns the bad rows; `{{ this }}` stands for the table."),
    key("name", Shape::Text, "Its name. By default it follows from what it says."),
    key("severity", Shape::Word(&["error", "warn"]), "Whether bad rows fail the run. By default `error`."),
    key("blocking", Shape::Boolean, "Whether bad rows keep readers on the old table. By default `true` with `severity: error`."),
];
