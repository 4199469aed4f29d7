//! Reading a query: its template, and what is wrong with its SQL.

use std::ops::Range;
use std::sync::Arc;

use subak_diag::{Diagnostic, codes};

use crate::declare::QueryDeclaration;
use crate::sql::SqlProblem;
use crate::template::{self, TemplateValues};

/// The SQL of a templated file, and the SQL for a table that is there where it differs.
pub(super) fn render_query(
    path: &Arc<str>,
    declaration: &QueryDeclaration,
    values: &TemplateValues,
    problems: &mut Vec<Diagnostic>,
) -> Option<(String, Option<String>)> {
    let render = |is_incremental| template::render(&declaration.body, values, is_incremental);
    let both = render(false).and_then(|full| {
        let incremental = if full.asks_incremental { Some(render(true)?.text) } else { None };
        Ok((full.text, incremental))
    });
    let error = match both {
        Ok(rendered) => return Some(rendered),
        Err(error) => error,
    };
    let start = declaration.body_start;
    let whole = start..(start + declaration.body.len()).max(start);
    let span = template::place(&error, &declaration.body, values).map_or(whole, |range| range.start + start..range.end + start);
    let cause = error.detail().map_or_else(|| error.to_string(), str::to_owned);
    let problem = Diagnostic::error(codes::TEMPLATE, "the template cannot be rendered").at(path, span, "").caused_by(cause);
    problems.push(problem.help(
        "templates know `ref('asset.key')`, `var('name')`, `as_of`, `run.id`, `run.started_at`, `target.name`, `target.type`, \
         `this`, `is_incremental()`, `partition.key`, `partition.start`, `partition.end` and the macros below `macros/`",
    ));
    None
}

pub(super) fn sql_problem(
    problem: SqlProblem,
    declaration: &QueryDeclaration,
    dialect: &str,
    place: impl Fn(usize) -> Range<usize>,
) -> (Diagnostic, bool) {
    let none: Arc<str> = "".into();
    match problem {
        SqlProblem::Unparsed(why, at) if declaration.depends_on.is_some() => {
            let problem =
                Diagnostic::warning(codes::SQL_UNPARSED_NOTE, "our parser does not follow this SQL; `depends_on` is trusted");
            (problem.at(&none, place(at), "").caused_by(why), false)
        }
        SqlProblem::Unparsed(why, at) => {
            let problem = Diagnostic::error(
                codes::SQL_UNPARSED,
                format!("our {dialect} parser does not follow this SQL, so what it reads is not known"),
            );
            let problem = problem.at(&none, place(at), "").caused_by(why);
            let help = "if the SQL is right, list what it reads in the header: `depends_on: [silver.users]`, or `depends_on: []`";
            (problem.help(help), true)
        }
        SqlProblem::Empty => (
            Diagnostic::error(codes::SQL_EMPTY, "the file holds no SQL")
                .at(&none, place(0), "")
                .help("write a query behind the header"),
            true,
        ),
        SqlProblem::Several(second) => {
            let problem = Diagnostic::error(codes::SQL_SEVERAL, "the file holds more than one statement").at(
                &none,
                place(second),
                "the second begins here",
            );
            (problem.help("an asset or check is one query; split the file"), true)
        }
        SqlProblem::NotQuery => {
            let problem = Diagnostic::error(codes::SQL_NOT_QUERY, "the statement is not a query").at(&none, place(0), "");
            (problem.help("write a `select`; how its result is stored stands in the header: `stored_as: table`"), true)
        }
    }
}
