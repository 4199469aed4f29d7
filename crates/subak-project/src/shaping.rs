//! What a stream declares about columns, rows and refusals.

use std::collections::{BTreeMap, BTreeSet};

use subak_diag::{Diagnostic, codes};
use subak_domain::shape::{
    Changes, Child, ColumnRule, Contract, Deletes, Derived, FilterExit, Limit, Naming, OnReject, ValuePath,
};
use subak_domain::write::{OrderBy, Tie};
use subak_domain::{DataType, History, Latest, Layout, Shape, WriteMode, compare_decimals};

use crate::decode::{Context, Fields, text};
use crate::keys;
use crate::yaml::{Name, Node, Value};

/// The words of `on_reject`.
const ON_REJECT: [(&str, OnReject); 4] =
    [("error", OnReject::Error), ("null", OnReject::Null), ("text", OnReject::Text), ("quarantine", OnReject::Quarantine)];

/// Takes what the fields say about the shape; what they do not say stays.
pub(crate) fn read(fields: &Fields<'_>, shape: &mut Shape, context: &mut Context<'_>) {
    for (name, node) in fields.named("columns", context) {
        column(name, node, shape, context);
    }
    for (name, node) in fields.named("derive", context) {
        if let Some(expression) = derived(name, node, context) {
            shape.derive.retain(|known| known.name != name.text);
            shape.derive.push(Derived { name: name.text.clone(), expression });
        }
    }
    if let Some(filter) = fields.text("filter", context) {
        shape.filter = Some(filter.to_owned());
    }
    let exits = [("delete", FilterExit::Delete), ("keep", FilterExit::Keep)];
    shape.on_filter_exit = fields.word("on_filter_exit", &exits, context).unwrap_or(shape.on_filter_exit);
    if fields.get("select").is_some() {
        shape.select = Some(fields.texts("select", context).into_iter().map(|(column, _)| column.to_owned()).collect());
    }
    let namings = [("keep", Naming::Keep), ("lower", Naming::Lower), ("snake_case", Naming::Snake)];
    shape.naming = fields.word("naming", &namings, context).unwrap_or(shape.naming);
    let contracts = [
        ("evolve", Contract::Evolve),
        ("freeze", Contract::Freeze),
        ("discard_row", Contract::DiscardRow),
        ("discard_value", Contract::DiscardValue),
    ];
    shape.contract = fields.word("contract", &contracts, context).unwrap_or(shape.contract);
    shape.on_reject = fields.word("on_reject", &ON_REJECT, context).or(shape.on_reject);
    shape.rejects_max = limit(fields, "rejects_max", context).or(shape.rejects_max);
    for (name, node) in fields.named("children", context) {
        shape.children.extend(child(name, node, context));
    }
    if let Some(node) = fields.get("changes") {
        shape.changes = changes(node, context);
    }
}

/// A number of rows or a share.
pub(crate) fn limit(fields: &Fields<'_>, key: &str, context: &mut Context<'_>) -> Option<Limit> {
    let node = fields.get(key)?;
    let text = text(node, &format!("`{key}`"), context)?;
    let limit = Limit::parse(text);
    if limit.is_none() {
        context.invalid(node, format!("`{key}` must be a number of rows or a share such as `5%`, and this is `{text}`"));
    }
    limit
}

/// A type, or `None` with a problem.
pub(crate) fn data_type(node: &Node, what: &str, context: &mut Context<'_>) -> Option<DataType> {
    let text = text(node, what, context)?;
    let parsed = text.parse();
    if parsed.is_err() {
        let problem = Diagnostic::error(codes::INVALID_TYPE, format!("`{text}` is not a column type"));
        let known = subak_domain::schema::TYPE_NAMES;
        let near = subak_diag::nearest(text, known.iter().copied()).map(|near| format!("did you mean `{near}`? "));
        let help = format!("{}known types are {}", near.unwrap_or_default(), known.join(", "));
        context.report(problem.help(help), &node.span, "");
    }
    parsed.ok()
}

fn path(text: &str, node: &Node, context: &mut Context<'_>) -> Option<ValuePath> {
    let path = ValuePath::parse(text);
    if path.is_none() {
        context.invalid(node, format!("`{text}` is no place of a value; write `column`, `column.key` or `column.list[0].key`"));
    }
    path
}

fn rule(name: &Name, node: &Node, context: &mut Context<'_>) -> Option<ColumnRule> {
    let mut rule =
        ColumnRule { name: name.text.clone(), from: Vec::new(), data_type: None, default: None, on_reject: None, format: None };
    if let Value::Scalar { .. } = &node.value {
        rule.data_type = Some(data_type(node, &format!("the type of `{}`", name.text), context)?);
        return Some(rule);
    }
    let fields = Fields::of(node, keys::COLUMN, &[], &format!("column `{}`", name.text), context)?;
    rule.data_type = fields.get("type").and_then(|node| data_type(node, "`type`", context));
    rule.from = fields.texts("from", context).into_iter().filter_map(|(text, node)| path(text, node, context)).collect();
    rule.default = fields.text("default", context).map(str::to_owned);
    rule.format = fields.text("format", context).map(str::to_owned);
    rule.on_reject = fields.word("on_reject", &ON_REJECT, context);
    let is_time = matches!(rule.data_type, Some(DataType::Date | DataType::Time | DataType::DateTime | DataType::Timestamp));
    if rule.format.is_some() && !is_time {
        context.invalid(node, format!("`format` of column `{}` needs `type:` date, time, datetime or timestamp", name.text));
    }
    Some(rule)
}

fn column(name: &Name, node: &Node, shape: &mut Shape, context: &mut Context<'_>) {
    if let Value::Map(entries) = &node.value
        && let Some((_, inner)) = entries.iter().find(|(key, _)| key.text == "flatten")
    {
        flatten(name, inner, shape, context);
        return;
    }
    if let Some(rule) = rule(name, node, context) {
        shape.columns.retain(|known| known.name != rule.name);
        shape.columns.push(rule);
    }
}

/// `flatten: { device: text }` of a column is `device: { from: column.device, type: text }`.
fn flatten(name: &Name, node: &Node, shape: &mut Shape, context: &mut Context<'_>) {
    let Value::Map(entries) = &node.value else {
        context.wrong_shape(node, "`flatten`", "a mapping");
        return;
    };
    shape.dropped.push(name.text.clone());
    for (inner, node) in entries {
        let Some(mut rule) = rule(inner, node, context) else { continue };
        if rule.from.is_empty() {
            rule.from.extend(path(&inner.text, node, context));
        }
        for path in &mut rule.from {
            let own = subak_domain::shape::PathStep::Key(std::mem::replace(&mut path.column, name.text.clone()));
            path.steps.insert(0, own);
        }
        rule.data_type.get_or_insert(DataType::Text);
        shape.columns.retain(|known| known.name != rule.name);
        shape.columns.push(rule);
    }
}

fn derived(name: &Name, node: &Node, context: &mut Context<'_>) -> Option<String> {
    if let Value::Scalar { text, .. } = &node.value {
        return Some(text.clone());
    }
    let fields = Fields::of(node, keys::DERIVE, &[], &format!("computed column `{}`", name.text), context)?;
    let column = format!("\"{}\"", fields.text("categorize", context)?.replace('"', "\"\""));
    let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let mut bands: Vec<(&str, &str)> = Vec::new();
    for (band, node) in fields.named("bands", context) {
        let lowest = text(node, &format!("the lowest value of `{}`", band.text), context)?;
        if !subak_is_number(lowest) {
            context.invalid(node, format!("the lowest value of band `{}` must be a number, and this is `{lowest}`", band.text));
        } else if let Some((other, _)) = bands.iter().find(|(_, known)| compare_decimals(known, lowest).is_eq()) {
            context.invalid(node, format!("the bands `{other}` and `{}` begin at one value", band.text));
        } else {
            bands.push((&band.text, lowest));
        }
    }
    bands.sort_by(|(_, a), (_, b)| compare_decimals(b, a));
    let case = |(band, lowest): &(&str, &str)| format!(" when {column} >= {lowest} then {}", literal(band));
    let cases: String = bands.iter().map(case).collect();
    let rest = fields.text("else", context).map_or_else(|| "null".to_owned(), literal);
    (!cases.is_empty()).then(|| format!("case when {column} is null then null{cases} else {rest} end"))
}

/// Whether a text is a plain decimal number.
fn subak_is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    [whole, fraction].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

fn child(name: &Name, node: &Node, context: &mut Context<'_>) -> Option<Child> {
    let empty = Node { span: node.span.clone(), value: Value::Map(Vec::new()) };
    let node = if node.value == Value::Null { &empty } else { node };
    let fields = Fields::of(node, keys::CHILD, &[], &format!("child `{}`", name.text), context)?;
    let from = match fields.get("from") {
        Some(node) => path(text(node, "`from`", context)?, node, context)?,
        None => path(&name.text, node, context)?,
    };
    let columns = fields.named("columns", context).iter().filter_map(|(name, node)| rule(name, node, context)).collect();
    Some(Child { name: name.text.clone(), from, columns })
}

fn changes(node: &Node, context: &mut Context<'_>) -> Option<Changes> {
    let empty = Node { span: node.span.clone(), value: Value::Map(Vec::new()) };
    let node = if node.value == Value::Null { &empty } else { node };
    let fields = Fields::of(node, keys::CHANGES, &[], "`changes`", context)?;
    let deletes = [("tombstone", Deletes::Tombstone), ("remove", Deletes::Remove), ("ignore", Deletes::Ignore)];
    let mut delete_when: Vec<String> =
        fields.texts("delete_when", context).into_iter().map(|(word, _)| word.to_lowercase()).collect();
    if delete_when.is_empty() {
        delete_when = vec!["delete".to_owned(), "d".to_owned()];
    }
    let mut upsert_when: Vec<String> =
        fields.texts("upsert_when", context).into_iter().map(|(word, _)| word.to_lowercase()).collect();
    if upsert_when.is_empty() {
        upsert_when = ["insert", "update", "upsert", "read", "create", "c", "i", "u", "r"].map(str::to_owned).to_vec();
    }
    Some(Changes {
        operation: fields.text("operation", context).unwrap_or_default().to_owned(),
        delete_when,
        upsert_when,
        version: fields.text("version", context).unwrap_or_default().to_owned(),
        deletes: fields.word("deletes", &deletes, context).unwrap_or_default(),
    })
}

/// What follows from change events for the rest of a stream: defaults of names, the type of the version, who wins.
pub(crate) fn complete_changes(shape: &mut Shape, is_debezium: bool, tie: Tie) -> Option<Latest> {
    let changes = shape.changes.as_mut()?;
    let or = |name: &mut String, default: &str| {
        if name.is_empty() {
            default.clone_into(name);
        }
    };
    or(&mut changes.operation, if is_debezium { "__op" } else { "op" });
    or(&mut changes.version, if is_debezium { "__version" } else { "_version" });
    let version = changes.version.clone();
    if !is_debezium && !shape.columns.iter().any(|rule| rule.name == version) {
        shape.columns.push(ColumnRule {
            name: version.clone(),
            from: Vec::new(),
            data_type: Some(DataType::DateTime),
            default: None,
            on_reject: None,
            format: Some("any".to_owned()),
        });
    }
    let order = vec![OrderBy { column: version, is_descending: true, nulls_first: false }];
    Some(Latest { order, tie, is_against_table: true })
}

/// `tie` of change events.
pub(crate) fn tie(fields: &Fields<'_>, context: &mut Context<'_>) -> Option<Tie> {
    let Some(Node { value: Value::Map(entries), .. }) = fields.get("changes") else { return None };
    let (_, node) = entries.iter().find(|(name, _)| name.text == "tie")?;
    match text(node, "`tie`", context)? {
        "last" => Some(Tie::Last),
        "first" => Some(Tie::First),
        other => {
            crate::decode::unknown_word(node, other, &["last", "first"], "`tie`", context);
            None
        }
    }
}

/// `deduplicate`.
pub(crate) fn latest(fields: &Fields<'_>, context: &mut Context<'_>) -> Option<Latest> {
    fields.get("deduplicate")?;
    let mut order = Vec::new();
    for (text, node) in fields.texts("deduplicate", context) {
        for term in text.split(',') {
            match OrderBy::parse(term) {
                Some(term) => order.push(term),
                None => context.invalid(
                    node,
                    format!("`{}` is no order; write `column`, `column asc` or `column desc nulls first`", term.trim()),
                ),
            }
        }
    }
    let keeps_first = fields.boolean("keep_first", context).unwrap_or(false);
    // A row that is older than the one in the table is as superseded as one that is older than another of its load.
    let is_against_table = !order.is_empty();
    Some(Latest { order, tie: if keeps_first { Tie::First } else { Tie::Last }, is_against_table })
}

/// `layout`.
pub(crate) fn layout(fields: &Fields<'_>, context: &mut Context<'_>) -> Option<Layout> {
    let fields = Fields::of(fields.get("layout")?, keys::LAYOUT, &[], "`layout`", context)?;
    let mut list = |key: &str| {
        let parts: Vec<String> = fields.texts(key, context).into_iter().map(|(text, _)| text.to_owned()).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    };
    let (order_by, partition_by) = (list("order_by"), list("partition_by"));
    let engine = fields.text("engine", context).map(str::to_owned);
    Some(Layout { engine, order_by, partition_by, ttl: fields.text("ttl", context).map(str::to_owned) })
}

/// `history`.
pub(crate) fn history(fields: &Fields<'_>, context: &mut Context<'_>) -> Option<History> {
    let fields = Fields::of(fields.get("history")?, keys::HISTORY, &[], "`history`", context)?;
    let mut history = History {
        updated_at: fields.text("updated_at", context).map(str::to_owned),
        closes_missing: fields.word("missing_rows", &[("keep", false), ("close", true)], context).unwrap_or(false),
        ..History::default()
    };
    for (key, slot) in
        [("valid_from", &mut history.valid_from), ("valid_to", &mut history.valid_to), ("is_current", &mut history.is_current)]
    {
        if let Some(name) = fields.text(key, context) {
            name.clone_into(slot);
        }
    }
    Some(history)
}

/// The types by which a source may decode: those of rules about whole columns, by their names in the source.
pub(crate) fn source_types(shape: &Shape) -> BTreeMap<String, DataType> {
    let typed = |rule: &ColumnRule| {
        let source = match rule.from.as_slice() {
            [] => rule.name.clone(),
            [path] if path.steps.is_empty() => path.column.clone(),
            _ => return None,
        };
        // What is written in a format of its own, or may be refused, must arrive as it is written.
        let data_type = if rule.format.is_some() { DataType::Text } else { rule.data_type? };
        Some((source, data_type))
    };
    shape.columns.iter().filter_map(typed).collect()
}

/// Settings of a stream that do not go together: the key that it is about, what is wrong, what to do.
pub(crate) fn contradictions(
    mode: WriteMode,
    key: &[String],
    shape: &Shape,
    latest: Option<&Latest>,
) -> Vec<(&'static str, String, &'static str)> {
    let mut found = Vec::new();
    if shape.changes.is_some() && mode != WriteMode::Merge {
        let message = format!("change events are merged by their key, and the mode is `{}`", mode.as_str());
        found.push(("changes", message, "set `mode: merge` and `primary_key:`, or remove `changes:`"));
    } else if latest.is_some() && key.is_empty() {
        let message = "which rows are one is said by `primary_key`, and there is none".to_owned();
        found.push(("deduplicate", message, "declare `primary_key:`, or remove `deduplicate:`"));
    }
    if !shape.children.is_empty() && (latest.is_some() || mode == WriteMode::Snapshot) {
        let message = "nested lists cannot be told apart with `deduplicate`, `changes` or `mode: snapshot`".to_owned();
        found.push(("children", message, "keep the list as JSON, or load it as a stream of its own"));
    }
    if !shape.children.is_empty() && key.is_empty() {
        let message = "rows of nested lists carry the key of their row, and there is no `primary_key`".to_owned();
        found.push(("children", message, "declare `primary_key:`"));
    }
    if let Some(select) = &shape.select {
        for column in key.iter().filter(|column| !select.contains(column)) {
            let message = format!("`select` leaves out `{column}`, which is part of the `primary_key`");
            found.push(("select", message, "add it to `select:`"));
        }
        let unique: BTreeSet<&String> = select.iter().collect();
        if unique.len() < select.len() {
            found.push(("select", "`select` names a column twice".to_owned(), "name it once"));
        }
    }
    found
}
