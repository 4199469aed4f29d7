//! Templates of SQL files: Jinja, rendered when the project is loaded. What only the run knows stays as a mark and is filled in when
//! the step runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::Object;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, context};
use subak_domain::AssetKey;
use subak_domain::partition::{MARK_END, MARK_END_UTC, MARK_KEY, MARK_START, MARK_START_UTC, key_mark};

/// What templates can read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TemplateValues {
    /// `var('name')`.
    pub(crate) vars: BTreeMap<String, String>,
    /// `as_of`.
    pub(crate) as_of: String,
    /// `target.name`: the profile.
    pub(crate) profile: String,
    /// `target.type`: the kind of the query's connection.
    pub(crate) kind: String,
    /// `project`.
    pub(crate) project: String,
    /// Macros, by the path of their file.
    pub(crate) macros: Arc<BTreeMap<String, String>>,
}

/// A rendered template, and what it asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rendered {
    pub(crate) text: String,
    /// Whether it depends on whether the table is there.
    pub(crate) asks_incremental: bool,
}

/// The files that hold macros, and the names that each defines.
fn macro_names(text: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for part in text.split("{%").skip(1) {
        let words = part.trim_start_matches('-').trim_start();
        if let Some(rest) = words.strip_prefix("macro ") {
            let name = rest.trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            names.insert(name);
        }
    }
    names
}

/// Renders the template of a SQL file. `ref('a.b')` becomes the name of the asset's table.
pub(crate) fn render(body: &str, values: &TemplateValues, is_incremental: bool) -> Result<Rendered, Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(1_000_000));
    environment.add_function("ref", |name: String| -> Result<String, Error> {
        let key = name.parse::<AssetKey>().map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))?;
        Ok(physical_name(&key))
    });
    let vars = values.vars.clone();
    environment.add_function("var", move |name: String, default: Option<Value>| -> Result<Value, Error> {
        match (vars.get(&name), default) {
            (Some(value), _) => Ok(Value::from(value.clone())),
            (None, Some(default)) => Ok(default),
            (None, None) => {
                let message =
                    format!("`var('{name}')` has no value; declare it under `vars:` in `subak.yml`, or give `--var {name}=…`");
                Err(Error::new(ErrorKind::InvalidOperation, message))
            }
        }
    });
    let asked = Arc::new(Mutex::new(false));
    let ask = Arc::clone(&asked);
    environment.add_function("is_incremental", move || {
        *ask.lock().unwrap_or_else(PoisonError::into_inner) = true;
        is_incremental
    });
    for (path, text) in values.macros.iter() {
        environment.add_template_owned(path.clone(), text.clone())?;
    }
    let whole = format!("{}{body}", imports(body, values));
    // `this` and what only the run knows are left for the step.
    let run = context! { id => "{{ run.id }}", started_at => "{{ run.started_at }}" };
    let target = BTreeMap::from([("name", values.profile.as_str()), ("type", values.kind.as_str())]);
    // Macros see what does not depend on the asset.
    environment.add_global("target", Value::from_pairs(target));
    environment.add_global("as_of", values.as_of.as_str());
    environment.add_global("project", values.project.as_str());
    let partition = context! {
        key => MARK_KEY, start => MARK_START, end => MARK_END, start_utc => MARK_START_UTC, end_utc => MARK_END_UTC,
        keys => Value::from_object(PartitionKeys),
    };
    let text = environment.render_str(&whole, context! { this => "{{ this }}", run => run, partition => partition })?;
    let asks_incremental = *asked.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Rendered { text, asks_incremental })
}

/// The keys of a partition in its dimensions: whatever their names are, the step knows them.
#[derive(Debug)]
struct PartitionKeys;

impl Object for PartitionKeys {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        Some(Value::from(key_mark(key.as_str()?)))
    }
}

/// The imports of macros that stand before a body which uses one, on its first line.
fn imports(body: &str, values: &TemplateValues) -> String {
    if !values.macros.values().flat_map(|text| macro_names(text)).any(|name| body.contains(name)) {
        return String::new();
    }
    let import = |(path, text): (&String, &String)| {
        let names: Vec<&str> = macro_names(text).into_iter().collect();
        format!("{{% from {path:?} import {} %}}", names.join(", "))
    };
    values.macros.iter().map(import).collect()
}

/// Where in the body an error stands.
pub(crate) fn place(error: &Error, body: &str, values: &TemplateValues) -> Option<std::ops::Range<usize>> {
    let range = error.range()?;
    let is_own = error.name().is_none_or(|name| name == "<string>");
    if !is_own {
        return None;
    }
    let shift = imports(body, values).len();
    Some(range.start.checked_sub(shift)?..range.end.checked_sub(shift)?)
}

/// The table's name as SQL writes it.
pub(crate) fn physical_name(key: &AssetKey) -> String {
    match key.schema() {
        Some(schema) => format!("{schema}.{}", key.name()),
        None => key.name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_read_variables_macros_and_the_run() {
        let macros =
            BTreeMap::from([("macros/money.sql".to_owned(), "{% macro cents(c) %}({{ c }} / 100){% endmacro %}".to_owned())]);
        let values = TemplateValues {
            vars: BTreeMap::from([("days".to_owned(), "7".to_owned())]),
            as_of: "2026-11-21".to_owned(),
            profile: "prod".to_owned(),
            kind: "duckdb".to_owned(),
            project: "p".to_owned(),
            macros: Arc::new(macros),
        };
        let body = "select {{ cents('a') }}, {{ var('days') }}, {{ var('x', 1) }} from {{ ref('a.b') }} where d < '{{ as_of }}' \
                    and r = '{{ run.id }}'{% if is_incremental() %} and t > (select max(t) from {{ this }}){% endif %} -- {{ target.name }}";
        let full = render(body, &values, false).expect("render");
        assert_eq!(full.text, "select (a / 100), 7, 1 from a.b where d < '2026-11-21' and r = '{{ run.id }}' -- prod");
        assert!(full.asks_incremental);
        let incremental = render(body, &values, true).expect("render");
        assert!(incremental.text.contains("and t > (select max(t) from {{ this }})"));
        let error = render("select {{ var('y') }}", &values, false).expect_err("no such variable");
        assert!(error.to_string().contains("--var y="), "{error}");
        assert_eq!(place(&error, "select {{ var('y') }}", &values).map(|range| range.start), Some(10));
    }
}
