//! Column lineage: which columns of which assets a column is made from.
//!
//! The resolver follows names, not values. Where it cannot know (a function that makes tables, a star over an asset whose columns
//! nobody declared) it says nothing rather than something wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Ident, JoinConstraint, JoinOperator, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    SetQuantifier, TableAlias, TableFactor, TableWithJoins, Visit, Visitor,
};
use subak_domain::AssetKey;

use crate::sql::{idents, normalized};

/// A column of an asset.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ColumnRef {
    /// The asset.
    pub asset: AssetKey,
    /// The column.
    pub column: String,
}

/// A column of a result, and the columns that it is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputColumn {
    /// Its name.
    pub name: String,
    /// Columns of assets that it is made from, sorted.
    pub sources: BTreeSet<ColumnRef>,
}

/// The columns of a result; `None` where they cannot all be known.
pub type OutputColumns = Option<Vec<OutputColumn>>;

/// What is known about the assets that a query may read.
pub(crate) trait Catalog {
    /// The asset that a table name means.
    fn asset(&self, name: &str) -> Option<AssetKey>;
    /// Its columns, where they are known.
    fn columns(&self, asset: &AssetKey) -> Option<Vec<String>>;
}

/// The columns of a query.
pub(crate) fn columns(query: &Query, catalog: &dyn Catalog) -> OutputColumns {
    Resolver { catalog }.query(query, &Ctes::new())
}

type Ctes = BTreeMap<String, OutputColumns>;

/// Something that a query reads from.
struct Relation {
    /// The name by which columns refer to it.
    name: String,
    kind: Kind,
}

enum Kind {
    /// An asset; its columns may be unknown.
    Asset(AssetKey, Option<Vec<String>>),
    /// The result of a query.
    Query(OutputColumns),
}

impl Relation {
    /// What a column of it is made from; `None` when it certainly has no such column.
    fn sources(&self, column: &str) -> Option<BTreeSet<ColumnRef>> {
        match &self.kind {
            Kind::Asset(asset, columns) => {
                let is_there =
                    columns.as_ref().is_none_or(|columns| columns.iter().any(|known| known.eq_ignore_ascii_case(column)));
                is_there.then(|| BTreeSet::from([ColumnRef { asset: asset.clone(), column: column.to_lowercase() }]))
            }
            Kind::Query(None) => Some(BTreeSet::new()),
            Kind::Query(Some(columns)) => {
                columns.iter().find(|known| known.name.eq_ignore_ascii_case(column)).map(|known| known.sources.clone())
            }
        }
    }

    /// Whether all its columns are known.
    fn is_closed(&self) -> bool {
        matches!(&self.kind, Kind::Asset(_, Some(_)) | Kind::Query(Some(_)))
    }

    fn all(&self) -> OutputColumns {
        match &self.kind {
            Kind::Asset(asset, columns) => columns.as_ref().map(|columns| {
                let column = |name: &String| OutputColumn {
                    name: name.clone(),
                    sources: BTreeSet::from([ColumnRef { asset: asset.clone(), column: name.to_lowercase() }]),
                };
                columns.iter().map(column).collect()
            }),
            Kind::Query(columns) => columns.clone(),
        }
    }
}

struct Resolver<'a> {
    catalog: &'a dyn Catalog,
}

impl Resolver<'_> {
    fn query(&self, query: &Query, outer: &Ctes) -> OutputColumns {
        let mut ctes = outer.clone();
        if let Some(with) = &query.with {
            for cte in &with.cte_tables {
                let columns = if with.recursive { None } else { self.query(&cte.query, &ctes) };
                ctes.insert(normalized(&cte.alias.name), renamed(columns, &cte.alias));
            }
        }
        self.set(&query.body, &ctes)
    }

    fn set(&self, body: &SetExpr, ctes: &Ctes) -> OutputColumns {
        match body {
            SetExpr::Select(select) => self.select(select, ctes),
            SetExpr::Query(query) => self.query(query, ctes),
            // `by name` matches columns by their names, which is not what positions say.
            SetExpr::SetOperation {
                set_quantifier: SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName,
                ..
            } => None,
            SetExpr::SetOperation { left, right, .. } => {
                let (mut columns, right) = (self.set(left, ctes)?, self.set(right, ctes)?);
                for (column, other) in columns.iter_mut().zip(right) {
                    column.sources.extend(other.sources);
                }
                Some(columns)
            }
            _ => None,
        }
    }

    fn select(&self, select: &Select, ctes: &Ctes) -> OutputColumns {
        let relations: Vec<Relation> = select.from.iter().flat_map(|from| self.relations(from, ctes)).collect();
        let shared = shared_columns(&select.from);
        let mut columns: Vec<OutputColumn> = Vec::new();
        let items = &select.projection;
        if items.is_empty() {
            return all_of(&relations, &shared);
        }
        for item in items {
            match item {
                SelectItem::UnnamedExpr(expr) => {
                    let name = own_name(expr)?;
                    columns.push(OutputColumn { name, sources: sources(expr, &relations) });
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    columns.push(OutputColumn { name: alias.value.clone(), sources: sources(expr, &relations) });
                }
                SelectItem::Wildcard(options) => {
                    let is_plain = options.opt_rename.is_none() && options.opt_replace.is_none() && options.opt_except.is_none();
                    if !is_plain || options.opt_exclude.is_some() {
                        return None;
                    }
                    columns.extend(all_of(&relations, &shared)?);
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                    let name = normalized(idents(name)?.last()?);
                    columns.extend(relations.iter().find(|relation| relation.name == name)?.all()?);
                }
                _ => return None,
            }
        }
        Some(columns)
    }

    fn relations(&self, from: &TableWithJoins, ctes: &Ctes) -> Vec<Relation> {
        std::iter::once(&from.relation)
            .chain(from.joins.iter().map(|join| &join.relation))
            .flat_map(|factor| self.factor(factor, ctes))
            .collect()
    }

    fn factor(&self, factor: &TableFactor, ctes: &Ctes) -> Vec<Relation> {
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let parts = idents(name).unwrap_or_default();
                let written = parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".");
                let own = parts.last().map(|part| normalized(part)).unwrap_or_default();
                let cte = ctes.get(&own).filter(|_| parts.len() == 1);
                let kind = match (cte, self.catalog.asset(&written)) {
                    (Some(columns), _) => Kind::Query(columns.clone()),
                    (None, Some(asset)) => {
                        let columns = self.catalog.columns(&asset);
                        Kind::Asset(asset, columns)
                    }
                    (None, None) => Kind::Query(None),
                };
                let name = alias.as_ref().map_or(own, |alias| normalized(&alias.name));
                vec![Relation { name, kind: with_columns(kind, alias.as_ref()) }]
            }
            TableFactor::Derived { subquery, alias, .. } => {
                let columns = self.query(subquery, ctes);
                let (name, columns) = match alias {
                    Some(alias) => (normalized(&alias.name), renamed(columns, alias)),
                    None => (String::new(), columns),
                };
                vec![Relation { name, kind: Kind::Query(columns) }]
            }
            TableFactor::NestedJoin { table_with_joins, .. } => self.relations(table_with_joins, ctes),
            other => {
                let name = alias_of(other).map(|alias| normalized(&alias.name)).unwrap_or_default();
                vec![Relation { name, kind: Kind::Query(None) }]
            }
        }
    }
}

fn alias_of(factor: &TableFactor) -> Option<&TableAlias> {
    match factor {
        TableFactor::Table { alias, .. }
        | TableFactor::TableFunction { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. }
        | TableFactor::Pivot { alias, .. }
        | TableFactor::Unpivot { alias, .. } => alias.as_ref(),
        _ => None,
    }
}

/// An alias may rename columns: `from t as x(a, b)`.
fn with_columns(kind: Kind, alias: Option<&TableAlias>) -> Kind {
    match alias {
        Some(alias) if !alias.columns.is_empty() => {
            let columns = Relation { name: String::new(), kind }.all();
            Kind::Query(renamed(columns, alias))
        }
        _ => kind,
    }
}

fn renamed(columns: OutputColumns, alias: &TableAlias) -> OutputColumns {
    let mut columns = columns?;
    for (column, name) in columns.iter_mut().zip(&alias.columns) {
        column.name.clone_from(&name.name.value);
    }
    Some(columns)
}

/// Columns of `using (…)`: a star shows them once.
fn shared_columns(from: &[TableWithJoins]) -> BTreeSet<String> {
    let constraint = |operator: &JoinOperator| match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => Some(constraint.clone()),
        _ => None,
    };
    let mut names = BTreeSet::new();
    for join in from.iter().flat_map(|from| &from.joins) {
        if let Some(JoinConstraint::Using(columns)) = constraint(&join.join_operator) {
            names.extend(columns.iter().filter_map(|name| Some(normalized(idents(name)?.last()?))));
        }
    }
    names
}

fn all_of(relations: &[Relation], shared: &BTreeSet<String>) -> OutputColumns {
    let mut columns: Vec<OutputColumn> = Vec::new();
    for relation in relations {
        for column in relation.all()? {
            let is_again = shared.contains(&column.name.to_lowercase());
            match columns.iter_mut().find(|known| is_again && known.name.eq_ignore_ascii_case(&column.name)) {
                Some(known) => known.sources.extend(column.sources),
                None => columns.push(column),
            }
        }
    }
    Some(columns)
}

/// The name that an expression gives to its column; `None` where systems differ.
fn own_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(ident.value.clone()),
        Expr::CompoundIdentifier(parts) => parts.last().map(|part| part.value.clone()),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => own_name(expr),
        Expr::Function(function) => Some(function.name.to_string().to_lowercase()),
        _ => Some(expr.to_string()),
    }
}

/// The columns of assets that an expression is made from.
fn sources(expr: &Expr, relations: &[Relation]) -> BTreeSet<ColumnRef> {
    let mut collector = Collector { relations, found: BTreeSet::new(), depth: 0, parameters: BTreeSet::new() };
    let _flow: ControlFlow<()> = expr.visit(&mut collector);
    collector.found
}

struct Collector<'a> {
    relations: &'a [Relation],
    found: BTreeSet<ColumnRef>,
    /// Queries inside the expression have relations of their own: what they name is not claimed.
    depth: usize,
    /// Parameters of lambdas, which are no columns.
    parameters: BTreeSet<String>,
}

impl Visitor for Collector<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            _ if self.depth > 0 => {}
            Expr::Lambda(lambda) => {
                let text = lambda.params.to_string();
                let words = text.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_lowercase);
                self.parameters.extend(words.filter(|word| !word.is_empty()));
            }
            Expr::Identifier(ident) if self.parameters.contains(&normalized(ident)) => {}
            Expr::Identifier(ident) => self.unqualified(ident),
            Expr::CompoundIdentifier(parts) => self.qualified(parts),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Collector<'_> {
    fn unqualified(&mut self, column: &Ident) {
        let candidates: Vec<&Relation> =
            self.relations.iter().filter(|relation| relation.sources(&column.value).is_some()).collect();
        let closed: Vec<&&Relation> = candidates.iter().filter(|relation| relation.is_closed()).collect();
        // A relation that certainly has the column goes before those that may have it.
        let chosen: Vec<&Relation> = match (closed.as_slice(), candidates.as_slice()) {
            ([], [only]) => vec![only],
            ([], _) => Vec::new(),
            (closed, _) => closed.iter().map(|relation| **relation).collect(),
        };
        self.found.extend(chosen.into_iter().filter_map(|relation| relation.sources(&column.value)).flatten());
    }

    fn qualified(&mut self, parts: &[Ident]) {
        let [.., table, column] = parts else { return };
        match self.relations.iter().find(|relation| relation.name == normalized(table)) {
            Some(relation) => self.found.extend(relation.sources(&column.value).unwrap_or_default()),
            // `struct_column.field`, or `table.struct_column.field`.
            None => {
                if let [first, second, ..] = parts {
                    match self.relations.iter().find(|relation| relation.name == normalized(first)) {
                        Some(relation) => self.found.extend(relation.sources(&second.value).unwrap_or_default()),
                        None => self.unqualified(first),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Catalog for Fixed {
        fn asset(&self, name: &str) -> Option<AssetKey> {
            name.parse().ok()
        }
        fn columns(&self, asset: &AssetKey) -> Option<Vec<String>> {
            let columns: &[&str] = match asset.as_str() {
                "s.users" => &["id", "name"],
                "s.tx" => &["id", "user_id", "amount"],
                _ => return None,
            };
            Some(columns.iter().map(|column| (*column).to_owned()).collect())
        }
    }

    #[track_caller]
    fn assert_lineage(sql: &str, expect: &str) {
        let parsed = crate::sql::parse(sql, "duckdb").expect("parsed");
        let shown = match columns(&parsed.query, &Fixed) {
            None => "unknown".to_owned(),
            Some(columns) => columns
                .iter()
                .map(|column| {
                    let sources: Vec<String> =
                        column.sources.iter().map(|source| format!("{}.{}", source.asset, source.column)).collect();
                    format!("{}<-{}", column.name, sources.join("+"))
                })
                .collect::<Vec<_>>()
                .join(" "),
        };
        assert_eq!(shown, expect, "{sql}");
    }

    #[test]
    fn columns_are_followed() {
        assert_lineage("select id, name as n from s.users", "id<-s.users.id n<-s.users.name");
        assert_lineage("select * from s.users", "id<-s.users.id name<-s.users.name");
        assert_lineage(
            "select t.amount * 2 as double, u.name from s.tx t join s.users u on u.id = t.user_id",
            "double<-s.tx.amount name<-s.users.name",
        );
        assert_lineage(
            "select amount, name from s.tx join s.users u on u.id = user_id",
            "amount<-s.tx.amount name<-s.users.name",
        );
        assert_lineage("with x as (select id as k from s.users) select k + 1 as k2 from x", "k2<-s.users.id");
        assert_lineage("select a.n from (select name as n from s.users) a", "n<-s.users.name");
        assert_lineage("select sum(amount) as total, count(*) as c from s.tx", "total<-s.tx.amount c<-");
        assert_lineage("select id from s.users union all select user_id from s.tx", "id<-s.tx.user_id+s.users.id");
        assert_lineage(
            "select case when amount > 1 then 'a' else name end as x from s.tx, s.users",
            "x<-s.tx.amount+s.users.name",
        );
        assert_lineage("select u.* from s.users u join s.tx using (id)", "id<-s.users.id name<-s.users.name");
        assert_lineage("from s.users", "id<-s.users.id name<-s.users.name");
    }

    #[test]
    fn what_is_not_known_is_not_made_up() {
        assert_lineage("select * from other.t", "unknown");
        assert_lineage("select x, t.y from other.t", "x<-other.t.x y<-other.t.y");
        assert_lineage("select x from other.t, other.u", "x<-");
        assert_lineage("select (select max(name) from s.users) as m, id from s.tx", "m<- id<-s.tx.id");
        assert_lineage("select list_transform([amount], p -> p + 1) as l from other.t", "l<-other.t.amount");
        assert_lineage("select id from s.users union all by name select user_id from s.tx", "unknown");
        assert_lineage("select n from range(3) t(n)", "n<-");
    }
}
