//! `subak explain`.

use serde_json::json;
use subak_diag::codes;

use super::Context;
use crate::args::ExplainArgs;
use crate::exit::{CliError, Exit};
use crate::printer::Table;

pub(super) fn execute(context: &Context<'_>, args: &ExplainArgs) -> Result<Exit, CliError> {
    let Some(wanted) = &args.code else {
        let mut table = Table::new("codes", &["code", "title"]);
        table.rows = codes::ALL.iter().map(|code| vec![json!(code.id), json!(code.title)]).collect();
        context.printer.table(&table);
        return Ok(Exit::Ok);
    };
    let code = codes::find(wanted).ok_or_else(|| CliError::not_found("code", wanted, codes::ALL.iter().map(|code| code.id)))?;
    let page = super::docs::page(&format!("reference/errors/{}", code.id)).map(|page| page.trim_end().to_owned());
    let plain = format!("{}: {}\n\n{}\n\nWhat to do: {}", code.id, code.title, code.cause, code.fix);
    let object = json!({ "code": code.id, "title": code.title, "cause": code.cause, "fix": code.fix });
    context.printer.object("code", &object, &page.unwrap_or(plain));
    Ok(Exit::Ok)
}
