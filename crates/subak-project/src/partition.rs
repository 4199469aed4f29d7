//! `partition:`: how an asset is cut into slices that are brought up to date one by one.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use subak_diag::{Diagnostic, codes};
use subak_domain::partition::{
    Cadence, Dimension, MARK_END, MARK_END_UTC, MARK_KEY, MARK_START, MARK_START_UTC, Mapping, PartitionRule, Partitioning,
    TimeWindows, key_mark,
};
use subak_domain::{AssetKey, DataType, StoredAs, WriteMode};

use crate::declare::{QueryDeclaration, StreamDeclaration};
use crate::decode::{self, Context, Fields, list, text};
use crate::keys;
use crate::yaml::{Node, Value};

/// Reads `partition`.
pub(crate) fn read(fields: &Fields<'_>, timezone: &str, context: &mut Context<'_>) -> Option<Partitioning> {
    let node = fields.get("partition")?;
    let fields = Fields::of(node, keys::PARTITION, &[], "`partition`", context)?;
    let found = match fields.get("dimensions") {
        None => dimension(node, &fields, timezone, context),
        Some(_) => grid(node, &fields, timezone, context),
    };
    let reads = reads(&fields, context);
    let needs_previous = fields.boolean("needs_previous", context).unwrap_or(false);
    let found = Partitioning { reads, needs_previous, ..found? };
    if let (Some(key), true, None) = (fields.name("needs_previous"), needs_previous, found.windows()) {
        let problem = Diagnostic::error(codes::SHAPE_MISUSE, "`needs_previous` is about windows of time, and there are none");
        context.report(problem.help("remove it"), &key.span, "");
    }
    Some(found)
}

/// Several ways of cutting at once.
fn grid(node: &Node, fields: &Fields<'_>, timezone: &str, context: &mut Context<'_>) -> Option<Partitioning> {
    for key in keys::DIMENSION.iter().filter_map(|key| fields.name(key.name)) {
        let problem = Diagnostic::error(codes::INVALID_VALUE, format!("`{}` stands beside `dimensions`", key.text));
        context.report(problem.help("put it below one of the dimensions"), &key.span, "");
    }
    let mut found: Vec<Dimension> = Vec::new();
    for (name, node) in fields.named("dimensions", context) {
        let is_name = name.text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') && !name.text.is_empty();
        if !is_name {
            let message = format!("`{}` is no name of a dimension: use letters, digits and `_`", name.text);
            context.report(Diagnostic::error(codes::INVALID_VALUE, message), &name.span, "");
        }
        let what = format!("dimension `{}`", name.text);
        let Some(own) = Fields::of(node, keys::DIMENSION, &[], &what, context) else { continue };
        let Some(Partitioning { column, rule, .. }) = dimension(node, &own, timezone, context) else { continue };
        if matches!(rule, PartitionRule::Time(_)) && found.iter().any(|other| matches!(other.rule, PartitionRule::Time(_))) {
            let problem = Diagnostic::error(codes::SHAPE_MISUSE, "two dimensions are of time, and one may be");
            context.report(problem.help("let one of them have keys of its own"), &name.span, "");
        }
        found.push(Dimension { name: name.text.clone(), column, rule });
    }
    // T-119: the order of declaration says nothing.
    found.sort_by(|one, other| one.name.cmp(&other.name));
    if found.len() < 2 {
        let problem = Diagnostic::error(codes::MISSING_KEY, "`dimensions` has at least two");
        context.report(problem.help("one dimension stands in `partition` itself: `daily: day`"), &node.span, "");
        return None;
    }
    Some(Partitioning::new("", PartitionRule::Grid(found)))
}

/// Which partitions of other assets are read.
fn reads(fields: &Fields<'_>, context: &mut Context<'_>) -> BTreeMap<AssetKey, Mapping> {
    let mut found = BTreeMap::new();
    for (name, node) in fields.named("reads", context) {
        let place = Node { span: name.span.clone(), value: Value::Null };
        let Some(asset) = decode::asset_key(&name.text, &place, context) else { continue };
        let Value::Map(_) = &node.value else {
            match text(node, "`reads`", context) {
                Some("all") => drop(found.insert(asset, Mapping::All)),
                Some(other) => context.invalid(
                    node,
                    format!("`{other}` says nothing of partitions; write `all`, or a mapping such as `{{ offset: -1 }}`"),
                ),
                None => {}
            }
            continue;
        };
        let Some(own) = Fields::of(node, keys::READS, &[], "`reads`", context) else { continue };
        let mut number = |name: &str| {
            let node = own.get(name)?;
            let text = text(node, &format!("`{name}`"), context)?;
            let parsed = text.parse::<i64>().ok().filter(|number| number.abs() <= OFFSET_MAX);
            if parsed.is_none() {
                context.invalid(
                    node,
                    format!("`{name}` must be a whole number such as `-1`, at most {OFFSET_MAX} away, and this is `{text}`"),
                );
            }
            parsed
        };
        let (offset, from, to) = (number("offset"), number("from"), number("to"));
        if [("offset", offset), ("from", from), ("to", to)]
            .into_iter()
            .any(|(name, number)| own.get(name).is_some() && number.is_none())
        {
            continue;
        }
        let keys: Vec<String> = own.texts("keys", context).into_iter().map(|(key, _)| key.to_owned()).collect();
        let mapping = match (offset, from.zip(to), keys.is_empty()) {
            (Some(offset), None, true) => Mapping::Offset { from: offset, to: offset },
            (None, Some((from, to)), true) if from <= to => Mapping::Offset { from, to },
            (None, None, false) => Mapping::Keys(keys),
            _ => {
                let problem =
                    Diagnostic::error(codes::MISSING_KEY, "`reads` needs `offset`, `from` and `to` in this order, or `keys`");
                context.report(
                    problem.help("write `{ offset: -1 }`, `{ from: -6, to: 0 }` or `{ keys: [ id, sg ] }`"),
                    &node.span,
                    "",
                );
                continue;
            }
        };
        found.insert(asset, mapping);
    }
    found
}

/// One way of cutting.
fn dimension(node: &Node, fields: &Fields<'_>, timezone: &str, context: &mut Context<'_>) -> Option<Partitioning> {
    let kinds: Vec<&str> = Cadence::NAMES.iter().map(|(name, _)| *name).chain(["static", "dynamic"]).collect();
    let said: Vec<&str> = kinds.iter().copied().filter(|kind| fields.get(kind).is_some()).collect();
    let [kind] = said.as_slice() else {
        let message = match said.as_slice() {
            [] => "`partition` does not say what the partitions are".to_owned(),
            several => format!("`partition` says {} at once", list(several)),
        };
        let help = format!("give it one of {}, for example `daily: transaction_date`", list(&kinds));
        context.report(Diagnostic::error(codes::MISSING_KEY, message).help(help), &node.span, "");
        return None;
    };
    let Some((_, cadence)) = Cadence::NAMES.iter().find(|(name, _)| name == kind) else {
        return keyed(kind, node, fields, context);
    };
    let column = fields.text(kind, context)?.to_owned();
    if let Some(key) = fields.name("column") {
        let problem = Diagnostic::error(codes::INVALID_VALUE, format!("the column is said behind `{kind}` already"));
        context.report(problem.help("remove `column:`"), &key.span, "");
    }
    let timezone = fields.text("timezone", context).unwrap_or(timezone).to_owned();
    if let Some(node) = fields.get("timezone")
        && TimeZone::get(&timezone).is_err()
    {
        context.invalid(node, format!("`{timezone}` is not a time zone; use an IANA name such as `Asia/Jakarta`"));
    }
    if fields.get("start").is_none() {
        let problem = Diagnostic::error(codes::MISSING_KEY, "`partition` does not say where its windows begin");
        context.report(problem.help("give it `start: 2024-01-01`"), &node.span, "");
        return None;
    }
    let start = moment(fields, "start", context)?;
    let end = match fields.get("end") {
        Some(_) => Some(moment(fields, "end", context)?),
        None => None,
    };
    if let (Some(node), Some(end)) = (fields.get("end"), end)
        && end <= start
    {
        context.invalid(node, "`end` must lie behind `start`".to_owned());
    }
    Some(Partitioning::new(&column, PartitionRule::Time(TimeWindows { cadence: *cadence, start, end, timezone })))
}

/// Partitions that are no windows of time.
fn keyed(kind: &str, node: &Node, fields: &Fields<'_>, context: &mut Context<'_>) -> Option<Partitioning> {
    for only in ["start", "end", "timezone"] {
        if let Some(key) = fields.name(only) {
            let message = format!("`{only}` belongs to windows of time, and these partitions are {kind}");
            context.report(Diagnostic::error(codes::INVALID_VALUE, message).help("remove it"), &key.span, "");
        }
    }
    let Some(column) = fields.text("column", context) else {
        let problem = Diagnostic::error(codes::MISSING_KEY, "`partition` does not say by which column its rows are told apart");
        context.report(problem.help("give it `column: NAME`"), &node.span, "");
        return None;
    };
    let rule = if kind == "dynamic" {
        let name = fields.text("dynamic", context)?;
        if let Some(node) = fields.get("dynamic") {
            refuse_bad_key(name, node, context);
        }
        PartitionRule::Dynamic(name.to_owned())
    } else {
        let mut keys: Vec<String> = Vec::new();
        for (key, node) in fields.texts("static", context) {
            refuse_bad_key(key, node, context);
            if keys.iter().any(|known| known == key) {
                context.invalid(node, format!("the partition `{key}` is listed twice"));
            }
            keys.push(key.to_owned());
        }
        PartitionRule::Static(keys)
    };
    Some(Partitioning::new(column, rule))
}

/// Why a text can be no key of a partition; `None` when it can.
pub fn key_problem(key: &str) -> Option<&'static str> {
    match key {
        "" => Some("it is empty"),
        "latest" | "missing" | "failed" | "all" => Some("it is a word of `--partition`"),
        _ if key.len() > 200 => Some("it has more than 200 bytes"),
        // T-119: what joins and ends keys elsewhere.
        _ if key.contains("..") || key.contains(['|', '[', ']', ',']) || key.chars().any(char::is_control) => {
            Some("keys have no `..`, `|`, `[`, `]` and `,` in them")
        }
        _ => None,
    }
}

fn refuse_bad_key(key: &str, node: &Node, context: &mut Context<'_>) {
    if let Some(why) = key_problem(key) {
        context.invalid(node, format!("`{key}` cannot be the key of a partition: {why}"));
    }
}

fn moment(fields: &Fields<'_>, name: &str, context: &mut Context<'_>) -> Option<DateTime> {
    let node = fields.get(name)?;
    let text = text(node, &format!("`{name}`"), context)?;
    let found = text.parse::<DateTime>().ok();
    if found.is_none() {
        context.invalid(node, format!("`{name}` must be a day or a time such as `2026-11-21`, and this is `{text}`"));
    }
    found
}

/// Refuses what a stream with partitions cannot have.
pub(crate) fn refuse_stream(declaration: &StreamDeclaration, fields: &Fields<'_>, context: &mut Context<'_>) {
    if !declaration.common.says_partition {
        refuse_marks(declaration.options.values(), fields, context);
        return;
    }
    let Some(partitioning) = &declaration.common.partitioning else { return };
    let windows = partitioning.dimensions().into_iter().find(|(.., rule)| matches!(rule, PartitionRule::Time(_)));
    let is_window = windows.is_some();
    let is_grid = matches!(partitioning.rule, PartitionRule::Grid(_));
    let asks = |wanted: &[&str]| declaration.options.values().any(|text| wanted.iter().any(|mark| text.contains(mark)));
    if !is_window && asks(&WINDOW_MARKS) {
        refuse_window(fields, context);
    }
    // A program is told which one it is for.
    let is_program = declaration.from.as_str() == subak_domain::key::PROJECT_FILES;
    let keyed = partitioning.dimensions().into_iter().filter(|(.., rule)| !matches!(rule, PartitionRule::Time(_)));
    let is_asked = |(name, ..): (&str, &str, &PartitionRule)| asks(&[MARK_KEY]) || (is_grid && asks(&[&key_mark(name)]));
    if !is_program && !keyed.into_iter().all(is_asked) {
        let span = fields.name("partition").map_or(0..0, |name| name.span.clone());
        let problem = Diagnostic::error(codes::SHAPE_MISUSE, "the stream does not ask which partition it is for");
        let mark = if is_grid { "{{ partition.keys.NAME }}" } else { MARK_KEY };
        context.report(problem.help(format!("ask for it where it is read: `path: '{mark}.csv'`")), &span, "");
    }
    let column = windows.map_or(partitioning.column.as_str(), |(_, column, _)| column);
    let column_type = declaration.shape.columns.iter().find(|rule| rule.name == column).and_then(|rule| rule.data_type);
    let is_moment =
        |data_type: DataType| matches!(data_type, DataType::Date | DataType::DateTime | DataType::Timestamp | DataType::Text);
    if let Some(data_type) = column_type.filter(|data_type| is_window && !is_moment(*data_type)) {
        let span = fields.name("partition").map_or(0..0, |name| name.span.clone());
        let message = format!("windows of time need a date or time, and `{column}` is {data_type}");
        context.report(
            Diagnostic::error(codes::SHAPE_MISUSE, message).help("name another column, or declare another type"),
            &span,
            "",
        );
    }
    let idle = [
        ("mode", declaration.mode != WriteMode::Replace, "each partition is replaced"),
        ("cursor", declaration.cursor.is_some(), "the partition says what is read"),
        ("children", !declaration.shape.children.is_empty(), "nested lists of a partition are not replaced with it"),
        ("changes", declaration.shape.changes.is_some(), "events are no rows of a partition"),
        ("deduplicate", declaration.latest.is_some(), "each partition is replaced"),
    ];
    for (about, _, why) in idle.into_iter().filter(|(_, is_said, _)| *is_said) {
        let span = fields.name(about).or(fields.name("partition")).map_or(0..0, |name| name.span.clone());
        let message = format!("`{}` has partitions and `{about}`: {why}", declaration.common.key);
        context.report(Diagnostic::error(codes::SHAPE_MISUSE, message).help(format!("remove `{about}:`")), &span, "");
    }
}

/// Marks that only windows of time have.
const WINDOW_MARKS: [&str; 4] = [MARK_START, MARK_END, MARK_START_UTC, MARK_END_UTC];

fn refuse_window(fields: &Fields<'_>, context: &mut Context<'_>) {
    let span = fields.name("partition").map_or(0..0, |name| name.span.clone());
    let problem = Diagnostic::error(
        codes::TEMPLATE,
        "this asks for the window of a partition, and these partitions are no windows of time",
    );
    context.report(problem.help("they have `{{ partition.key }}` only"), &span, "");
}

/// A path that asks for a partition where there are none.
fn refuse_marks<'a>(texts: impl Iterator<Item = &'a String>, fields: &Fields<'_>, context: &mut Context<'_>) {
    if texts.into_iter().any(|text| subak_domain::partition::asks_for_partition(text)) {
        let span = fields.name("path").map_or(0..0, |name| name.span.clone());
        let problem = Diagnostic::error(codes::TEMPLATE, "this asks for a partition, and the stream has none");
        context.report(problem.help("declare `partition:`, or write the text out"), &span, "");
    }
}

/// Refuses what a query with partitions cannot have.
pub(crate) fn refuse_query(
    declaration: &QueryDeclaration,
    fields: &Fields<'_>,
    partitioning: Option<&Partitioning>,
    context: &mut Context<'_>,
) {
    let asks = declaration.body.contains("partition.");
    let span = |about: &str| fields.name(about).or(fields.name("partition")).map_or(0..0, |name| name.span.clone());
    let Some(partitioning) = partitioning else { return };
    let is_window = partitioning.windows().is_some();
    for name in key_names(&declaration.body) {
        let known: Vec<&str> = partitioning.dimensions().into_iter().map(|(name, ..)| name).collect();
        if !known.contains(&name) {
            let problem = Diagnostic::error(codes::TEMPLATE, format!("the partition has no dimension `{name}`"));
            let help = match partitioning.rule {
                PartitionRule::Grid(_) => format!("it has {}", list(&known)),
                _ => "its only key is `{{ partition.key }}`".to_owned(),
            };
            context.report(problem.help(help), &span("partition"), "");
        }
    }
    let words = ["partition.start", "partition.end"];
    if !is_window && words.iter().any(|word| declaration.body.contains(word)) {
        refuse_window(fields, context);
    }
    if declaration.stored_as != StoredAs::Incremental {
        let problem = Diagnostic::error(codes::SHAPE_MISUSE, "partitions need `stored_as: incremental`");
        context.report(problem.help("remove `stored_as:`, or `partition:`"), &span("stored_as"), "");
    }
    for about in ["mode", "deduplicate"] {
        if fields.get(about).is_some() {
            let message = format!("`{about}` has no effect: each partition is replaced");
            context.report(Diagnostic::error(codes::SHAPE_MISUSE, message).help("remove it"), &span(about), "");
        }
    }
    if !asks {
        let problem = Diagnostic::error(codes::SHAPE_MISUSE, "the query does not ask which partition it is for");
        let help = "filter by it: `where day >= {{ partition.start }} and day < {{ partition.end }}`, or `where country = {{ partition.key }}`";
        context.report(problem.help(help), &span("partition"), "");
    }
}

/// Refuses a query that asks for a partition where there are none.
pub(crate) fn refuse_marks_in_query(
    path: &Arc<str>,
    declaration: &QueryDeclaration,
    rendered: &str,
    problems: &mut Vec<Diagnostic>,
) {
    if !declaration.common.says_partition && subak_domain::partition::asks_for_partition(rendered) {
        let place = declaration.body.find("partition.").unwrap_or(0) + declaration.body_start;
        let problem = Diagnostic::error(codes::TEMPLATE, "this asks for a partition, and the asset has none");
        let problem = problem.at(path, place..place + "partition".len(), "");
        problems.push(problem.help("declare it in the header: `partition: { daily: day, start: 2024-01-01 }`"));
    }
}

/// The dimensions whose keys a text asks for.
fn key_names(text: &str) -> Vec<&str> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let begins = text.match_indices(KEYS).map(|(at, _)| &text[at + KEYS.len()..]);
    begins.map(|rest| &rest[..rest.find(|letter| !is_name(letter)).unwrap_or(rest.len())]).collect()
}

/// What stands before the name of a dimension.
const KEYS: &str = "partition.keys.";

/// The most windows that an offset may be away.
const OFFSET_MAX: i64 = 100_000;

/// The marks and what stands for them where SQL has to be read.
const LITERALS: [(&str, &str); 5] = [
    (MARK_KEY, "'subak:partition.key'"),
    (MARK_START, "'subak:partition.start'"),
    (MARK_END, "'subak:partition.end'"),
    (MARK_START_UTC, "'subak:partition.start_utc'"),
    (MARK_END_UTC, "'subak:partition.end_utc'"),
];

/// SQL with literals in the place of marks, so that it can be read.
pub(crate) fn with_literals(sql: &str) -> String {
    let own = key_names(sql).into_iter().map(|name| (key_mark(name), key_literal(name)));
    let sql = own.fold(sql.to_owned(), |sql, (mark, literal)| sql.replace(&mark, &literal));
    LITERALS.iter().fold(sql, |sql, (mark, literal)| sql.replace(mark, literal))
}

fn key_literal(name: &str) -> String {
    format!("'subak:{KEYS}{name}'")
}

/// The reverse.
pub(crate) fn with_marks(sql: &str) -> String {
    let own = key_names(sql).into_iter().map(|name| (key_mark(name), key_literal(name)));
    let sql = own.fold(sql.to_owned(), |sql, (mark, literal)| sql.replace(&literal, &mark));
    LITERALS.iter().fold(sql, |sql, (mark, literal)| sql.replace(literal, mark))
}

/// Whether a node is a mapping, for callers that look before they read.
pub(crate) fn is_declared(fields: &Fields<'_>) -> bool {
    fields.get("partition").is_some_and(|node| node.value != Value::Null)
}
