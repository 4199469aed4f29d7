//! One module per command. A command takes its arguments and a context, prints results, and returns an exit code.

mod automation;
mod backfill;
mod bench;
mod catalog;
mod check;
mod db;
mod demo;
mod discover;
mod docs;
mod doctor;
mod explain;
mod import;
mod init;
mod job;
mod lineage;
mod list;
mod notification;
mod partition;
mod plan;
mod pool;
mod quarantine;
mod query;
mod question;
mod run;
mod runs;
mod server;
mod show;
mod test;
mod user;
mod validate;
mod verify;
mod why;

pub(crate) use self::runs::state as run_state;

use std::sync::Arc;
use std::time::Duration;

use clap::CommandFactory;
use subak_domain::Snapshot;
use subak_plan::{Selected, SelectionError};

use crate::args::{Cli, Command, Global, RunCommand, Selection, ServerCommand};
use crate::exit::{CliError, Exit};
use crate::printer::Printer;
use crate::project::{self, Opened};
use crate::settings::Settings;
use crate::version::Version;

/// How long a command that is done waits for work in the background.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// What every command has at hand.
pub(crate) struct Context<'a> {
    pub(crate) global: &'a Global,
    pub(crate) settings: &'a Arc<Settings>,
    pub(crate) printer: Printer,
}

impl Context<'_> {
    fn open(&self) -> Result<Opened, CliError> {
        project::open(self.global, self.settings, self.printer)
    }

    /// The project as it is now, without a word about what it warns of.
    fn open_quietly(&self) -> Result<Opened, CliError> {
        project::open(self.global, self.settings, self.printer.quiet())
    }

    /// The project for a command that asks about what happened, or says what becomes of it. One that has errors just now is taken as a server
    /// could last load it.
    fn open_known(&self) -> Result<Opened, CliError> {
        let error = match self.open() {
            Err(error) if error.exit == Exit::Invalid => error,
            opened => return opened,
        };
        let Ok(root) = project::find_root(self.global) else { return Err(error) };
        let kept =
            Version::kept(&root, self.global).map(|kept| kept.open(self.global, self.settings, self.printer.quiet(), None));
        let Some(Ok(opened)) = kept else { return Err(error) };
        self.printer.note("the project has errors (`subak validate`): this goes by the version that could last be loaded");
        Ok(opened)
    }

    /// The project as it was at another time.
    fn open_as_of(&self, as_of: &str) -> Result<Opened, CliError> {
        let global = Global { as_of: Some(as_of.to_owned()), ..self.global.clone() };
        project::open(&global, self.settings, self.printer.quiet())
    }

    /// What is known about the project's assets; nothing when it never ran.
    fn snapshot(&self, opened: &Opened) -> Result<Snapshot, CliError> {
        Ok(opened.store_if_there()?.map(|store| store.snapshot()).transpose()?.unwrap_or_default())
    }

    /// Runs async work on a runtime of its own; most commands need none.
    fn block_on<T>(&self, work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| {
            let problem = subak_diag::Diagnostic::error(subak_diag::codes::RESOURCE, "no threads can be started");
            CliError::new(problem.caused_by(error.to_string()), Exit::Unreachable)
        })?;
        let result = runtime.block_on(work);
        // What waits for a server that never answers must not keep the process. Stages that nobody could drop are swept by the next run.
        runtime.shutdown_timeout(SHUTDOWN_WAIT);
        result
    }
}

/// Evaluates a selection; an error names the nearest key.
pub(crate) fn select(opened: &Opened, snapshot: &Snapshot, selection: &Selection) -> Result<Selected, CliError> {
    subak_plan::select(opened.graph(), snapshot, &selection.select, &selection.exclude).map_err(|error| {
        let code = match error {
            SelectionError::Empty { .. } => subak_diag::codes::SELECTION_EMPTY,
            SelectionError::Syntax { .. } | SelectionError::TooLong { .. } => subak_diag::codes::SELECTION_SYNTAX,
        };
        let mut problem = subak_diag::Diagnostic::error(code, error.to_string());
        if let SelectionError::Empty { term } = &error {
            let keys = opened.graph().assets().iter().map(|asset| asset.key.as_str());
            problem = match subak_diag::nearest(term, keys) {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None => problem.help("`subak list` shows what exists"),
            };
        } else {
            problem = problem.help("for example `+gold.sales`, `tag:daily`, `silver.*`; see `subak docs selection`");
        }
        CliError::new(problem, Exit::Invalid)
    })
}

/// Carries out what was typed.
pub(crate) fn execute(cli: &Cli, settings: &Arc<Settings>, printer: Printer) -> Result<Exit, CliError> {
    let context = Context { global: &cli.global, settings, printer };
    match &cli.command {
        Command::Demo(args) => demo::execute(&context, args),
        Command::Mcp => server::assistant::serve(&context),
        Command::Import(command) => import::execute(&context, command),
        Command::Init(args) => init::execute(&context, args),
        Command::Discover(args) => discover::execute(&context, args),
        Command::Validate => validate::execute(&context),
        Command::List(selection) => list::execute(&context, selection),
        Command::Show(args) => show::execute(&context, args),
        Command::Catalog(selection) => catalog::execute(&context, selection),
        Command::Lineage(args) => lineage::execute(&context, args),
        Command::Plan(args) => plan::execute(&context, args),
        Command::Run(args) => match &args.command {
            None => run::execute(&context, args),
            Some(RunCommand::List(args)) => runs::list(&context, args),
            Some(RunCommand::Show(args)) => runs::show(&context, args),
            Some(RunCommand::Cancel(args)) => run::cancel(&context, args),
            Some(RunCommand::Logs(args)) => runs::logs(&context, args),
            Some(RunCommand::Resume(args)) => run::resume(&context, args),
            Some(RunCommand::Questions) => question::list(&context),
            Some(RunCommand::Approve(args)) => question::answer(&context, args, true),
            Some(RunCommand::Reject(args)) => question::answer(&context, args, false),
        },
        Command::Partition(command) => partition::execute(&context, command),
        Command::Backfill(command) => backfill::execute(&context, command),
        Command::Job(command) => job::execute(&context, command),
        Command::Automation(command) => automation::execute(&context, command),
        Command::Pool(command) => pool::execute(&context, command),
        Command::User(command) => user::users(&context, command),
        Command::Token(command) => user::tokens(&context, command),
        Command::Audit(command) => user::audit(&context, command),
        Command::Db(command) => db::execute(&context, command),
        Command::Notification(command) => notification::execute(&context, command),
        Command::Server(ServerCommand::Start(args)) => server::start(&context, args),
        Command::Why(args) => why::execute(&context, args),
        Command::Check(args) => check::execute(&context, args),
        Command::Test(args) => test::execute(&context, args),
        Command::Verify(args) => verify::execute(&context, args),
        Command::Quarantine(command) => quarantine::execute(&context, command),
        Command::Query(args) => query::execute(&context, args),
        Command::Bench(command) => bench::execute(&context, command),
        Command::Explain(args) => explain::execute(&context, args),
        Command::Docs(args) => docs::execute(&context, args),
        Command::Doctor => doctor::execute(&context),
        Command::Completions(args) => {
            let mut command = Cli::command();
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut command, "subak", &mut script);
            printer.out(String::from_utf8_lossy(&script).trim_end());
            Ok(Exit::Ok)
        }
    }
}
