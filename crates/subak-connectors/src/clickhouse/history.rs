//! Versions of rows: one open version per key; intervals are half open and never overlap. The whole history is written anew.

use subak_connect::ConnectError;
use subak_domain::History;

use super::DIALECT;
use super::prepare::{Preparing, ROW_COLUMN};
use super::script::{Typed, equal_hashes, hashes, list, names};
use super::tables::{Name, Relation, nullable};

impl Preparing<'_> {
    /// Closes versions whose rows changed or are gone, and adds the new ones.
    pub(super) async fn add_versions(&mut self) -> Result<(), ConnectError> {
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
        let rest = self.compared_beside_key();
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
        let counts = server.client.rows_with(&format!("select countIf({is_older}) from {joined}"), &nulls).await?;
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
        if !self.done.changed && added.is_empty() {
            self.done.preview = self.open_versions(&target, &current);
            return Ok(());
        }
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
        let shown = self.columns_afterwards(held);
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
        return format!("cast({} as {time})", DIALECT.literal(at));
    }
    format!("toDateTime({}, 'UTC')", DIALECT.literal(at.get(..19).unwrap_or(at)))
}

/// When a version begins. A row that does not say when it changed has changed now, as far as anybody knows.
fn begins(history: &History, at: &str, time: &str, is_modern: bool) -> String {
    let now = wall_clock(at, time, is_modern);
    match &history.updated_at {
        Some(column) => format!("ifNull(cast({} as Nullable({time})), {now})", DIALECT.identifier(column)),
        None => now,
    }
}
