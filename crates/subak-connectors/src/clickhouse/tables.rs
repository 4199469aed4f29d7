//! Tables as they stand on the server, and names of those that a load makes for itself.

use serde::{Deserialize, Serialize};
use subak_connect::{ConnectError, TableName};

use super::prepare::Stage;
use super::{DIALECT, Server};

/// The database for state and for tables of loads.
pub(super) const OWN_DATABASE: &str = "_subak";

/// Tables of loads begin with this, so that leftovers can be found.
pub(super) const STAGE_PREFIX: &str = "__subak_stage_";

/// The hidden column that names the load of a row by its number in the ledger; of several rows with one key the highest counts.
pub(super) const LOAD_COLUMN: &str = "__subak_load";

/// The column of a keyed table that says that the key is gone.
pub(super) const DELETED_COLUMN: &str = "__subak_deleted";

/// A table by database and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Name {
    pub(super) database: String,
    pub(super) name: String,
}

impl Name {
    pub(super) fn new(database: &str, name: &str) -> Self {
        Self { database: database.to_owned(), name: name.to_owned() }
    }

    /// The quoted name.
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", DIALECT.identifier(&self.database), DIALECT.identifier(&self.name))
    }

    /// The same name with something behind it.
    pub(super) fn with(&self, suffix: &str) -> Self {
        Self { database: self.database.clone(), name: format!("{}{suffix}", self.name) }
    }

    /// The condition that finds it in a catalog of the server.
    fn is(&self, column: &str) -> String {
        format!("database = {} and {column} = {}", DIALECT.literal(&self.database), DIALECT.literal(&self.name))
    }
}

/// How a table is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Layout {
    /// A table.
    Plain,
    /// A view that shows the newest row of each key, over a table with all of them.
    Keyed,
    /// A view of somebody else, or of a SQL asset.
    View,
}

/// A table that is there.
#[derive(Debug, Clone)]
pub(super) struct Relation {
    pub(super) layout: Layout,
    /// Its columns as `select *` shows them, with their types.
    pub(super) columns: Vec<(String, String)>,
    /// The table with its rows.
    pub(super) rows: Name,
    /// Columns that are stored there.
    pub(super) stored: Vec<(String, String)>,
    /// Engine, order and partitions, as they stand behind `engine =`.
    pub(super) engine: String,
}

impl Relation {
    pub(super) fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|(name, _)| name == column)
    }
}

/// What a type is apart from NULL and from how it is coded.
pub(super) fn bare(word: &str) -> &str {
    let inner = |word, prefix| str::strip_prefix(word, prefix).and_then(|rest| rest.strip_suffix(')'));
    let word = inner(word, "LowCardinality(").unwrap_or(word);
    inner(word, "Nullable(").unwrap_or(word)
}

/// A type with NULL, where it can have one.
pub(super) fn nullable(word: &str) -> String {
    let is_whole = ["Array(", "Map(", "Tuple(", "Nested(", "Variant(", "Dynamic", "JSON", "Object(", "AggregateFunction("];
    if is_whole.iter().any(|prefix| word.starts_with(prefix)) { word.to_owned() } else { format!("Nullable({word})") }
}

impl Server {
    /// The name of a table, with the database of the connection where it names none.
    pub(super) fn name_of(&self, table: &TableName) -> Name {
        Name { database: table.schema.clone().unwrap_or_else(|| self.client.database.to_string()), name: table.name.clone() }
    }

    /// The engine of a table, as it stands behind `engine =`; `None` when there is no table.
    async fn engine(&self, name: &Name) -> Result<Option<(String, String)>, ConnectError> {
        let rows =
            self.client.catalog(&format!("select engine, engine_full from system.tables where {}", name.is("name"))).await?;
        let mut cells = rows.into_iter().next().unwrap_or_default().into_iter().map(Option::unwrap_or_default);
        Ok(cells.next().map(|engine| (engine, cells.next().unwrap_or_default())))
    }

    async fn columns(&self, name: &Name) -> Result<Vec<[String; 4]>, ConnectError> {
        let sql = format!("select name, type, default_kind, default_expression from system.columns where {}", name.is("table"));
        let column = |row: super::client::Texts| {
            let mut cells = row.into_iter().map(Option::unwrap_or_default);
            [(); 4].map(|()| cells.next().unwrap_or_default())
        };
        Ok(self.client.catalog(&sql).await?.into_iter().map(column).collect())
    }

    pub(super) async fn exists(&self, name: &Name) -> Result<bool, ConnectError> {
        Ok(self.engine(name).await?.is_some())
    }

    /// What stands under a name.
    pub(super) async fn relation(&self, name: &Name) -> Result<Option<Relation>, ConnectError> {
        let Some((engine, full)) = self.engine(name).await? else { return Ok(None) };
        let all = self.columns(name).await?;
        let is_shown = |kind: &str| !matches!(kind, "MATERIALIZED" | "ALIAS" | "EPHEMERAL");
        let shown = all.iter().filter(|[_, _, kind, _]| is_shown(kind));
        let columns = shown.map(|[name, word, ..]| (name.clone(), word.clone())).collect();
        let stored_of = |all: Vec<[String; 4]>| -> Vec<(String, String)> {
            let is_stored = |kind: &str| !matches!(kind, "ALIAS" | "EPHEMERAL");
            let column = |[name, word, kind, expression]: [String; 4]| {
                // What the server computes it computes for parts that are attached too.
                let is_computed = !kind.is_empty() && name != LOAD_COLUMN;
                let word = if is_computed { format!("{word} {kind} {expression}") } else { word };
                (name, word)
            };
            all.into_iter().filter(|[_, _, kind, _]| is_stored(kind)).map(column).collect()
        };
        if !engine.ends_with("View") {
            return Ok(Some(Relation {
                layout: Layout::Plain,
                columns,
                rows: name.clone(),
                stored: stored_of(all),
                engine: full,
            }));
        }
        let rows = rows_of(name);
        if let Some((_, full)) = self.engine(&rows).await? {
            let stored = stored_of(self.columns(&rows).await?);
            let has = |column: &str| stored.iter().any(|(name, _)| name == column);
            if has(LOAD_COLUMN) && has(DELETED_COLUMN) {
                return Ok(Some(Relation { layout: Layout::Keyed, columns, rows, stored, engine: full }));
            }
        }
        Ok(Some(Relation { layout: Layout::View, columns, rows: name.clone(), stored: Vec::new(), engine: String::new() }))
    }

    /// Drops the table behind the view of a keyed table, if it is one.
    pub(super) async fn drop_rows_of(&self, table: &Name) -> Result<(), ConnectError> {
        let rows = rows_of(table);
        let is_ours =
            self.columns(&rows).await?.iter().filter(|[name, ..]| name == LOAD_COLUMN || name == DELETED_COLUMN).count() == 2;
        if is_ours { self.drop_any(&rows).await } else { Ok(()) }
    }

    /// Drops whatever stands under a name.
    pub(super) async fn drop_any(&self, name: &Name) -> Result<(), ConnectError> {
        // `drop table` takes views too.
        self.client.execute(&format!("drop table if exists {}", name.quoted())).await
    }

    /// Drops whatever is there of the tables of a load.
    pub(super) async fn drop_stage(&self, stage: &Stage) -> Result<(), ConnectError> {
        let base = &stage.0;
        let sql = format!(
            "select name from system.tables where database = {} and substring(name, 1, {}) = {}",
            DIALECT.literal(&base.database),
            base.name.len(),
            DIALECT.literal(&base.name)
        );
        let names = self.client.catalog(&sql).await?.into_iter().filter_map(|row| row.into_iter().next().flatten());
        for name in names.filter(|name| stage.has(name)) {
            self.drop_any(&Name::new(&base.database, &name)).await?;
        }
        Ok(())
    }

    /// The number of the load that made a table, by the hidden column; `None` when the table has none.
    pub(super) async fn maker(&self, name: &Name) -> Result<Option<u64>, ConnectError> {
        let sql = format!(
            "select default_expression from system.columns where {} and name = {}",
            name.is("table"),
            DIALECT.literal(LOAD_COLUMN)
        );
        let rows = self.client.catalog(&sql).await?;
        let text = rows.first().and_then(|row| row.first()).and_then(Option::as_deref).unwrap_or_default();
        // Servers write the type around it: `CAST(5, 'UInt64')`, `_CAST(5, …)`.
        let number = text.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty());
        Ok(number.and_then(|number| number.parse().ok()))
    }

    /// The partitions of a table that have rows.
    pub(super) async fn partitions(&self, name: &Name) -> Result<Vec<String>, ConnectError> {
        let sql = if self.client.is_modern() {
            format!("select distinct partition_id from system.parts where {} and active order by 1", name.is("table"))
        } else {
            // The part of a name before the first underscore.
            format!(
                "select distinct substring(name, 1, position(name, '_') - 1) from system.parts where {} and active order by 1",
                name.is("table")
            )
        };
        Ok(self.client.catalog(&sql).await?.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
    }
}

/// The table behind the view of a keyed table.
pub(super) fn rows_of(name: &Name) -> Name {
    name.with("__rows")
}
