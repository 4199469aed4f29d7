//! Programs that make assets: `script:` in a YAML file, or the header of a Python file or a shell script.
//!
//! The header stands in comments, as PEP 723 has it for other tools:
//!
//! ```text
//! # /// subak
//! # inputs: silver.transactions
//! # primary_key: user_id
//! # ///
//! ```

use std::collections::BTreeMap;
use std::ops::Range;

use subak_diag::{Diagnostic, codes};
use subak_domain::asset::InputFormat;
use subak_domain::job::{Command, Program};
use subak_domain::{AssetKey, ConnectionName, WriteMode, Writes};

use crate::config::connection_ref;
use crate::declare::{FileDeclarations, Scope, StreamDeclaration, StreamReader, lacks};
use crate::decode::{self, Context, Fields, text};
use crate::jobs::{Names, Texts, environment};
use crate::keys;
use crate::yaml::{self, Name, Node, Value};

/// What a header begins with, behind the marks of a comment.
const BEGIN: &str = "/// subak";

/// What it ends with.
const END: &str = "///";

/// Endings of files that may have a header.
pub(crate) const ENDINGS: &[&str] = &["py", "sh"];

/// A program that makes assets.
#[derive(Debug, Clone)]
pub(crate) struct ScriptDeclaration {
    /// The assets with what happens to their rows.
    pub(crate) assets: Vec<StreamDeclaration>,
    pub(crate) program: Program,
    pub(crate) is_outside: bool,
    pub(crate) inputs: Vec<(AssetKey, Range<usize>)>,
    pub(crate) input_format: InputFormat,
    pub(crate) depends_on: Vec<(AssetKey, Range<usize>)>,
    /// The text of the file, when it is the program.
    pub(crate) text: String,
}

/// The header of a file: its YAML, as long as the text that it stands for, and where it begins.
struct Header {
    yaml: String,
    start: usize,
}

/// Finds the header; the error is the place of one that does not end.
fn header(text: &str) -> Result<Option<Header>, Range<usize>> {
    let (mut at, mut found): (usize, Option<Header>) = (0, None);
    for line in text.split_inclusive('\n') {
        let mark = ["#", "//", "--"].into_iter().find(|mark| line.starts_with(mark));
        let said = mark.map(|mark| line[mark.len()..].trim());
        match (&mut found, said) {
            (None, Some(BEGIN)) => found = Some(Header { yaml: String::new(), start: at + line.len() }),
            (Some(_), Some(END)) => return Ok(found),
            // Bytes keep their places, so that problems stand where they are.
            (Some(header), Some(_)) => {
                let mark = mark.unwrap_or_default();
                header.yaml.push_str(&" ".repeat(mark.len()));
                header.yaml.push_str(&line[mark.len()..]);
            }
            (Some(header), None) => return Err(header.start.saturating_sub(1)..header.start),
            (None, _) => {}
        }
        at += line.len();
    }
    match found {
        None => Ok(None),
        Some(header) => Err(header.start.saturating_sub(1)..header.start),
    }
}

/// Reads a Python file or a shell script below `assets/`.
pub(crate) fn program_file(scope: &Scope<'_>, text: &str) -> FileDeclarations {
    let mut found = FileDeclarations::default();
    let mut problems = Vec::new();
    match header(text) {
        Ok(None) => {
            let problem = Diagnostic::warning(codes::WRONG_FOLDER, format!("nothing reads `{}`", scope.path));
            let help = "an asset begins with the lines `# /// subak` and `# ///`, with its keys in comments between them; move other programs out of `assets/`";
            problems.push(problem.at(scope.path, 0..0, "").help(help));
        }
        Err(span) => {
            let problem = Diagnostic::error(codes::HEADER_UNTERMINATED, "the header does not end");
            problems.push(problem.at(scope.path, span, "begins here").help("close it with the line `# ///`"));
        }
        Ok(Some(header)) => {
            let mut inner = Vec::new();
            let nodes = yaml::parse(scope.path, &header.yaml, &mut inner);
            for label in inner.iter_mut().flat_map(|problem| &mut problem.labels) {
                label.span = label.span.start + header.start..label.span.end + header.start;
            }
            problems.append(&mut inner);
            let empty = Node { span: 0..0, value: Value::Map(Vec::new()) };
            let node = nodes.first().filter(|node| node.value != Value::Null).unwrap_or(&empty);
            let mut context = Context { path: scope.path, offset: header.start, problems: &mut problems };
            let own = scope.path.to_string();
            let command = if own.rsplit('.').next() == Some("py") {
                Command::Python(vec![own])
            } else {
                Command::Direct(vec!["/bin/sh".into(), own])
            };
            let own = Some((Program { command, ..Program::default() }, text));
            found.scripts.extend(script(scope, node, own, &mut context));
        }
    }
    found.problems = problems;
    found
}

/// Reads `script:`, or a header; `own` is the program that the header stands in.
pub(crate) fn script(
    scope: &Scope<'_>,
    node: &Node,
    own: Option<(Program, &str)>,
    context: &mut Context<'_>,
) -> Option<ScriptDeclaration> {
    let options: Vec<subak_domain::config::Field> = scope
        .settings
        .connectors
        .iter()
        .filter(|info| info.kind == "files")
        .flat_map(|info| info.config.stream)
        .filter(|field| !keys::NOT_OF_SCRIPTS.contains(&field.name))
        .copied()
        .collect();
    let is_known = |name: &&str| !keys::NOT_OF_SCRIPTS.contains(name);
    let of_streams = keys::STREAM.iter().map(|key| key.name).filter(is_known);
    let known: Vec<&str> = of_streams.chain(options.iter().map(|option| option.name)).collect();
    let fields = Fields::of(node, keys::SCRIPT, &known, "the script", context)?;
    let (mut program, text) = match (own, fields.get("run")) {
        (Some(_), Some(node)) => {
            let problem = Diagnostic::error(codes::INVALID_VALUE, "the program is the file that this header stands in");
            context.report(problem.help("remove `run`, or declare `script:` in a YAML file"), &node.span, "");
            return None;
        }
        (Some((program, text)), None) => (program, text.to_owned()),
        (None, Some(node)) => {
            let program = Texts { scope, names: Names::Asset }.program(node, context)?;
            (program, String::new())
        }
        (None, None) => {
            let problem = Diagnostic::error(codes::MISSING_KEY, "the script needs the key `run`");
            context.report(problem.help("`run`: the program, for example `run: { python: scripts/churn.py }`"), &node.span, "");
            return None;
        }
    };
    program.env.extend(environment(&fields, context)?);
    let to = match fields.get("to") {
        None => scope.config.warehouse.clone(),
        Some(node) => connection_ref(self::text(node, "`to`", context)?, node, &scope.config.connections, context)?,
    };
    let is_outside = fields.word("stored_as", &[("table", false), ("outside", true)], context).unwrap_or(false);
    let formats = [("parquet", InputFormat::Parquet), ("csv", InputFormat::Csv)];
    let input_format = fields.word("input_format", &formats, context).unwrap_or_default();
    let (inputs, depends_on) = (assets_of(&fields, "inputs", context), assets_of(&fields, "depends_on", context));
    let assets = outputs(scope, &fields, node, &to, &options, context);
    if is_outside {
        refuse_outside(&fields, &assets, context);
    } else if let Some(info) = scope.connector(&to).filter(|info| info.writes == Writes::Nothing) {
        let key = if fields.get("to").is_some() { "to" } else { "run" };
        lacks(context, &fields, key, format!("connection `{to}` (type `{}`) cannot be written", info.kind));
    }
    (!assets.is_empty()).then_some(ScriptDeclaration { assets, program, is_outside, inputs, input_format, depends_on, text })
}

pub(crate) fn assets_of(fields: &Fields<'_>, name: &str, context: &mut Context<'_>) -> Vec<(AssetKey, Range<usize>)> {
    let texts = fields.texts(name, context);
    texts
        .into_iter()
        .filter_map(|(text, node)| Some((decode::asset_key(text, node, context)?, context.place(&node.span))))
        .collect()
}

/// The assets, and what happens to the rows that the program writes for each.
fn outputs(
    scope: &Scope<'_>,
    fields: &Fields<'_>,
    node: &Node,
    to: &ConnectionName,
    options: &[subak_domain::config::Field],
    context: &mut Context<'_>,
) -> Vec<StreamDeclaration> {
    let own: Vec<&str> = options.iter().map(|option| option.name).collect();
    let all: Vec<&str> = own.iter().copied().chain(keys::SCRIPT.iter().map(|key| key.name)).collect();
    let is_whole_only = scope.connector(to).is_some_and(|info| info.writes == Writes::WholeTables);
    let from = ConnectionName::project_files();
    let several = fields.get("assets").is_some();
    let defaults = several.then_some(*fields);
    let extra = if several { &own } else { &all };
    let reader = StreamReader { scope, defaults, options, extra, from, to: to.clone(), is_whole_only };
    if several {
        let named = fields.named("assets", context);
        if named.is_empty() {
            let span = fields.name("assets").map_or(0..0, |name| name.span.clone());
            context.report(
                Diagnostic::error(codes::NO_STREAMS, "`assets` names none").help("list at least one, or remove it"),
                &span,
                "",
            );
        }
        let mut found = Vec::new();
        for (name, node) in named {
            refuse_idle(node, context);
            found.extend(reader.read(name, node, None, context));
        }
        return found;
    }
    let stem = scope.path.rsplit('/').next().unwrap_or_default();
    let name =
        Name { text: stem.rsplit_once('.').map_or(stem, |(stem, _)| stem).to_owned(), span: node.span.start..node.span.start };
    reader.read(&name, node, None, context).into_iter().collect()
}

/// Keys of a stream that mean nothing for a script, in an entry of `assets`.
fn refuse_idle(node: &Node, context: &mut Context<'_>) {
    let Value::Map(entries) = &node.value else { return };
    for (name, _) in entries.iter().filter(|(name, _)| keys::NOT_OF_SCRIPTS.contains(&name.text.as_str())) {
        let message = format!("`{}` has nothing to do: a program makes the asset", name.text);
        context.report(Diagnostic::error(codes::SHAPE_MISUSE, message).help("remove it"), &name.span, "");
    }
}

/// What is said about rows, where there are none.
fn refuse_outside(fields: &Fields<'_>, assets: &[StreamDeclaration], context: &mut Context<'_>) {
    let about_rows = [
        "to",
        "mode",
        "primary_key",
        "columns",
        "derive",
        "filter",
        "select",
        "contract",
        "on_reject",
        "deduplicate",
        "history",
        "layout",
        "changes",
        "children",
        "checks",
        "hooks",
    ];
    let of_shared = about_rows.into_iter().filter_map(|name| fields.name(name));
    let mut wrong: Vec<(String, Range<usize>)> = of_shared.map(|name| (name.text.clone(), name.span.clone())).collect();
    let is_plain = |asset: &&StreamDeclaration| asset.common.checks.is_empty() && asset.mode == WriteMode::Replace;
    if wrong.is_empty()
        && let Some(asset) = assets.iter().find(|asset| !is_plain(asset))
    {
        let span = asset.common.span.clone();
        wrong.push(("checks` and `mode".to_owned(), span));
    }
    for (name, span) in wrong {
        let message = format!("`{name}` is about rows, and with `stored_as: outside` there are none");
        let help = "remove it, or let the program write files into `$SUBAK_OUTPUT` and remove `stored_as: outside`; checks that the program reports itself are kept";
        context.report(Diagnostic::error(codes::SHAPE_MISUSE, message).help(help), &span, "");
    }
}

/// Everything about the program that decides what it makes.
pub(crate) fn program_fields(script: &ScriptDeclaration) -> BTreeMap<&'static str, String> {
    let inputs: Vec<&str> = script.inputs.iter().map(|(key, _)| key.as_str()).collect();
    BTreeMap::from([
        ("program", script.program.version_text()),
        ("text", script.text.clone()),
        ("inputs", format!("{} as {}", inputs.join(" "), script.input_format.as_str())),
        ("outside", script.is_outside.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_stands_in_comments() {
        let text = "#!/usr/bin/env python3\n# /// script\n# dependencies = []\n# ///\n# /// subak\n# inputs: [a.b]\n#\n# tags: x\n# ///\nprint(1)\n";
        let found = header(text).expect("it ends").expect("a header");
        assert_eq!(found.yaml, "  inputs: [a.b]\n \n  tags: x\n");
        assert_eq!(&text[found.start..found.start + 10], "# inputs: ");
        assert!(header("print(1)\n").expect("none").is_none());
        assert_eq!(header("# /// subak\n# tags: x\nprint(1)\n").err(), Some(11..12));
    }
}
