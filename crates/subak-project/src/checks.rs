//! Checks of an asset, as YAML declares them.

use subak_diag::{Diagnostic, codes};
use subak_domain::{AssetKey, Check, CheckRule, Column, Severity};

use crate::decode::{self, Context, Fields, text};
use crate::keys;
use crate::shaping;
use crate::yaml::{Node, Value};

/// The statements that a check can make.
const STATEMENTS: [&str; 11] = [
    "not_null",
    "unique",
    "accepted_values",
    "range",
    "pattern",
    "relationships",
    "row_count",
    "freshness",
    "schema",
    "reconcile",
    "sql",
];

/// The checks under `checks`.
pub(crate) fn read(fields: &Fields<'_>, context: &mut Context<'_>) -> Vec<Check> {
    let items = match fields.get("checks") {
        None => return Vec::new(),
        Some(Node { value: Value::List(items), .. }) => items,
        Some(node) => {
            context.wrong_shape(node, "`checks`", "a list");
            return Vec::new();
        }
    };
    items.iter().filter_map(|node| check(node, context)).collect()
}

fn check(node: &Node, context: &mut Context<'_>) -> Option<Check> {
    let fields = Fields::of(node, keys::CHECK, &[], "a check", context)?;
    let stated: Vec<&str> = STATEMENTS.into_iter().filter(|key| fields.get(key).is_some()).collect();
    let [kind] = stated.as_slice() else {
        let message = format!("a check says exactly one of {}", decode::list(&STATEMENTS));
        context.report(Diagnostic::error(codes::MISSING_KEY, message), &node.span, "");
        return None;
    };
    let (default_name, rule) = statement(kind, &fields, node, context)?;
    let severity =
        fields.word("severity", &[("error", Severity::Error), ("warn", Severity::Warn)], context).unwrap_or(Severity::Error);
    let blocking = fields.boolean("blocking", context).unwrap_or(severity == Severity::Error);
    let name = fields.text("name", context).map_or(default_name, str::to_owned);
    let filter = fields.text("where", context).map(str::to_owned);
    let tolerance = shaping::limit(&fields, "tolerance", context);
    Some(Check { name, rule, severity, blocking, filter, tolerance })
}

fn statement(kind: &str, fields: &Fields<'_>, node: &Node, context: &mut Context<'_>) -> Option<(String, CheckRule)> {
    match kind {
        "not_null" | "unique" => {
            let columns = texts(fields, kind, context);
            if columns.is_empty() {
                let problem = Diagnostic::error(codes::CHECK_COLUMNS, format!("`{kind}` names no column"));
                context.report(problem.help(format!("for example `{kind}: [id]`")), &node.span, "");
                return None;
            }
            let name = format!("{kind}({})", columns.join(", "));
            Some((name, if kind == "unique" { CheckRule::Unique { columns } } else { CheckRule::NotNull { columns } }))
        }
        "sql" => Some(("sql".to_owned(), CheckRule::Sql { sql: fields.text("sql", context)?.to_owned() })),
        _ => mapping(kind, fields.get(kind)?, context),
    }
}

fn texts(fields: &Fields<'_>, key: &str, context: &mut Context<'_>) -> Vec<String> {
    fields.texts(key, context).into_iter().map(|(text, _)| text.to_owned()).collect()
}

/// The statements that are mappings.
fn mapping(kind: &str, node: &Node, context: &mut Context<'_>) -> Option<(String, CheckRule)> {
    let table = match kind {
        "accepted_values" => keys::ACCEPTED_VALUES,
        "range" => keys::RANGE,
        "pattern" => keys::PATTERN,
        "relationships" => keys::RELATIONSHIPS,
        "row_count" => keys::ROW_COUNT,
        "freshness" => keys::FRESHNESS,
        "schema" => keys::SCHEMA,
        _ => keys::RECONCILE,
    };
    let fields = Fields::of(node, table, &[], &format!("`{kind}`"), context)?;
    let column = |context: &mut Context<'_>| fields.text("column", context).map(str::to_owned);
    Some(match kind {
        "accepted_values" => {
            let (column, values) = (column(context)?, texts(&fields, "values", context));
            (format!("accepted_values({column})"), CheckRule::AcceptedValues { column, values })
        }
        "range" => {
            let column = column(context)?;
            let bound = |key: &str, context: &mut Context<'_>| fields.text(key, context).map(str::to_owned);
            let (min, max) = (bound("min", context), bound("max", context));
            if min.is_none() && max.is_none() {
                context.invalid(node, "`range` needs `min` or `max`".to_owned());
                return None;
            }
            if let (Some(low), Some(high)) = (&min, &max)
                && let (Ok(low), Ok(high)) = (low.parse::<f64>(), high.parse::<f64>())
                && low > high
            {
                context.invalid(node, format!("no value lies between `min: {low}` and `max: {high}`"));
            }
            (format!("range({column})"), CheckRule::Range { column, min, max })
        }
        "pattern" => {
            let (column, pattern) = (column(context)?, fields.text("matches", context)?.to_owned());
            (format!("pattern({column})"), CheckRule::Pattern { column, pattern })
        }
        "relationships" => relationships(&fields, node, context)?,
        "row_count" => {
            let bound = |key: &str, context: &mut Context<'_>| {
                let node = fields.get(key)?;
                let text = text(node, &format!("`{key}`"), context)?;
                let count = text.parse().ok();
                if count.is_none() {
                    context.invalid(node, format!("`{key}` must be a whole number, and this is `{text}`"));
                }
                count
            };
            let (min, max): (Option<u64>, Option<u64>) = (bound("min", context), bound("max", context));
            if let (Some(low), Some(high)) = (min, max)
                && low > high
            {
                context.invalid(node, format!("no number of rows lies between `min: {low}` and `max: {high}`"));
            }
            ("row_count".to_owned(), CheckRule::RowCount { min, max })
        }
        "freshness" => {
            let (column, age) = (column(context)?, fields.duration("max_age", context)?);
            (format!("freshness({column})"), CheckRule::Freshness { column, age_seconds_max: age.as_secs() })
        }
        "schema" => {
            let columns = schema_columns(&fields, context);
            ("schema".to_owned(), CheckRule::Schema { columns, is_exact: fields.boolean("exact", context).unwrap_or(false) })
        }
        _ => reconcile(&fields, context)?,
    })
}

fn schema_columns(fields: &Fields<'_>, context: &mut Context<'_>) -> Vec<Column> {
    let named = fields.named("columns", context);
    let columns = named.iter().filter_map(|(name, node)| {
        let data_type = shaping::data_type(node, &format!("the type of `{}`", name.text), context)?;
        Some(Column { name: name.text.clone(), data_type })
    });
    columns.collect()
}

fn reconcile(fields: &Fields<'_>, context: &mut Context<'_>) -> Option<(String, CheckRule)> {
    let with = fields.get("with")?;
    let with = decode::asset_key(text(with, "`with`", context)?, with, context)?;
    let mut measures = texts(fields, "measures", context);
    if measures.is_empty() {
        measures.push("count(*)".to_owned());
    }
    let with_filter = fields.text("with_where", context).map(str::to_owned);
    Some((format!("reconcile({with})"), CheckRule::Reconcile { with, measures, with_filter }))
}

fn relationships(fields: &Fields<'_>, node: &Node, context: &mut Context<'_>) -> Option<(String, CheckRule)> {
    let columns = texts(fields, "column", context);
    let mut target: Option<AssetKey> = None;
    let mut to_columns = Vec::new();
    for (place, to) in fields.texts("to", context) {
        let Some((asset, column)) = place.rsplit_once('.') else {
            context.invalid(to, format!("`to` must be `asset.column`, and this is `{place}`"));
            return None;
        };
        let asset = decode::asset_key(asset, to, context)?;
        if target.as_ref().is_some_and(|known| *known != asset) {
            context.invalid(to, "`to` must name columns of one asset".to_owned());
            return None;
        }
        target = Some(asset);
        to_columns.push(column.to_owned());
    }
    if columns.len() != to_columns.len() || columns.is_empty() {
        context.invalid(node, format!("`relationships` has {} columns and refers to {}", columns.len(), to_columns.len()));
        return None;
    }
    let name = format!("relationships({})", columns.join(", "));
    Some((name, CheckRule::Relationships { columns, to: target?, to_columns }))
}
