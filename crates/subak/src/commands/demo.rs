//! `subak demo`: writes the e-wallet example with generated data, runs it twice, says what to look at.

mod generate;

use std::path::Path;

use include_dir::{Dir, include_dir};
use subak_diag::{Diagnostic, codes};

use super::{Context, init, query, run};
use crate::args::{DemoArgs, Global, HowToRun, RunArgs, Selection};
use crate::exit::{CliError, Exit};
use crate::open::ProjectConnections;
use crate::printer::{Tone, count};
use crate::project;

static EXAMPLE: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../examples/ewallet");

/// What is shown at the end.
const RESULTS: &[(&str, &str)] = &[
    (
        "gold.daily_spending_per_user, the five largest days",
        "select transaction_date, user_id, full_name, total_amount, transaction_count from gold.daily_spending_per_user \
         order by total_amount desc, user_id limit 5",
    ),
    (
        "gold.transactions_per_merchant, the five largest merchants",
        "select merchant_id, merchant_name, category, transaction_count, total_amount, average_amount \
         from gold.transactions_per_merchant order by total_amount desc, merchant_id limit 5",
    ),
];

pub(super) fn execute(context: &Context<'_>, args: &DemoArgs) -> Result<Exit, CliError> {
    init::require_empty(&args.dir)?;
    init::write(&EXAMPLE, EXAMPLE.path(), &args.dir)?;
    let data = args.dir.join("data");
    let say = |text: &str| context.printer.note(&context.printer.err_tone(Tone::Strong, text));
    say(&format!(
        "1. The project and {} transactions are written to {}",
        count(u64::from(args.transactions)),
        args.dir.display()
    ));
    generate::full(&data, args.transactions).map_err(|error| failed(&data, &error))?;
    if args.no_run {
        context.printer.note(&format!("   run it with `subak -C {} run`", args.dir.display()));
        return Ok(Exit::Ok);
    }
    let global = Global {
        project: Some(args.dir.clone()),
        profile: None,
        as_of: None,
        vars: Vec::new(),
        output: context.printer.format,
        color: context.global.color,
        all: context.global.all,
        quiet: context.global.quiet,
    };
    let inner = Context { global: &global, ..*context };
    say("2. The first run reads everything: bronze, then silver, then gold");
    let first = run::execute(&inner, &everything())?;
    if first != Exit::Ok {
        return Ok(first);
    }
    let changes = generate::increment(&data, args.transactions).map_err(|error| failed(&data, &error))?;
    say(&format!("3. Meanwhile {changes}. The second run reads what is new, and rebuilds what that changes"));
    let second = run::execute(&inner, &everything())?;
    if second != Exit::Ok {
        return Ok(second);
    }
    say("4. What came of it");
    let opened = project::open(&global, context.settings, context.printer)?;
    let connections = ProjectConnections::new(&opened.root, &opened.project.config, context.settings, true);
    for (title, sql) in RESULTS {
        context.printer.note(&format!("\n{title}"));
        let (table, _) = context.block_on(query::rows(&connections, &opened.project.config.warehouse, sql, 5))?;
        context.printer.table(&table);
    }
    let dir = args.dir.display();
    context.printer.note(&format!(
        "\nTry next:\n  cd {dir}\n  subak run                                     nothing is new, so nothing is rebuilt\n  \
         subak lineage gold.fact_sales --columns       where each column comes from\n  \
         subak run show                                what was read, written, filtered and checked\n  \
         subak quarantine show bronze.payouts          rows that were refused, with file, line and reason\n  \
         subak test                                    unit tests of the queries\n  \
         subak verify                                  tables against their sources, row by row\n  \
         subak why gold.fact_sales\n  subak docs                                    guides, concepts, reference"
    ));
    Ok(Exit::Ok)
}

fn everything() -> RunArgs {
    RunArgs {
        command: None,
        selection: Selection::default(),
        full_refresh: false,
        from: None,
        until: None,
        partition: Vec::new(),
        job: None,
        set: Vec::new(),
        dry_run: false,
        how: HowToRun { parallel: 4, wait: 0 },
    }
}

fn failed(data: &Path, error: &generate::GenerateError) -> CliError {
    let problem = Diagnostic::error(codes::WRITE_OUTPUT, format!("the data below `{}` cannot be written", data.display()));
    CliError::new(problem.caused_by(error.to_string()), Exit::Unreachable)
}
