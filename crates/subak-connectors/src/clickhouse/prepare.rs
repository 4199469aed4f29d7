//! Comparing staged rows with their table: from what arrived to the rows that publication will add, in tables of the load's own.

use serde::{Deserialize, Serialize};
use subak_connect::sink::{DELETE_MARK, UNCHANGED};
use subak_connect::{ConnectError, ConnectErrorKind, LoadRequest, SlicePart, StagedRows};
use subak_domain::WriteMode;
use subak_domain::write::{OrderBy, Tie};

use super::publish::Action;
use super::script::{Storage, Typed, equal_hashes, hashes, list, names, typed};
use super::tables::{DELETED_COLUMN, LOAD_COLUMN, Layout, Name, Relation, bare, nullable, rows_of};
use super::{DIALECT, Server};
use crate::staging::late;

/// The column of a stage that numbers its rows in the order of their arrival.
pub(super) const ROW_COLUMN: &str = "__subak_row";

/// The tables of one load: that of its rows, and others whose names begin with the same and an underscore.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stage(pub(super) Name);

impl Stage {
    pub(super) fn rows(&self) -> Name {
        self.0.clone()
    }
    pub(super) fn rejects(&self) -> Name {
        self.0.with("_r")
    }
    pub(super) fn child(&self, at: usize) -> Name {
        self.0.with(&format!("_c{at}"))
    }
    /// One row of each key.
    pub(super) fn latest(&self) -> Name {
        self.0.with("_d")
    }
    /// What the table holds of the keys that arrive.
    pub(super) fn held(&self) -> Name {
        self.0.with("_h")
    }
    /// The rows that will be visible.
    pub(super) fn fresh(&self) -> Name {
        self.0.with("_f")
    }
    /// Whether a table of our database is one of them.
    pub(super) fn has(&self, table: &str) -> bool {
        table.strip_prefix(self.0.name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    }
}

/// What is known about a stage once it is complete.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) target: Name,
    pub(super) held: Option<Relation>,
    pub(super) number: u64,
    pub(super) rows: StagedRows,
    pub(super) reject_count: u64,
    pub(super) changed: bool,
    /// How the fresh rows become visible.
    pub(super) action: Action,
    /// How the table stands afterwards.
    pub(super) layout: Layout,
    /// Its columns then.
    pub(super) columns: Vec<Typed>,
    /// Columns that a table which stays gets.
    pub(super) added: Vec<Typed>,
    /// For an append: what the cursor column held at most before they came.
    pub(super) added_after: Option<String>,
    /// Columns of it that become wider.
    pub(super) widened: Vec<Typed>,
    pub(super) removed: Vec<String>,
    /// The rows as they will be, as something that can stand behind `from`.
    pub(super) preview: String,
    /// The table with the keys of the rows that arrived.
    pub(super) keys_from: Name,
}

/// A load in the middle of being prepared.
pub(super) struct Preparing<'a> {
    pub(super) server: &'a Server,
    pub(super) stage: &'a Stage,
    pub(super) request: &'a LoadRequest,
    /// Columns that are stored.
    pub(super) columns: Vec<Typed>,
    /// Where the rows that still count stand.
    pub(super) from: Name,
    has_marks: bool,
    pub(super) done: Prepared,
}

fn any_null(columns: &[String]) -> String {
    columns.iter().map(|column| format!("{} is null", DIALECT.identifier(column))).collect::<Vec<_>>().join(" or ")
}

/// The order of rows that puts the one that stays first.
fn order_of(terms: &[OrderBy]) -> Vec<String> {
    let term = |term: &OrderBy| {
        let direction = if term.is_descending { "desc" } else { "asc" };
        let nulls = if term.nulls_first { "first" } else { "last" };
        format!("{} {direction} nulls {nulls}", DIALECT.identifier(&term.column))
    };
    terms.iter().map(term).collect()
}

/// Compares a complete stage with its table. Changes tables of the load only.
pub(super) async fn prepare(
    server: &Server,
    stage: &Stage,
    request: &LoadRequest,
    staged: &[Typed],
) -> Result<Prepared, ConnectError> {
    let target = server.name_of(&request.table);
    let held = server.relation(&target).await?;
    if held.as_ref().is_some_and(|held| held.layout == Layout::View) && request.mode != WriteMode::Replace {
        let message = format!("`{}` is a view, and rows cannot be loaded into it", request.table);
        return Err(ConnectError::new(ConnectErrorKind::SchemaChanged, message).help("drop the view, or rename the asset"));
    }
    let is_technical = |name: &str| name == DELETE_MARK || name == UNCHANGED || name == ROW_COLUMN;
    let columns: Vec<Typed> = staged.iter().filter(|column| !is_technical(&column.name)).cloned().collect();
    let done = Prepared {
        number: server.next_number().await?,
        rows: StagedRows::default(),
        reject_count: if server.exists(&stage.rejects()).await? {
            server.client.count(&format!("select count() from {}", stage.rejects().quoted())).await?
        } else {
            0
        },
        changed: true,
        action: Action::Swap,
        layout: Layout::Plain,
        columns: columns.clone(),
        added: Vec::new(),
        added_after: None,
        widened: columns.iter().filter(|column| request.widened.contains(&column.name)).cloned().collect(),
        removed: request.removed.clone(),
        preview: String::new(),
        keys_from: stage.rows(),
        target,
        held,
    };
    let has_marks = staged.iter().any(|column| column.name == DELETE_MARK);
    refuse_reserved(request, &done)?;
    let mut preparing = Preparing { server, stage, request, columns, from: stage.rows(), has_marks, done };
    preparing.refuse_changed_types()?;
    preparing.run().await?;
    Ok(preparing.done)
}

/// Names that belong to Subak, and columns whose type cannot become wider.
fn refuse_reserved(request: &LoadRequest, done: &Prepared) -> Result<(), ConnectError> {
    let rows = rows_of(&done.target);
    if let Some(child) = request.children.iter().find(|child| child.table.name == rows.name) {
        let message =
            format!("a nested list of `{}` cannot be called `rows`: `{}` is the table behind it", request.table, child.table);
        return Err(ConnectError::new(ConnectErrorKind::Config, message).help("give it another name under `children:`"));
    }
    let is_key = |column: &&Typed| request.primary_key.contains(&column.name);
    if let Some(column) = done.widened.iter().find(is_key).filter(|_| request.mode == WriteMode::Merge) {
        let message = format!("the key column `{}` of `{}` cannot become wider", column.name, request.table);
        let help = "declare its type, or load the table anew with `--full-refresh`";
        return Err(ConnectError::new(ConnectErrorKind::SchemaChanged, message).help(help));
    }
    Ok(())
}

impl Preparing<'_> {
    fn is_rebuilt(&self) -> bool {
        self.request.mode != WriteMode::Snapshot && (self.request.mode == WriteMode::Replace || self.done.held.is_none())
    }

    /// Whether the table keeps all versions of its rows and a view shows the newest.
    fn is_keyed(&self) -> bool {
        self.request.has_unique_key
            && !self.request.primary_key.is_empty()
            && matches!(self.request.mode, WriteMode::Merge | WriteMode::Replace)
    }

    fn refuse_changed_types(&self) -> Result<(), ConnectError> {
        let Some(held) = self.done.held.as_ref().filter(|_| self.request.mode != WriteMode::Replace) else { return Ok(()) };
        for column in self.columns.iter().filter(|column| !self.request.widened.contains(&column.name)) {
            let known = held.columns.iter().find(|(name, _)| *name == column.name);
            if let Some((_, word)) = known.filter(|(_, word)| bare(word) != column.word) {
                let message = format!(
                    "column `{}` of `{}` is {} and arrives as {}",
                    column.name,
                    self.request.table,
                    bare(word),
                    column.word
                );
                let help =
                    format!("declare the type of `{}` under `columns:`, or rebuild the table with `--full-refresh`", column.name);
                return Err(ConnectError::new(ConnectErrorKind::SchemaChanged, message).help(help));
            }
        }
        Ok(())
    }

    pub(super) async fn count(&self, from: &str) -> Result<u64, ConnectError> {
        self.server.client.count(&format!("select count() from {from}")).await
    }

    async fn run(&mut self) -> Result<(), ConnectError> {
        let request = self.request;
        let has_key =
            !request.primary_key.is_empty() && (request.has_unique_key || request.latest.is_some() || request.mode.needs_key());
        if has_key {
            self.refuse_null_keys().await?;
        }
        let has_unchanged = request.schema.index_of(UNCHANGED).is_ok();
        if request.latest.is_some() || has_unchanged {
            self.keep_latest(has_unchanged).await?;
        }
        if request.has_unique_key {
            self.refuse_double_keys().await?;
        }
        self.refuse_outside().await?;
        self.done.keys_from = self.from.clone();
        match request.mode {
            _ if self.is_rebuilt() => self.rebuild().await?,
            WriteMode::Append => self.append().await?,
            WriteMode::Merge => self.merge().await?,
            WriteMode::DeleteInsert => self.replace_groups().await?,
            WriteMode::Snapshot => self.add_versions().await?,
            WriteMode::Replace => {}
        }
        if !self.done.changed {
            self.done.action = Action::Nothing;
        }
        Ok(())
    }

    async fn refuse_null_keys(&self) -> Result<(), ConnectError> {
        let test = any_null(&self.request.primary_key);
        let row =
            self.sample(&format!("select {} from {} where {test}", list(&names(&self.columns)), self.from.quoted()), 1).await?;
        let Some(row) = row.first() else { return Ok(()) };
        let message = format!("`{}` would get rows without a key: {row}", self.request.table);
        let help = "correct the source, declare another `primary_key:`, or keep such rows apart with `on_reject: quarantine`";
        Err(ConnectError::new(ConnectErrorKind::KeyNull, message).help(help))
    }

    async fn refuse_double_keys(&self) -> Result<(), ConnectError> {
        let keys = list(&self.request.primary_key);
        let sql = format!("select {keys} from {} group by {keys} having count() > 1", self.from.quoted());
        let rows = self.sample(&sql, 3).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let message = format!("`{}` would get several rows with one key: {}", self.request.table, rows.join("; "));
        let help = "correct the source, declare another `primary_key:`, or say which row stays with `deduplicate:`";
        Err(ConnectError::new(ConnectErrorKind::KeyTwice, message).help(help))
    }

    async fn sample(&self, sql: &str, count_max: usize) -> Result<Vec<String>, ConnectError> {
        super::sink::sample(self.server, sql, count_max).await
    }

    /// Keeps one row of each key, and gives it the values that it does not say.
    async fn keep_latest(&mut self, has_unchanged: bool) -> Result<(), ConnectError> {
        let request = self.request;
        let keys = list(&request.primary_key);
        let latest = request.latest.as_ref();
        let terms = latest.map(|latest| order_of(&latest.order)).unwrap_or_default();
        let row = if latest.is_some_and(|latest| latest.tie == Tie::First) { "asc" } else { "desc" };
        let mut order: Vec<String> = vec![keys.clone()];
        order.extend(terms);
        order.push(format!("{ROW_COLUMN} {row}"));
        let stored = names(&self.columns);
        let mut values: Vec<String> = stored.iter().map(|name| DIALECT.identifier(name)).collect();
        let mut from = format!("(select * from {} order by {} limit 1 by {keys})", self.from.quoted(), order.join(", "));
        if has_unchanged {
            (values, from) = self.fill_unchanged(&from).await?;
        }
        let mut targets = stored;
        if self.has_marks {
            targets.push(DELETE_MARK.to_owned());
            values.push(DIALECT.identifier(DELETE_MARK));
        }
        targets.push(ROW_COLUMN.to_owned());
        values.push(ROW_COLUMN.to_owned());
        let latest = self.stage.latest();
        self.make_like_stage(&latest, &targets).await?;
        let sql = format!("insert into {} ({}) select {} from {from}", latest.quoted(), list(&targets), values.join(", "));
        self.server.client.execute_with(&sql, &[("join_use_nulls", "1")]).await?;
        if request.latest.is_some() {
            self.done.rows.superseded += self.count(&self.from.quoted()).await? - self.count(&latest.quoted()).await?;
        }
        self.from = latest;
        Ok(())
    }

    /// A table with these columns of the stage.
    async fn make_like_stage(&self, name: &Name, columns: &[String]) -> Result<(), ConnectError> {
        let word = |column: &String| match column.as_str() {
            ROW_COLUMN => "UInt64".to_owned(),
            DELETE_MARK => "Nullable(UInt8)".to_owned(),
            _ => {
                let known = self.columns.iter().find(|known| known.name == *column);
                known.map_or_else(|| "Nullable(String)".to_owned(), |known| nullable(&known.word))
            }
        };
        let parts: Vec<String> =
            columns.iter().map(|column| format!("{} {}", DIALECT.identifier(column), word(column))).collect();
        let sql = format!("create table {} ({}) engine = MergeTree order by tuple()", name.quoted(), parts.join(", "));
        self.server.client.execute(&sql).await
    }

    /// The values of rows of which some do not say every value: those that an earlier row of the load says, else those of the table.
    async fn fill_unchanged(&self, from: &str) -> Result<(Vec<String>, String), ConnectError> {
        if !self.server.client.is_modern() {
            let message = "events that leave out values need ClickHouse 23.3 or newer";
            return Err(ConnectError::new(ConnectErrorKind::Config, message).help("let the database log whole rows"));
        }
        let mark = DIALECT.identifier(UNCHANGED);
        let lists = self
            .server
            .client
            .rows(&format!("select distinct {mark} from {} where {mark} is not null", self.stage.rows().quoted()))
            .await?;
        let named: std::collections::BTreeSet<String> =
            lists.iter().flatten().flatten().flat_map(|list| list.split(',')).map(str::to_owned).collect();
        let keys = list(&self.request.primary_key);
        let says = |name: &str| format!("(ifNull(position({mark}, {}), 0) = 0)", DIALECT.literal(&format!(",{name},")));
        let newest = match self.request.latest.iter().flat_map(|latest| &latest.order).next() {
            Some(term) => {
                let column = DIALECT.identifier(&term.column);
                format!("tuple(isNotNull({column}), assumeNotNull({column}), {ROW_COLUMN})")
            }
            None => ROW_COLUMN.to_owned(),
        };
        let mut earlier = vec![keys.clone()];
        let mut held = vec![keys.clone()];
        let mut values = Vec::new();
        for (at, column) in self.columns.iter().enumerate() {
            let quoted = column.quoted();
            if !named.contains(&column.name) {
                values.push(quoted);
                continue;
            }
            let said = says(&column.name);
            earlier.push(format!("countIf({said}) as e{at}_count, argMaxIf(tuple({quoted}), {newest}, {said}) as e{at}"));
            let is_held = self.done.held.as_ref().is_some_and(|held| held.has(&column.name));
            let fallback = if is_held {
                held.push(format!("{quoted} as h{at}"));
                format!("h{at}")
            } else {
                "null".to_owned()
            };
            values.push(format!("if({said}, {quoted}, if(e{at}_count > 0, tupleElement(e{at}, 1), {fallback}))"));
        }
        let mut joined = format!(
            "{from} as s any left join (select {} from {} group by {keys}) as e using ({keys})",
            earlier.join(", "),
            self.stage.rows().quoted()
        );
        if held.len() > 1 {
            joined = format!(
                "(select * from {joined}) as j any left join (select {} from {} where ({keys}) in (select {keys} from {})) as h using ({keys})",
                held.join(", "),
                self.done.target.quoted(),
                self.stage.rows().quoted()
            );
        }
        Ok((values, joined))
    }

    fn layout(&self) -> &subak_domain::Layout {
        &self.request.layout
    }

    pub(super) fn storage(&self, is_keyed: bool) -> Storage<'_> {
        Storage { keys: is_keyed.then_some(self.request.primary_key.as_slice()), layout: self.layout() }
    }

    /// The condition for rows that delete nothing.
    fn unmarked(&self) -> String {
        if self.has_marks { format!(" where ifNull({}, 0) = 0", DIALECT.identifier(DELETE_MARK)) } else { String::new() }
    }

    /// The whole table anew.
    async fn rebuild(&mut self) -> Result<(), ConnectError> {
        let (server, is_keyed) = (self.server, self.is_keyed());
        if self.request.mode == WriteMode::Append {
            self.refuse_engine(self.request.layout.engine.as_deref().unwrap_or_default())?;
        }
        let fresh = self.stage.fresh();
        let (stored, number) = (names(&self.columns), self.done.number);
        server.create(&fresh, &self.columns, &self.storage(is_keyed), number).await?;
        self.refuse_nulls(&stored, is_keyed).await?;
        let deleted = format!("ifNull({}, 0)", DIALECT.identifier(DELETE_MARK));
        if self.has_marks {
            self.done.rows.overlap += self.count(&format!("{} where {deleted} = 1", self.from.quoted())).await?;
        }
        // Nothing is there to be deleted from, but a late row must not bring back what was deleted.
        let keeps = self.has_marks && self.request.keeps_tombstones && is_keyed;
        let (more, value) = if keeps { (format!(", {DELETED_COLUMN}"), format!(", {deleted}")) } else { Default::default() };
        let condition = if keeps { String::new() } else { self.unmarked() };
        let columns = list(&stored);
        let order = if is_keyed { String::new() } else { format!(" order by {ROW_COLUMN}") };
        let sql = format!(
            "insert into {} ({columns}{more}) select {} from {}{condition}{order}",
            fresh.quoted(),
            self.selected(&stored, is_keyed) + &value,
            self.from.quoted()
        );
        server.client.execute(&sql).await?;
        let shown = if is_keyed { format!("{} where {DELETED_COLUMN} = 0", fresh.quoted()) } else { fresh.quoted() };
        self.done.rows.written = self.count(&shown).await?;
        self.done.layout = if is_keyed { Layout::Keyed } else { Layout::Plain };
        self.done.preview = format!("(select {columns} from {shown})");
        let Some(held) = self.done.held.clone().filter(|held| held.layout != Layout::View) else { return Ok(()) };
        let is_same_shape = held.columns.len() == self.columns.len()
            && self
                .columns
                .iter()
                .all(|column| held.columns.iter().any(|(name, word)| *name == column.name && bare(word) == column.word));
        let is_laid_out = server.stream_state(&self.done.target).await?.layout == self.request.layout;
        if !is_same_shape || !is_laid_out {
            return Ok(());
        }
        let compared: Vec<Typed> =
            self.columns.iter().filter(|column| !self.request.volatile.contains(&column.name)).cloned().collect();
        let (own, theirs) =
            (server.digest(&shown, &compared).await?, server.digest(&self.done.target.quoted(), &compared).await?);
        if own == theirs && self.lists_are_equal().await? {
            self.done.changed = false;
            self.done.rows.overlap += std::mem::take(&mut self.done.rows.written);
        }
        Ok(())
    }

    /// Columns that order or divide the table, or by which rows leave it, need values.
    async fn refuse_nulls(&self, stored: &[String], is_keyed: bool) -> Result<(), ConnectError> {
        let is_modern = self.server.client.is_modern();
        let storage = self.storage(is_keyed);
        let needed: Vec<String> = stored.iter().filter(|name| !storage.is_nullable(name, is_modern)).cloned().collect();
        if needed.is_empty() || self.count(&format!("{} where {}", self.from.quoted(), any_null(&needed))).await? == 0 {
            return Ok(());
        }
        let message = format!("`{}` is laid out by {}, and some rows have no value there", self.request.table, list(&needed));
        let help = "give such rows a value with `default:`, or leave the column out of `layout:`";
        Err(ConnectError::new(ConnectErrorKind::KeyNull, message).help(help))
    }

    /// Columns as they are selected for a table; keys have values.
    fn selected(&self, columns: &[String], is_keyed: bool) -> String {
        let is_modern = self.server.client.is_modern();
        let storage = self.storage(is_keyed);
        let value = |name: &String| {
            let quoted = DIALECT.identifier(name);
            // None of them is NULL: that was counted.
            if storage.is_nullable(name, is_modern) { quoted } else { format!("assumeNotNull({quoted})") }
        };
        columns.iter().map(value).collect::<Vec<_>>().join(", ")
    }

    /// Whether nested lists are what they were.
    async fn lists_are_equal(&self) -> Result<bool, ConnectError> {
        for (at, child) in self.request.children.iter().enumerate() {
            let name = self.server.name_of(&child.table);
            let Some(held) = self.server.relation(&name).await? else { return Ok(false) };
            let Some(staged) = self.server.relation(&self.stage.child(at)).await? else { return Ok(false) };
            let columns = typed(&staged.columns);
            let is_same_shape = held.columns.len() == columns.len() && columns.iter().all(|column| held.has(&column.name));
            if !is_same_shape
                || self.server.digest(&self.stage.child(at).quoted(), &columns).await?
                    != self.server.digest(&name.quoted(), &columns).await?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Columns that the table has and that arrive, but for those that make no difference.
    pub(super) fn compared(&self) -> Vec<Typed> {
        let held = self.done.held.as_ref();
        let is_compared =
            |column: &&Typed| held.is_some_and(|held| held.has(&column.name)) && !self.request.volatile.contains(&column.name);
        self.columns.iter().filter(is_compared).cloned().collect()
    }

    /// Those of them that are no part of the key.
    pub(super) fn compared_beside_key(&self) -> Vec<Typed> {
        self.compared().into_iter().filter(|column| !self.request.primary_key.contains(&column.name)).collect()
    }

    /// Whether the table has the columns that arrive, and no others.
    fn is_same_shape(&self, held: &Relation) -> bool {
        held.columns.len() == self.columns.len() && self.columns.iter().all(|column| held.has(&column.name))
    }

    /// What the table has besides afterwards, and a table like it for the rows that are attached to it.
    async fn make_alike(&mut self) -> Result<(), ConnectError> {
        let Some(held) = self.done.held.clone() else { return Ok(()) };
        self.done.added = self.columns.iter().filter(|column| !held.has(&column.name)).cloned().collect();
        if !self.done.added.is_empty() && self.request.mode == WriteMode::Append {
            self.done.added_after = self.highest(&held).await?;
        }
        let mut stored = held.stored.clone();
        for (name, word) in &mut stored {
            if let Some(wider) = self.done.widened.iter().find(|wider| wider.name == *name) {
                *word = if word.starts_with("Nullable(") { nullable(&wider.word) } else { wider.word.clone() };
            }
        }
        stored.retain(|(name, _)| !self.done.removed.contains(name));
        // A load that died may have added columns already.
        let known: Vec<String> = stored.iter().map(|(name, _)| name.clone()).collect();
        let missing = self.done.added.iter().filter(|column| !known.contains(&column.name));
        stored.extend(missing.map(|column| (column.name.clone(), nullable(&column.word))));
        self.server.create_alike(&self.stage.fresh(), &stored, &held.engine, self.done.number).await?;
        let mut shown: Vec<Typed> =
            typed(&held.columns).into_iter().filter(|column| !self.done.removed.contains(&column.name)).collect();
        shown.extend(self.done.added.iter().cloned());
        self.done.columns = shown;
        self.done.layout = held.layout;
        self.done.action = Action::Attach;
        Ok(())
    }

    /// The rows that the table has and those of `own`, in the columns of the table afterwards.
    fn united(&self, held: &str, own: &str) -> String {
        let known = self.done.held.as_ref();
        let select = |has: &dyn Fn(&str) -> bool| {
            let item = |column: &Typed| {
                let word = nullable(&column.word);
                if has(&column.name) {
                    format!("cast({} as {word}) as {}", column.quoted(), column.quoted())
                } else {
                    format!("cast(null as {word}) as {}", column.quoted())
                }
            };
            self.done.columns.iter().map(item).collect::<Vec<_>>().join(", ")
        };
        format!(
            "(select {} from {held} union all select {} from {own})",
            select(&|name| known.is_some_and(|held| held.has(name))),
            select(&|name| self.columns.iter().any(|column| column.name == name))
        )
    }

    async fn append(&mut self) -> Result<(), ConnectError> {
        let Some(held) = self.done.held.clone() else { return Ok(()) };
        if self.count(&self.from.quoted()).await? == 0 {
            self.done.changed = false;
            self.done.preview = self.done.target.quoted();
            return Ok(());
        }
        let is_keyed = held.layout == Layout::Keyed;
        if !is_keyed {
            self.refuse_engine(&held.engine)?;
            self.make_alike().await?;
        }
        let (fresh, stored) = (self.stage.fresh(), names(&self.columns));
        let compared = self.compared();
        let mut condition = String::new();
        if self.request.overlap.is_some() && self.request.children.is_empty() && !compared.is_empty() {
            let [one, other] = hashes(&compared, self.server.client.is_modern());
            let late = self.late_columns(&compared).await?;
            // Rows with the columns as they are compared.
            let seen = |row: &str, table: &Name| {
                let item = |column: &Typed| {
                    let value = late.iter().find(|(name, _)| *name == column.name).map(|(_, value)| value);
                    value.map_or_else(|| column.quoted(), |value| format!("{value} as {}", column.quoted()))
                };
                let items = compared.iter().map(item).collect::<Vec<_>>().join(", ");
                format!("(select {row}{items} from {})", table.quoted())
            };
            // Of equal rows that arrive, as many are left out as the table has.
            condition = format!(
                " where {ROW_COLUMN} in (select arrayJoin(arraySlice(arraySort(s_rows), toInt64(t_held) + 1)) from \
                 (select s_rows, t_held from (select {one} as h_one, {other} as h_other, groupArray({ROW_COLUMN}) as s_rows from {} group by h_one, h_other) as s \
                 any left join (select h_one, h_other, count() as t_held from (select {one} as h_one, {other} as h_other from {}) group by h_one, h_other) \
                 as t using (h_one, h_other)))",
                seen(&format!("{ROW_COLUMN}, "), &self.from),
                seen("", &self.done.target)
            );
        }
        let columns = list(&stored);
        if is_keyed {
            // A table that keeps one row of each key is no table to add rows to: it becomes a plain one.
            self.done.rows.written = self.count(&format!("{}{condition}", self.from.quoted())).await?;
            self.done.rows.overlap += self.count(&self.from.quoted()).await? - self.done.rows.written;
            self.done.changed = self.done.rows.written > 0;
            return self.unite(&held, &self.done.target.quoted(), &condition).await;
        }
        let sql = format!(
            "insert into {} ({columns}) select {columns} from {}{condition} order by {ROW_COLUMN}",
            fresh.quoted(),
            self.from.quoted()
        );
        self.server.client.execute_with(&sql, &[("join_use_nulls", "0")]).await?;
        self.done.rows.written = self.count(&fresh.quoted()).await?;
        self.done.rows.overlap += self.count(&self.from.quoted()).await? - self.done.rows.written;
        self.done.changed = self.done.rows.written > 0;
        self.done.preview = self.united(&self.done.target.quoted(), &fresh.quoted());
        Ok(())
    }

    /// What takes the places of columns when rows are compared: NULL, for rows that may have been there before a column was.
    async fn late_columns(&self, compared: &[Typed]) -> Result<Vec<(String, String)>, ConnectError> {
        let Some(cursor) = &self.request.overlap else { return Ok(Vec::new()) };
        if !self.done.held.as_ref().is_some_and(|held| held.has(&cursor.column)) {
            return Ok(Vec::new());
        }
        let late = self.server.late_columns(&self.done.target).await?;
        let is_number = self.request.schema.field_with_name(&cursor.column).is_ok_and(|field| field.data_type().is_numeric());
        let item = |column: &Typed| {
            let highest = late.get(&column.name)?;
            Some((column.name.clone(), late::expression(&DIALECT, &column.name, &cursor.column, Some(highest), is_number)))
        };
        Ok(compared.iter().filter_map(item).collect())
    }

    /// What the cursor column of the table holds at most.
    async fn highest(&self, held: &Relation) -> Result<Option<String>, ConnectError> {
        let Some(cursor) = self.request.overlap.as_ref().filter(|cursor| held.has(&cursor.column)) else { return Ok(None) };
        let sql = format!("select toString(max({})) from {}", DIALECT.identifier(&cursor.column), self.done.target.quoted());
        Ok(self.server.client.rows(&sql).await?.into_iter().next().and_then(|row| row.into_iter().next()?))
    }

    /// Engines that merge rows into one merge the numbers of their loads too, by which a load that was cut off is found again.
    fn refuse_engine(&self, engine: &str) -> Result<(), ConnectError> {
        let merging = ["Summing", "Aggregating", "Collapsing", "Graphite", "Replacing"];
        if !merging.iter().any(|word| engine.contains(word)) {
            return Ok(());
        }
        let message =
            format!("`{}` is a table of an engine that merges rows, and rows cannot be added to it safely", self.request.table);
        let help = "use `MergeTree` and merge rows in a SQL asset, or `mode: merge`, or `mode: replace`";
        Err(ConnectError::new(ConnectErrorKind::Config, message).help(help))
    }

    /// What the table holds of the keys that arrive: the newest row of each, with its hashes and what orders it.
    async fn hold(&self, held: &Relation, compared: &[Typed]) -> Result<Name, ConnectError> {
        let keys = list(&self.request.primary_key);
        let name = self.stage.held();
        let [one, other] = hashes(compared, self.server.client.is_modern());
        let mut items =
            vec![keys.clone(), format!("{one} as h_one"), format!("{other} as h_other"), "toUInt8(1) as h_there".to_owned()];
        let latest = self.request.latest.as_ref().filter(|latest| latest.is_against_table);
        for (at, term) in latest.iter().flat_map(|latest| &latest.order).enumerate() {
            let is_held = held.has(&term.column);
            items.push(if is_held {
                format!("{} as h_order{at}", DIALECT.identifier(&term.column))
            } else {
                format!("cast(null as Nullable(Int8)) as h_order{at}")
            });
        }
        let arriving = format!("({keys}) in (select {keys} from {})", self.from.quoted());
        let from = if held.layout == Layout::Keyed {
            items.push(format!("{DELETED_COLUMN} as h_deleted"));
            format!(
                "(select * , {LOAD_COLUMN} from {} where {arriving} order by {keys}, {LOAD_COLUMN} desc limit 1 by {keys})",
                held.rows.quoted()
            )
        } else {
            items.push("toUInt8(0) as h_deleted".to_owned());
            format!("{} where {arriving}", held.rows.quoted())
        };
        let sql = format!(
            "create table {} engine = MergeTree order by tuple() as select {} from {from}",
            name.quoted(),
            items.join(", ")
        );
        self.server.client.execute(&sql).await?;
        Ok(name)
    }

    /// Whether a row stands behind the one that the table holds.
    fn is_older(&self, held: &Relation) -> String {
        let Some(latest) = self.request.latest.as_ref().filter(|latest| latest.is_against_table && !latest.order.is_empty())
        else {
            return "0".to_owned();
        };
        let (mut behind, mut equal_before): (Vec<String>, String) = (Vec::new(), String::new());
        for (at, term) in latest.order.iter().enumerate() {
            let (own, theirs) = (DIALECT.identifier(&term.column), format!("h_order{at}"));
            let word = if term.is_descending { "<" } else { ">" };
            let nulls = if term.nulls_first {
                format!("({theirs} is null and {own} is not null)")
            } else {
                format!("({own} is null and {theirs} is not null)")
            };
            behind.push(format!("({equal_before}(ifNull({own} {word} {theirs}, 0) or {nulls}))"));
            equal_before.push_str(&format!("{} and ", DIALECT.same(&own, &theirs)));
        }
        if latest.tie == Tie::First {
            behind.push(format!("({})", equal_before.trim_end_matches(" and ")));
        }
        // A deletion counts only where it is remembered.
        let counts = if self.request.keeps_tombstones && held.layout == Layout::Keyed { "1" } else { "h_deleted = 0" };
        format!("ifNull(h_there = 1 and {counts} and ({}), 0)", behind.join(" or "))
    }

    async fn merge(&mut self) -> Result<(), ConnectError> {
        let Some(held) = self.done.held.clone() else { return Ok(()) };
        let keys = list(&self.request.primary_key);
        let is_same_shape = self.is_same_shape(&held);
        let rest = self.compared_beside_key();
        let held_rows = self.hold(&held, &rest).await?;
        let deleted = if self.has_marks { format!("ifNull({}, 0)", DIALECT.identifier(DELETE_MARK)) } else { "0".to_owned() };
        let own = hashes(&rest, self.server.client.is_modern());
        // Old servers know no `false and null`.
        let is_there = "ifNull(h_there = 1 and h_deleted = 0, 0)";
        let is_older = self.is_older(&held);
        let is_equal = if is_same_shape && self.request.children.is_empty() {
            format!("ifNull({deleted} = 0 and {is_there} and {}, 0)", equal_hashes(&own, "h_one", "h_other"))
        } else {
            "0".to_owned()
        };
        // A deletion of what is not there; one that comes before what it deletes is remembered once.
        let is_idle = if !self.has_marks {
            "0".to_owned()
        } else if self.request.keeps_tombstones {
            let orders = self.request.latest.iter().flat_map(|latest| &latest.order).enumerate();
            let same: Vec<String> =
                orders.map(|(at, term)| DIALECT.same(&DIALECT.identifier(&term.column), &format!("h_order{at}"))).collect();
            let same = if same.is_empty() { "1".to_owned() } else { same.join(" and ") };
            format!("ifNull({deleted} = 1 and h_there = 1 and h_deleted = 1 and {same}, 0)")
        } else {
            format!("({deleted} = 1 and not {is_there})")
        };
        let joined = format!(
            "{} any left join {} using ({keys})",
            format_args!("(select * from {}) as s", self.from.quoted()),
            format_args!("(select * from {}) as h", held_rows.quoted())
        );
        let nulls = [("join_use_nulls", "1")];
        let counts = self
            .server
            .client
            .rows_with(
                &format!(
                    "select countIf({is_older}), countIf(not {is_older} and ({is_equal} or {is_idle})), \
                     countIf(not {is_older} and not {is_equal} and not {is_idle}), \
                     countIf(not {is_older} and not {is_equal} and not {is_idle} and {deleted} = 1) from {joined}"
                ),
                &nulls,
            )
            .await?;
        let [superseded, overlap, written, deletions] = [0, 1, 2, 3].map(|at| {
            let cell = counts.first().and_then(|row| row.get(at)).and_then(Option::as_deref);
            cell.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        });
        let rows = &mut self.done.rows;
        (rows.superseded, rows.overlap) = (rows.superseded + superseded, rows.overlap + overlap);
        (rows.written, rows.deleted) = (written, deletions);
        self.done.changed = written > 0;
        let winners = format!("(select * from {joined} where not {is_older} and not {is_equal} and not {is_idle})");
        if held.layout == Layout::Keyed {
            self.make_alike().await?;
            self.insert_winners(&winners, &deleted, &nulls).await?;
        } else {
            self.make_keyed(&held, &winners, &deleted, &nulls).await?;
        }
        self.preview_merge();
        Ok(())
    }

    async fn insert_winners(&self, winners: &str, deleted: &str, settings: &[(&str, &str)]) -> Result<(), ConnectError> {
        let stored = names(&self.columns);
        let sql = format!(
            "insert into {} ({}, {DELETED_COLUMN}) select {}, {deleted} from {winners}",
            self.stage.fresh().quoted(),
            list(&stored),
            self.selected(&stored, true)
        );
        self.server.client.execute_with(&sql, settings).await
    }

    /// A table that was loaded in another mode gets all its rows into a keyed one first.
    async fn make_keyed(
        &mut self,
        held: &Relation,
        winners: &str,
        deleted: &str,
        settings: &[(&str, &str)],
    ) -> Result<(), ConnectError> {
        let shown = self.columns_afterwards(held);
        let fresh = self.stage.fresh();
        self.refuse_rows_that_merge(held).await?;
        self.server.create(&fresh, &shown, &self.storage(true), self.done.number).await?;
        self.done.columns = shown;
        self.done.layout = Layout::Keyed;
        self.insert_winners(winners, deleted, settings).await?;
        let kept: Vec<String> =
            held.columns.iter().map(|(name, _)| name.clone()).filter(|name| !self.done.removed.contains(name)).collect();
        let sql = format!(
            "insert into {} ({}) select {} from {} where {}",
            fresh.quoted(),
            list(&kept),
            self.selected(&kept, true),
            self.done.target.quoted(),
            self.is_kept(&fresh.quoted())
        );
        self.server.client.execute(&sql).await
    }

    /// A table that keeps one row of each key cannot take over rows that share one, or have none.
    async fn refuse_rows_that_merge(&self, held: &Relation) -> Result<(), ConnectError> {
        let keys = list(&self.request.primary_key);
        let any_null = any_null(&self.request.primary_key);
        let rows = held.rows.quoted();
        let nulls = self.count(&format!("{rows} where {any_null}")).await?;
        let doubles = self.sample(&format!("select {keys} from {rows} group by {keys} having count() > 1"), 3).await?;
        if nulls == 0 && doubles.is_empty() {
            return Ok(());
        }
        let what = if nulls > 0 {
            "rows without a key".to_owned()
        } else {
            format!("several rows with one key: {}", doubles.join("; "))
        };
        let message = format!("`{}` has {what}, and a merge keeps one of each key", self.request.table);
        let help = "correct the table, or load it anew with `--full-refresh`";
        Err(ConnectError::new(ConnectErrorKind::KeyTwice, message).help(help))
    }

    /// The condition for rows of the table whose key does not arrive.
    fn is_kept(&self, from: &str) -> String {
        let keys = list(&self.request.primary_key);
        format!("({} or ({keys}) not in (select {keys} from {from}))", any_null(&self.request.primary_key))
    }

    fn preview_merge(&mut self) {
        let fresh = self.stage.fresh().quoted();
        let shown = format!("{fresh} where {DELETED_COLUMN} = 0");
        self.done.preview = if self.done.action == Action::Swap {
            format!("(select {} from {shown})", list(&names(&self.done.columns)))
        } else {
            let kept = format!("{} where {}", self.done.target.quoted(), self.is_kept(&fresh));
            self.united(&kept, &shown)
        };
    }

    /// All rows of the groups that arrive are replaced.
    async fn replace_groups(&mut self) -> Result<(), ConnectError> {
        let Some(held) = self.done.held.clone() else { return Ok(()) };
        let keys = list(&self.request.primary_key);
        let target = self.done.target.quoted();
        let condition = self.slice_condition();
        let of_groups = match &condition {
            Some(condition) => format!("{target} where {condition}"),
            None => format!("{target} where ({keys}) in (select {keys} from {})", self.from.quoted()),
        };
        let own = self.unmarked();
        self.done.rows.written = self.count(&format!("{}{own}", self.from.quoted())).await?;
        let compared = self.compared();
        let is_same_shape = self.is_same_shape(&held);
        if is_same_shape
            && self.request.children.is_empty()
            && self.server.digest(&of_groups, &compared).await?
                == self.server.digest(&format!("{}{own}", self.from.quoted()), &compared).await?
        {
            self.done.changed = false;
            self.done.rows.overlap += std::mem::take(&mut self.done.rows.written);
            self.done.preview = target;
            return Ok(());
        }
        let kept = match &condition {
            Some(condition) => format!("ifNull(not ({condition}), 1)"),
            None => self.is_kept(&self.from.quoted()),
        };
        self.unite(&held, &format!("{target} where {kept}"), &own).await
    }

    /// The condition that a row belongs to the part of the table that the rows take the place of.
    fn slice_condition(&self) -> Option<String> {
        let slice = self.request.slice.as_ref()?;
        let condition = |part: &SlicePart| {
            let word = self.columns.iter().find(|column| column.name == part.column).map(|column| column.word.as_str())?;
            let is_instant = match self.request.schema.field_with_name(&part.column) {
                Ok(field) => matches!(field.data_type(), arrow::datatypes::DataType::Timestamp(_, Some(_))),
                Err(_) => matches!(
                    super::types::Form::of(word),
                    Some(super::types::Form::DateTime { is_wall: false } | super::types::Form::DateTime64 { is_wall: false, .. })
                ),
            };
            Some(DIALECT.slice(part, word, slice.is_instant.unwrap_or(is_instant)))
        };
        Some(slice.parts.iter().map(condition).collect::<Option<Vec<_>>>()?.join(" and "))
    }

    /// Refuses rows that lie outside of the part of the table that they take the place of.
    async fn refuse_outside(&self) -> Result<(), ConnectError> {
        let Some(slice) = &self.request.slice else { return Ok(()) };
        let Some(condition) = self.slice_condition() else {
            let message =
                format!("`{}` would get rows without all columns of its partitions: {}", self.request.table, slice.columns());
            let help = "correct `partition:`, or select the column";
            return Err(ConnectError::new(ConnectErrorKind::ColumnMissing, message).help(help));
        };
        let outside = format!("{} where ifNull(not ({condition}), 1)", self.from.quoted());
        let rows = self.sample(&format!("select {} from {outside}", list(&names(&self.columns))), 1).await?;
        let Some(row) = rows.first() else { return Ok(()) };
        let count = self.count(&outside).await?;
        let message =
            format!("{count} rows do not belong to partition `{}` of `{}`: {row}", slice.partition.key, self.request.table);
        let help = format!("read or select only rows whose {} lies in the partition", slice.columns());
        Err(ConnectError::new(ConnectErrorKind::ValueMisfit, message).help(help))
    }

    /// The columns of the table afterwards: those that it has, wider where that is wanted, and those that come.
    pub(super) fn columns_afterwards(&self, held: &Relation) -> Vec<Typed> {
        let mut shown: Vec<Typed> =
            typed(&held.columns).into_iter().filter(|column| !self.done.removed.contains(&column.name)).collect();
        for column in &mut shown {
            if let Some(wider) = self.done.widened.iter().find(|wider| wider.name == column.name) {
                column.word.clone_from(&wider.word);
            }
        }
        shown.extend(self.columns.iter().filter(|column| !held.has(&column.name)).cloned());
        shown
    }

    /// Makes the whole table out of rows that stay and rows that arrive.
    async fn unite(&mut self, held: &Relation, kept: &str, own: &str) -> Result<(), ConnectError> {
        self.done.columns = self.columns_afterwards(held);
        let fresh = self.stage.fresh();
        self.server.create(&fresh, &self.done.columns, &self.storage(false), self.done.number).await?;
        let sql = format!(
            "insert into {} ({}) select * from {}",
            fresh.quoted(),
            list(&names(&self.done.columns)),
            self.united(kept, &format!("{}{own}", self.from.quoted()))
        );
        self.server.client.execute(&sql).await?;
        self.done.preview = fresh.quoted();
        Ok(())
    }
}
