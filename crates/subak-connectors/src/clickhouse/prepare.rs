//! Comparing staged rows with their table: from what arrived to the rows that publication will add, in tables of the load's own.

use subak_connect::sink::{DELETE_MARK, UNCHANGED};
use subak_connect::{ConnectError, ConnectErrorKind, LoadRequest, StagedRows};
use subak_domain::write::{OrderBy, Tie};
use subak_domain::{History, WriteMode};

use super::client::literal;
use super::publish::Action;
use super::script::{Storage, Typed, equal_hashes, hashes, list, names, typed};
use super::tables::{DELETED_COLUMN, LOAD_COLUMN, Layout, Name, Relation, bare};
use super::{DIALECT, Server};

/// The column of a stage that numbers its rows in the order of their arrival.
pub(super) const ROW_COLUMN: &str = "__subak_row";

/// The tables of one load.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    pub(super) base: Name,
    pub(super) child_count: usize,
}

impl Stage {
    pub(super) fn rows(&self) -> Name {
        self.base.clone()
    }
    pub(super) fn rejects(&self) -> Name {
        self.base.with("_r")
    }
    pub(super) fn child(&self, at: usize) -> Name {
        self.base.with(&format!("_c{at}"))
    }
    /// One row of each key.
    fn latest(&self) -> Name {
        self.base.with("_d")
    }
    /// What the table holds of the keys that arrive.
    fn held(&self) -> Name {
        self.base.with("_h")
    }
    /// The rows that will be visible.
    pub(super) fn fresh(&self) -> Name {
        self.base.with("_f")
    }
    /// All tables that may be there, those too that publication makes.
    pub(super) fn all(&self) -> Vec<Name> {
        let mut all: Vec<Name> =
            ["", "_r", "_d", "_h", "_f", "_f_old", "_f_view"].iter().map(|suffix| self.base.with(suffix)).collect();
        for at in 0..self.child_count {
            all.extend([self.child(at), self.child(at).with("_f"), self.child(at).with("_f_old")]);
        }
        all
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
    /// Columns of it that become wider.
    pub(super) widened: Vec<Typed>,
    pub(super) removed: Vec<String>,
    /// The rows as they will be, as something that can stand behind `from`.
    pub(super) preview: String,
    /// The table with the keys of the rows that arrived.
    pub(super) keys_from: Name,
}

/// A load in the middle of being prepared.
struct Preparing<'a> {
    server: &'a Server,
    stage: &'a Stage,
    request: &'a LoadRequest,
    /// Columns that are stored.
    columns: Vec<Typed>,
    /// Where the rows that still count stand.
    from: Name,
    has_marks: bool,
    done: Prepared,
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
        widened: columns.iter().filter(|column| request.widened.contains(&column.name)).cloned().collect(),
        removed: request.removed.clone(),
        preview: String::new(),
        keys_from: stage.rows(),
        target,
        held,
    };
    let has_marks = staged.iter().any(|column| column.name == DELETE_MARK);
    let mut preparing = Preparing { server, stage, request, columns, from: stage.rows(), has_marks, done };
    preparing.refuse_changed_types()?;
    preparing.run().await?;
    Ok(preparing.done)
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

    async fn count(&self, from: &str) -> Result<u64, ConnectError> {
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
        let test = self.request.primary_key.iter().map(|key| format!("{} is null", DIALECT.identifier(key)));
        let test = test.collect::<Vec<_>>().join(" or ");
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
        let says = |name: &str| format!("(ifNull(position({mark}, {}), 0) = 0)", literal(&format!(",{name},")));
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

    fn storage(&self, is_keyed: bool) -> Storage<'_> {
        Storage { keys: is_keyed.then_some(self.request.primary_key.as_slice()), layout: self.layout() }
    }

    /// The condition for rows that delete nothing.
    fn unmarked(&self) -> String {
        if self.has_marks { format!(" where ifNull({}, 0) = 0", DIALECT.identifier(DELETE_MARK)) } else { String::new() }
    }

    /// The whole table anew.
    async fn rebuild(&mut self) -> Result<(), ConnectError> {
        let (server, is_keyed) = (self.server, self.is_keyed());
        let fresh = self.stage.fresh();
        let (stored, number) = (names(&self.columns), self.done.number);
        server.create(&fresh, &self.columns, &self.storage(is_keyed), number).await?;
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

    /// Columns as they are selected for a table; keys have values.
    fn selected(&self, columns: &[String], is_keyed: bool) -> String {
        let is_modern = self.server.client.is_modern();
        let storage = self.storage(is_keyed);
        let value = |name: &String| {
            let quoted = DIALECT.identifier(name);
            // A NULL where the table takes none is refused by the server.
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
    fn compared(&self) -> Vec<Typed> {
        let held = self.done.held.as_ref();
        let is_compared =
            |column: &&Typed| held.is_some_and(|held| held.has(&column.name)) && !self.request.volatile.contains(&column.name);
        self.columns.iter().filter(is_compared).cloned().collect()
    }

    /// What the table has besides afterwards, and a table like it for the rows that are attached to it.
    async fn make_alike(&mut self) -> Result<(), ConnectError> {
        let Some(held) = self.done.held.clone() else { return Ok(()) };
        self.done.added = self.columns.iter().filter(|column| !held.has(&column.name)).cloned().collect();
        let mut stored = held.stored.clone();
        for (name, word) in &mut stored {
            if let Some(wider) = self.done.widened.iter().find(|wider| wider.name == *name) {
                *word = if word.starts_with("Nullable(") { nullable(&wider.word) } else { wider.word.clone() };
            }
        }
        stored.retain(|(name, _)| !self.done.removed.contains(name));
        stored.extend(self.done.added.iter().map(|column| (column.name.clone(), nullable(&column.word))));
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
        self.make_alike().await?;
        let (fresh, stored) = (self.stage.fresh(), names(&self.columns));
        let compared = self.compared();
        let mut condition = String::new();
        if self.request.overlap.is_some() && self.request.children.is_empty() && !compared.is_empty() {
            let [one, other] = hashes(&compared, self.server.client.is_modern());
            // Of equal rows that arrive, as many are left out as the table has.
            condition = format!(
                " where {ROW_COLUMN} in (select arrayJoin(arraySlice(arraySort(s_rows), toInt64(t_held) + 1)) from \
                 (select s_rows, t_held from (select {one} as h_one, {other} as h_other, groupArray({ROW_COLUMN}) as s_rows from {} group by h_one, h_other) as s \
                 any left join (select h_one, h_other, count() as t_held from (select {one} as h_one, {other} as h_other from {}) group by h_one, h_other) \
                 as t using (h_one, h_other)))",
                self.from.quoted(),
                self.done.target.quoted()
            );
        }
        let columns = list(&stored);
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
                format!("null as h_order{at}")
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
        let is_same_shape = held.columns.len() == self.columns.len() && self.columns.iter().all(|column| held.has(&column.name));
        let rest: Vec<Typed> =
            self.compared().into_iter().filter(|column| !self.request.primary_key.contains(&column.name)).collect();
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
        let keys = list(&self.request.primary_key);
        let mut shown = typed(&held.columns);
        shown.extend(self.columns.iter().filter(|column| !held.has(&column.name)).cloned());
        for column in &mut shown {
            if let Some(wider) = self.done.widened.iter().find(|wider| wider.name == column.name) {
                column.word.clone_from(&wider.word);
            }
        }
        shown.retain(|column| !self.done.removed.contains(&column.name));
        let fresh = self.stage.fresh();
        self.server.create(&fresh, &shown, &self.storage(true), self.done.number).await?;
        self.done.columns = shown;
        self.done.layout = Layout::Keyed;
        self.insert_winners(winners, deleted, settings).await?;
        let kept: Vec<String> =
            held.columns.iter().map(|(name, _)| name.clone()).filter(|name| !self.done.removed.contains(name)).collect();
        let sql = format!(
            "insert into {} ({}) select {} from {} where ({keys}) not in (select {keys} from {})",
            fresh.quoted(),
            list(&kept),
            self.selected(&kept, true),
            self.done.target.quoted(),
            fresh.quoted()
        );
        self.server.client.execute(&sql).await
    }

    fn preview_merge(&mut self) {
        let keys = list(&self.request.primary_key);
        let fresh = self.stage.fresh().quoted();
        let shown = format!("{fresh} where {DELETED_COLUMN} = 0");
        self.done.preview = if self.done.action == Action::Swap {
            format!("(select {} from {shown})", list(&names(&self.done.columns)))
        } else {
            let kept = format!("{} where ({keys}) not in (select {keys} from {fresh})", self.done.target.quoted());
            self.united(&kept, &shown)
        };
    }

    /// All rows of the groups that arrive are replaced.
    async fn replace_groups(&mut self) -> Result<(), ConnectError> {
        let Some(held) = self.done.held.clone() else { return Ok(()) };
        let keys = list(&self.request.primary_key);
        let target = self.done.target.quoted();
        let of_groups = format!("{target} where ({keys}) in (select {keys} from {})", self.from.quoted());
        let own = self.unmarked();
        self.done.rows.written = self.count(&format!("{}{own}", self.from.quoted())).await?;
        let compared = self.compared();
        let is_same_shape = held.columns.len() == self.columns.len() && self.columns.iter().all(|column| held.has(&column.name));
        if is_same_shape
            && self.server.digest(&of_groups, &compared).await?
                == self.server.digest(&format!("{}{own}", self.from.quoted()), &compared).await?
        {
            self.done.changed = false;
            self.done.rows.overlap += std::mem::take(&mut self.done.rows.written);
        }
        self.unite(&held, &format!("{target} where ({keys}) not in (select {keys} from {})", self.from.quoted()), &own).await
    }

    /// Makes the whole table out of rows that stay and rows that arrive.
    async fn unite(&mut self, held: &Relation, kept: &str, own: &str) -> Result<(), ConnectError> {
        let mut shown: Vec<Typed> =
            typed(&held.columns).into_iter().filter(|column| !self.done.removed.contains(&column.name)).collect();
        for column in &mut shown {
            if let Some(wider) = self.done.widened.iter().find(|wider| wider.name == column.name) {
                column.word.clone_from(&wider.word);
            }
        }
        shown.extend(self.columns.iter().filter(|column| !held.has(&column.name)).cloned());
        self.done.columns = shown;
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

    /// Closes versions whose rows changed or are gone, and adds the new ones.
    async fn add_versions(&mut self) -> Result<(), ConnectError> {
        let history = &self.request.history;
        let [from, to, current] =
            [&history.valid_from, &history.valid_to, &history.is_current].map(|name| DIALECT.identifier(name));
        let time = super::types::word(time_form(self.server.client.is_modern()), false);
        let flag = super::types::word(flag_form(self.server.client.is_modern()), false);
        let begins = begins(history, &self.request.at, &time, self.server.client.is_modern());
        let own: Vec<Typed> = self.columns.clone();
        let versions = [(&history.valid_from, &time), (&history.valid_to, &time), (&history.is_current, &flag)];
        let versions: Vec<Typed> =
            versions.into_iter().map(|(name, word)| Typed { name: name.clone(), word: word.clone() }).collect();
        let Some(held) = self.done.held.clone() else {
            self.done.columns = own.iter().cloned().chain(versions).collect();
            let fresh = self.stage.fresh();
            self.server.create(&fresh, &self.done.columns, &self.storage(false), self.done.number).await?;
            let columns = list(&names(&own));
            let sql = format!(
                "insert into {} ({columns}, {from}, {to}, {current}) select {columns}, {begins}, null, 1 from {} order by {ROW_COLUMN}",
                fresh.quoted(),
                self.from.quoted()
            );
            self.server.client.execute(&sql).await?;
            self.done.rows.written = self.count(&fresh.quoted()).await?;
            self.done.preview = self.open_versions(&fresh.quoted(), &current);
            return Ok(());
        };
        self.change_versions(&held, &versions, &begins).await
    }

    fn open_versions(&self, from: &str, current: &str) -> String {
        format!("(select {} from {from} where {current} = 1)", list(&names(&self.columns)))
    }

    async fn change_versions(&mut self, held: &Relation, versions: &[Typed], begins: &str) -> Result<(), ConnectError> {
        let (request, server) = (self.request, self.server);
        let [from, to, current] = [0, 1, 2].map(|at| versions[at].quoted());
        let (keys, target) = (list(&request.primary_key), self.done.target.quoted());
        let is_modern = server.client.is_modern();
        let rest: Vec<Typed> = self.compared().into_iter().filter(|column| !request.primary_key.contains(&column.name)).collect();
        let own = hashes(&rest, is_modern);
        let [one, other] = own.clone();
        // The open version of each key, and when the last one ended.
        let open = format!(
            "(select {keys}, {one} as h_one, {other} as h_other, {from} as h_from, toUInt8(1) as h_there from {target} where {current} = 1)"
        );
        let ended = format!("(select {keys}, max({to}) as h_end from {target} group by {keys})");
        let joined = format!(
            "(select * from (select * from {}) as s any left join {open} as h using ({keys})) as j any left join {ended} as e using ({keys})",
            self.from.quoted()
        );
        let added: Vec<String> = self
            .columns
            .iter()
            .filter(|column| !held.has(&column.name))
            .map(|column| format!(" and {} is null", column.quoted()))
            .collect();
        let is_equal = format!("ifNull(h_there = 1 and {}{}, 0)", equal_hashes(&own, "h_one", "h_other"), added.concat());
        let is_older = match &request.history.updated_at {
            Some(column) => {
                let column = DIALECT.identifier(column);
                format!("ifNull(not {is_equal} and h_there = 1 and {column} <= h_from, 0)")
            }
            None => "0".to_owned(),
        };
        let nulls = [("join_use_nulls", "1")];
        let changed = self.stage.held();
        let columns = list(&names(&self.columns));
        // A key that was gone, or whose last version ended later than the row says, goes on where that version ended.
        let sql = format!(
            "create table {} engine = MergeTree order by tuple() as select {columns}, {ROW_COLUMN}, \
             if(ifNull(h_end > {begins}, 0), h_end, {begins}) as v_from, {begins} as v_begins from {joined} where not {is_equal} and not {is_older}",
            changed.quoted()
        );
        server.client.execute_with(&sql, &nulls).await?;
        let total = self.count(&self.from.quoted()).await?;
        self.done.rows.written = self.count(&changed.quoted()).await?;
        let counts = server.rows_with(&format!("select countIf({is_older}) from {joined}"), &nulls).await?;
        let older = counts.first().and_then(|row| row.first()).and_then(|cell| cell.as_deref()?.parse().ok()).unwrap_or(0);
        self.done.rows.superseded += older;
        self.done.rows.overlap += total - self.done.rows.written - older;
        let is_gone = if request.history.closes_missing && request.is_complete && self.done.reject_count == 0 {
            format!("({current} = 1 and ({keys}) not in (select {keys} from {}))", self.from.quoted())
        } else {
            "0".to_owned()
        };
        let gone = if is_gone == "0" { 0 } else { self.count(&format!("{target} where {is_gone}")).await? };
        self.done.changed = self.done.rows.written > 0 || gone > 0;
        self.write_versions(held, versions, &changed, &is_gone).await
    }

    /// The whole history: versions that stay, versions that end, versions that begin.
    async fn write_versions(
        &mut self,
        held: &Relation,
        versions: &[Typed],
        changed: &Name,
        is_gone: &str,
    ) -> Result<(), ConnectError> {
        let [from, to, current] = [0, 1, 2].map(|at| versions[at].quoted());
        let (keys, fresh) = (list(&self.request.primary_key), self.stage.fresh());
        let mut shown = typed(&held.columns);
        let new: Vec<Typed> = self.columns.iter().filter(|column| !held.has(&column.name)).cloned().collect();
        shown.extend(new.iter().cloned());
        self.done.columns.clone_from(&shown);
        self.server.create(&fresh, &shown, &self.storage(false), self.done.number).await?;
        let time = &versions[0].word;
        let at = wall_clock(&self.request.at, time, self.server.client.is_modern());
        let plain: Vec<Typed> =
            shown.iter().filter(|column| !versions.iter().any(|version| version.name == column.name)).cloned().collect();
        let kept = |has: &dyn Fn(&str) -> bool| {
            let item = |column: &Typed| {
                if has(&column.name) {
                    column.quoted()
                } else {
                    format!("cast(null as {}) as {}", nullable(&column.word), column.quoted())
                }
            };
            plain.iter().map(item).collect::<Vec<_>>().join(", ")
        };
        let columns = list(&names(&plain));
        let ends = format!("ifNull({current} = 1 and v_there = 1, 0)");
        // No version ends before it begins.
        let sql = format!(
            "insert into {} ({columns}, {from}, {to}, {current}) select {}, {from}, \
             if({ends}, if(v_begins < {from}, {from}, v_begins), if({is_gone}, {at}, {to})), if({ends} or {is_gone}, 0, {current}) \
             from (select * from {}) as t any left join (select {keys}, v_begins, toUInt8(1) as v_there from {}) as v using ({keys})",
            fresh.quoted(),
            kept(&|name| held.has(name)),
            self.done.target.quoted(),
            changed.quoted()
        );
        self.server.client.execute_with(&sql, &[("join_use_nulls", "1")]).await?;
        let own = |name: &str| self.columns.iter().any(|column| column.name == name);
        let sql = format!(
            "insert into {} ({columns}, {from}, {to}, {current}) select {}, v_from, null, 1 from {} order by {ROW_COLUMN}",
            fresh.quoted(),
            kept(&own),
            changed.quoted()
        );
        self.server.client.execute(&sql).await?;
        self.done.preview = self.open_versions(&fresh.quoted(), &current);
        Ok(())
    }
}

fn nullable(word: &str) -> String {
    if word.starts_with("Array") { word.to_owned() } else { format!("Nullable({word})") }
}

fn time_form(is_modern: bool) -> super::types::Form {
    use super::types::Form;
    if is_modern { Form::DateTime64 { scale: 6, is_wall: true } } else { Form::DateTime { is_wall: true } }
}

fn flag_form(is_modern: bool) -> super::types::Form {
    if is_modern { super::types::Form::Bool } else { super::types::Form::UInt8 }
}

/// A time as a literal. Old servers read it in their own zone, whatever the type says.
fn wall_clock(at: &str, time: &str, is_modern: bool) -> String {
    if is_modern {
        return format!("cast({} as {time})", literal(at));
    }
    format!("toDateTime({}, 'UTC')", literal(at.get(..19).unwrap_or(at)))
}

/// When a version begins. A row that does not say when it changed has changed now, as far as anybody knows.
fn begins(history: &History, at: &str, time: &str, is_modern: bool) -> String {
    let now = wall_clock(at, time, is_modern);
    match &history.updated_at {
        Some(column) => format!("ifNull(cast({} as Nullable({time})), {now})", DIALECT.identifier(column)),
        None => now,
    }
}
