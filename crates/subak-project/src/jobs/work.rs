//! What tasks and sensors do, and the texts in which they say it.

use std::collections::{BTreeMap, BTreeSet};

use subak_diag::{Diagnostic, codes, nearest};
use subak_domain::ConnectionName;
use subak_domain::job::{Command, HttpCall, Param, Program, ProgramLimits, TaskWork};
use subak_plan::expression::{ExpressionError, names_in_expression, names_in_template};

use crate::config::{connection_ref, receiver_ref};
use crate::declare::Scope;
use crate::decode::{self, Context, Fields, text};
use crate::keys;
use crate::yaml::{Node, Value};

/// Reads work; its texts may read some names and no others.
pub(crate) struct Texts<'a> {
    pub(crate) scope: &'a Scope<'a>,
    pub(crate) names: Names<'a>,
}

/// The names that texts may read.
pub(crate) enum Names<'a> {
    /// Those of a task: the tasks of its job, the parameters, the run, the item of its group.
    Task {
        tasks: &'a BTreeSet<String>,
        params: &'a BTreeMap<String, Param>,
        /// Whether the job has a schedule.
        has_interval: bool,
    },
    /// Those of a label of runs: the parameters of the job.
    Label { params: &'a BTreeMap<String, Param> },
    /// Those of a sensor that looks.
    Looking,
    /// Those of a sensor that starts a job.
    Starting,
    /// The parts of an answer.
    Answer,
    /// None: what a program that makes an asset may know stands in its environment.
    Asset,
}

impl Names<'_> {
    /// Who reads, and what it knows.
    fn told(&self) -> (&'static str, &'static str) {
        match self {
            Self::Task { .. } => (
                "texts of tasks",
                "they know `tasks.NAME.value`, `tasks.NAME.status`, `params.NAME`, `item` and `run.id`, `run.as_of`, `run.day`, `run.interval.start`, `run.interval.end`",
            ),
            Self::Label { .. } => ("tags of a job", "they know `params.NAME`"),
            Self::Looking => ("texts under `watch`", "they know `cursor` and `sensor`"),
            Self::Starting => ("texts of a start", "they know `item`, `items` and `sensor`"),
            Self::Answer => ("expressions over an answer", "they know `status` and `body`"),
            Self::Asset => ("texts of a script", "what there is to know stands in variables such as `SUBAK_AS_OF`"),
        }
    }

    /// The names that may stand behind a first one, with what they are; `None` where the first is not known, an empty word where anything may.
    fn behind<'n>(&'n self, first: &str) -> Option<(Vec<&'n str>, &'static str)> {
        match (self, first) {
            (Self::Task { tasks, .. }, "tasks") => Some((tasks.iter().map(String::as_str).collect(), "task")),
            (Self::Task { params, .. } | Self::Label { params }, "params") => {
                Some((params.keys().map(String::as_str).collect(), "parameter"))
            }
            (Self::Task { has_interval: true, .. }, "run") => Some((vec!["id", "as_of", "day", "interval"], "value of `run`")),
            (Self::Task { .. }, "run") => {
                Some((vec!["id", "as_of", "day"], "value of `run`, whose `interval` a job with a `schedule` knows,"))
            }
            (Self::Task { .. } | Self::Starting, "item")
            | (Self::Starting, "items" | "sensor")
            | (Self::Looking, "cursor" | "sensor")
            | (Self::Answer, "status" | "body") => Some((Vec::new(), "")),
            _ => None,
        }
    }
}

/// What a program may use.
fn limits(fields: &Fields<'_>, context: &mut Context<'_>) -> ProgramLimits {
    let memory_bytes_max = decode::bytes(fields, "memory_max", context);
    let cpu_max = fields.duration("cpu_max", context);
    ProgramLimits { memory_bytes_max, cpu_ms_max: cpu_max.map(|most| u64::try_from(most.as_millis()).unwrap_or(u64::MAX)) }
}

/// Variables of the environment of a program.
pub(crate) fn environment(fields: &Fields<'_>, context: &mut Context<'_>) -> Option<BTreeMap<String, String>> {
    let mut env = BTreeMap::new();
    for (name, node) in fields.named("env", context) {
        let value = text(node, &format!("variable `{}`", name.text), context)?;
        let is_plain =
            |(at, letter): (usize, char)| letter == '_' || letter.is_ascii_alphabetic() || (at > 0 && letter.is_ascii_digit());
        if name.text.is_empty() || !name.text.char_indices().all(is_plain) {
            let message = format!(
                "`{}` is no name of a variable: programs are started by a shell, which takes letters, digits and `_`",
                name.text
            );
            context.report(Diagnostic::error(codes::INVALID_VALUE, message), &name.span, "");
            return None;
        }
        if let Err(error) = crate::reference::Template::parse(value) {
            context.report(Diagnostic::error(codes::INVALID_REFERENCE, error.to_string()), &node.span, "");
            return None;
        }
        env.insert(name.text.clone(), value.to_owned());
    }
    Some(env)
}

impl Texts<'_> {
    pub(crate) fn program(&self, node: &Node, context: &mut Context<'_>) -> Option<Program> {
        self.check_templates(node, context);
        let command = |node: &Node, context: &mut Context<'_>| match &node.value {
            Value::List(items) => {
                let words = items.iter().map(|item| Some(text(item, "a word of the command", context)?.to_owned()));
                words.collect::<Option<Vec<_>>>().map(Command::Direct)
            }
            _ => Some(Command::Shell(text(node, "the command", context)?.to_owned())),
        };
        let Value::Map(_) = &node.value else {
            return Some(Program { command: command(node, context)?, ..Program::default() });
        };
        let fields = Fields::of(node, keys::PROGRAM, &[], "`run`", context)?;
        let command = match (fields.get("command"), fields.get("python")) {
            (Some(node), None) => command(node, context)?,
            (None, Some(_)) => {
                Command::Python(fields.texts("python", context).into_iter().map(|(text, _)| text.to_owned()).collect())
            }
            _ => {
                let problem = Diagnostic::error(codes::MISSING_KEY, "`run` needs either `command` or `python`");
                context.report(
                    problem.help("write `run: \"line for the shell\"`, `run: [program, argument]`, or `python: file.py`"),
                    &node.span,
                    "",
                );
                return None;
            }
        };
        let env = environment(&fields, context)?;
        let dir = fields.text("dir", context).map(str::to_owned);
        let limits = limits(&fields, context);
        Some(Program { command, env, dir, limits })
    }

    /// A Python file and its arguments.
    pub(crate) fn python(&self, fields: &Fields<'_>, context: &mut Context<'_>) -> Program {
        let words = fields.texts("python", context).into_iter().map(|(text, _)| text.to_owned()).collect();
        if let Some(node) = fields.get("python") {
            self.check_templates(node, context);
        }
        Program { command: Command::Python(words), ..Program::default() }
    }

    /// Work that hands on a value, by its kind: `run`, `python`, `query`, `http`; `None` for another kind, and where it cannot be read.
    pub(crate) fn asking(&self, kind: &str, fields: &Fields<'_>, context: &mut Context<'_>) -> Option<TaskWork> {
        let node = fields.get(kind)?;
        Some(match kind {
            "run" => TaskWork::Run(self.program(node, context)?),
            "python" => TaskWork::Run(self.python(fields, context)),
            "query" => {
                let (on, sql) = self.statement(node, "query", context)?;
                TaskWork::Query { on, sql }
            }
            "http" => TaskWork::Http(self.http_call(node, context)?),
            _ => return None,
        })
    }

    /// A receiver and what it is told.
    pub(super) fn message(&self, node: &Node, context: &mut Context<'_>) -> Option<(String, String)> {
        self.check_templates(node, context);
        let fields = Fields::of(node, keys::MESSAGE, &[], "`notify`", context)?;
        let to = fields.get("to")?;
        let receiver = receiver_ref(text(to, "`to`", context)?, to, &self.scope.config.receivers, context)?;
        Some((receiver, fields.text("message", context)?.to_owned()))
    }

    pub(super) fn http_call(&self, node: &Node, context: &mut Context<'_>) -> Option<HttpCall> {
        self.http_call_of(node, keys::HTTP_CALL, context)
    }

    /// A request, and the expression that takes something out of its answer.
    pub(super) fn http_answer(&self, node: &Node, context: &mut Context<'_>) -> Option<(HttpCall, Option<String>)> {
        let call = self.http_call_of(node, keys::WATCH_HTTP, context)?;
        let Value::Map(entries) = &node.value else { return Some((call, None)) };
        let Some((_, node)) = entries.iter().find(|(name, _)| name.text == "value") else { return Some((call, None)) };
        Texts { scope: self.scope, names: Names::Answer }.check_expression(node, context);
        Some((call, Some(bare(text(node, "`value`", context)?).to_owned())))
    }

    fn http_call_of(&self, node: &Node, table: &[keys::Key], context: &mut Context<'_>) -> Option<HttpCall> {
        self.check_templates(node, context);
        let reference = |node: &Node, text: &str, context: &mut Context<'_>| {
            let error = crate::reference::Template::parse(text).err();
            if let Some(error) = &error {
                context.report(Diagnostic::error(codes::INVALID_REFERENCE, error.to_string()), &node.span, "");
            }
            error.is_none()
        };
        let Value::Map(_) = &node.value else {
            let url = text(node, "`http`", context)?;
            let call = HttpCall { method: "GET".to_owned(), url: url.to_owned(), ..HttpCall::default() };
            return reference(node, url, context).then_some(call);
        };
        let fields = Fields::of(node, table, &[], "`http`", context)?;
        let url = fields.text("url", context)?.to_owned();
        let mut is_sound = reference(fields.get("url")?, &url, context);
        let mut headers = BTreeMap::new();
        for (name, node) in fields.named("headers", context) {
            let value = text(node, &format!("header `{}`", name.text), context)?;
            is_sound &= reference(node, value, context);
            headers.insert(name.text.clone(), value.to_owned());
        }
        let body = match fields.get("body") {
            None => None,
            Some(node) => {
                let written = match &node.value {
                    Value::Scalar { text, .. } => text.clone(),
                    _ => crate::json_value(node).to_string(),
                };
                is_sound &= reference(node, &written, context);
                Some(written)
            }
        };
        let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"].map(|name| (name, name));
        let default = if body.is_some() { "POST" } else { "GET" };
        let method = fields.word("method", &methods, context).unwrap_or(default).to_owned();
        let mut expect = Vec::new();
        for (text, node) in fields.texts("expect", context) {
            match text.parse::<u16>() {
                Ok(status) if (100..600).contains(&status) => expect.push(status),
                _ => {
                    context.invalid(node, format!("`{text}` is no status code"));
                    is_sound = false;
                }
            }
        }
        is_sound.then_some(HttpCall { method, url, headers, body, expect })
    }

    /// A statement or a question, and where it runs.
    pub(super) fn statement(&self, node: &Node, kind: &str, context: &mut Context<'_>) -> Option<(ConnectionName, String)> {
        self.statement_of(node, keys::STATEMENT, kind, context)
    }

    /// The same of a mapping with these keys.
    pub(super) fn statement_of(
        &self,
        node: &Node,
        table: &[keys::Key],
        kind: &str,
        context: &mut Context<'_>,
    ) -> Option<(ConnectionName, String)> {
        self.check_templates(node, context);
        let (on, on_node, sql, sql_node) = match &node.value {
            Value::Map(_) => {
                let fields = Fields::of(node, table, &[], &format!("`{kind}`"), context)?;
                let on = match fields.get("on") {
                    Some(node) => connection_ref(text(node, "`on`", context)?, node, &self.scope.config.connections, context)?,
                    None => self.scope.config.warehouse.clone(),
                };
                (on, fields.get("on").unwrap_or(node), fields.text("sql", context)?, fields.get("sql")?)
            }
            _ => (self.scope.config.warehouse.clone(), node, text(node, &format!("`{kind}`"), context)?, node),
        };
        if sql.trim().is_empty() {
            context.invalid(sql_node, "the statement is empty".to_owned());
            return None;
        }
        let info = self.scope.connector(&on);
        let lacks = info.filter(|info| if kind == "sql" { !info.runs_statements } else { info.dialect.is_none() });
        if let Some(info) = lacks {
            let what = if kind == "sql" { "runs no statements" } else { "answers no queries" };
            let message = format!("connection `{on}` (type `{}`) {what}", info.kind);
            let problem = Diagnostic::error(codes::LACKS_ABILITY, message);
            context.report(problem.help("name a connection that does with `on:`, for example the warehouse"), &on_node.span, "");
            return None;
        }
        Some((on, sql.trim().trim_end_matches(';').to_owned()))
    }

    /// Reports an expression that cannot be read, or reads what is not there.
    pub(super) fn check_expression(&self, node: &Node, context: &mut Context<'_>) {
        let Value::Scalar { text, .. } = &node.value else { return };
        match names_in_expression(bare(text)) {
            Ok(names) => self.check_names(&names, node, context),
            Err(error) => unreadable(&error, node, context),
        }
    }

    /// Reports templates that cannot be read, or read what is not there, in all texts of a node.
    pub(super) fn check_templates(&self, node: &Node, context: &mut Context<'_>) {
        match &node.value {
            Value::Scalar { text, .. } if text.contains("{{") || text.contains("{%") => match names_in_template(text) {
                Ok(names) => self.check_names(&names, node, context),
                Err(error) => unreadable(&error, node, context),
            },
            Value::List(items) => items.iter().for_each(|item| self.check_templates(item, context)),
            Value::Map(entries) => entries.iter().for_each(|(_, node)| self.check_templates(node, context)),
            Value::Scalar { .. } | Value::Null => {}
        }
    }

    fn check_names(&self, names: &BTreeSet<String>, node: &Node, context: &mut Context<'_>) {
        for name in names {
            let mut parts = name.split('.');
            let (first, second) = (parts.next().unwrap_or_default(), parts.next());
            let Some((known, what)) = self.names.behind(first) else {
                let (who, help) = self.names.told();
                let problem = Diagnostic::error(codes::TEMPLATE, format!("{who} do not know `{first}`"));
                context.report(problem.help(help), &node.span, "");
                continue;
            };
            let Some(second) = second.filter(|second| !what.is_empty() && !known.contains(second)) else { continue };
            let problem = Diagnostic::error(codes::TEMPLATE, format!("there is no {what} `{second}` here"));
            let problem = match nearest(second, known.iter().copied()) {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None => problem,
            };
            context.report(problem, &node.span, "");
        }
    }
}

/// An expression without the braces that may stand around it.
pub(super) fn bare(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix("{{").and_then(|text| text.strip_suffix("}}")).unwrap_or(text).trim()
}

fn unreadable(error: &ExpressionError, node: &Node, context: &mut Context<'_>) {
    let cause = error.to_string();
    let problem = Diagnostic::error(codes::TEMPLATE, "this expression cannot be read");
    context.report(problem.caused_by(cause), &node.span, "");
}
