//! What assistants can look at: over HTTP by the server, and over standard input and output by a command of their own.

use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use subak_engine::{Clock, SystemClock};
use subak_server::mcp::{Asked, Tool, Tools};
use subak_server::{Call, Caller};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{Api, Counts, Desk, Hooks, Serving, endpoints};
use crate::commands::Context;
use crate::exit::{CliError, Exit};
use crate::project;
use crate::version::{Fingerprint, Version};

/// The longest message that is read.
const MESSAGE_LENGTH_MAX: usize = 1024 * 1024;

const fn get(name: &'static str, path: &'static str, description: &'static str) -> Tool {
    Tool { name, method: Asked::Get, path, description }
}

const fn post(name: &'static str, path: &'static str, description: &'static str) -> Tool {
    Tool { name, method: Asked::Post, path, description }
}

/// What assistants can ask for. None of it changes anything.
pub(in crate::commands) const TOOLS: &[Tool] = &[
    get(
        "overview",
        "/api/v1/home",
        "Whether anything is wrong, one sentence; what needs attention and why; what runs now and next.",
    ),
    get(
        "list_assets",
        "/api/v1/assets",
        "Assets and how they stand: fresh, stale, late, missing or failed, with the reason. Takes a selection.",
    ),
    get(
        "get_asset",
        "/api/v1/assets/{asset}",
        "One asset: why it stands as it does, how it is made, columns and what each comes from, checks, upstream and downstream, the last failure.",
    ),
    get("get_partitions", "/api/v1/assets/{asset}/partitions", "The partitions of an asset, as ranges that stand alike."),
    get("get_lineage", "/api/v1/lineage", "The graph of assets, or what is around one: `focus` and `depth`."),
    get("list_checks", "/api/v1/checks", "Checks and what they found lately, what does not pass first."),
    get("list_refused_rows", "/api/v1/quarantine/{asset}", "Rows of an asset that were refused: where they came from and why."),
    get("list_runs", "/api/v1/runs", "Runs, the newest first; `status=failed` for those that failed."),
    get("get_run", "/api/v1/runs/{run}", "A run with its steps: why one failed, what is now true of the data, what to do."),
    get("get_run_events", "/api/v1/runs/{run}/events", "What happened to a run, in order."),
    get("read_log", "/api/v1/runs/{run}/log", "What the program of a step of a run wrote, from a byte on."),
    get(
        "search_log",
        "/api/v1/runs/{run}/log/lines",
        "Lines that the program of a step of a run wrote and that say something: `q`, or `level=error`.",
    ),
    get("list_jobs", "/api/v1/jobs", "Jobs: what they do, when, and what they take."),
    get(
        "list_automation",
        "/api/v1/automation",
        "Schedules, sensors and automated assets: when they come next, and what the last look found.",
    ),
    get("get_queue", "/api/v1/queue", "Runs that wait and for what, and those that go on."),
    get("list_problems", "/api/v1/problems", "What is wrong with the files of the project: code, file, line, and what to do."),
    get("list_connections", "/api/v1/connections", "The connections to outside systems, without their secrets."),
    post("plan", "/api/v1/plans", "What a run of a selection or a job would do and why. Begins nothing: a person starts it."),
    post(
        "query",
        "/api/v1/query",
        "A query that reads, on the warehouse or another connection; the system itself refuses everything else.",
    ),
    get("list_docs", "/api/v1/docs", "The pages of the documentation of Subak."),
    get("read_doc", "/api/v1/docs/{topic}", "A page of the documentation; `~` stands for `/` in its name."),
];

/// The project as an assistant sees it, read again when its files change.
struct Local<'a> {
    context: &'a Context<'a>,
    seen: Fingerprint,
    serving: watch::Sender<Option<Arc<Serving>>>,
}

impl Local<'_> {
    fn refresh(&mut self, root: &std::path::Path) -> Result<(), CliError> {
        if self.serving.borrow().is_some() && !self.seen.is_old(root) {
            return Ok(());
        }
        let version;
        (version, self.seen) = Version::read(root);
        let before = self.serving.borrow().clone();
        let (opened, problems) =
            match version.open(self.context.global, self.context.settings, self.context.printer.quiet(), None) {
                Ok(opened) => (Arc::new(opened), Vec::new()),
                Err(error) => {
                    let known = match before {
                        Some(before) => Arc::clone(&before.opened),
                        None => Arc::new(self.context.open_known()?),
                    };
                    (known, super::super::problems_of(&error))
                }
            };
        let jobs = opened.project.jobs().iter().map(|job| (job.name.clone(), job.clone())).collect();
        self.serving.send_replace(Some(Arc::new(Serving { opened, jobs: Arc::new(jobs), problems })));
        Ok(())
    }
}

/// Answers an assistant that has started this process: a message on each line of standard input, an answer on each line of standard output.
pub(in crate::commands) fn serve(context: &Context<'_>) -> Result<Exit, CliError> {
    let root = project::find_root(context.global)?;
    let (serving, hooks) = (watch::Sender::default(), watch::Sender::<Hooks>::default());
    let mut local = Local { context, seen: Fingerprint::default(), serving };
    local.refresh(&root)?;
    let opened = local.serving.borrow().as_ref().map(|serving| Arc::clone(&serving.opened));
    let Some(opened) = opened else { return Ok(Exit::Invalid) };
    let (turn, shared) = (tokio::sync::Mutex::default(), Arc::new(Mutex::default()));
    let desk = Desk { settings: Arc::clone(context.settings), shared, turn };
    let api = Api::new(opened.store()?, hooks.subscribe(), Arc::<Counts>::default(), local.serving.subscribe(), desk);
    let routes: Vec<_> = endpoints().into_iter().map(Arc::new).collect();
    let tools = Tools::new(TOOLS, &routes);
    context.block_on(async {
        let runtime = Handle::current();
        // Routes wait for what is done elsewhere, so they have a thread of their own.
        tokio::task::block_in_place(|| {
            let mut lines = std::io::stdin().lock();
            loop {
                let mut line = Vec::new();
                let read = std::io::Read::take(&mut lines, MESSAGE_LENGTH_MAX as u64).read_until(b'\n', &mut line);
                match read {
                    Ok(0) => return Ok(Exit::Ok),
                    Ok(_) => {}
                    Err(error) => {
                        let problem = subak_diag::Diagnostic::error(subak_diag::codes::RESOURCE, "standard input cannot be read");
                        return Err(CliError::new(problem.caused_by(error.to_string()), Exit::Unreachable));
                    }
                }
                if line.trim_ascii().is_empty() {
                    continue;
                }
                if line.len() >= MESSAGE_LENGTH_MAX && !line.ends_with(b"\n") {
                    // The rest of it is none either.
                    drop(lines.skip_until(b'\n'));
                    line.truncate(0);
                }
                local.refresh(&root)?;
                let call = Call::local(Caller::local("assistant"), SystemClock.now(), runtime.clone());
                let answer = match serde_json::from_slice::<Value>(&line) {
                    Ok(message) => tools.answer(&api, &call, &message),
                    Err(error) => {
                        let message = format!("the line is no JSON: {error}");
                        Some(json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32700, "message": message } }))
                    }
                };
                let mut out = std::io::stdout().lock();
                // Whoever asked may be gone; the next line tells.
                if let Some(answer) = answer
                    && writeln!(out, "{answer}").and_then(|()| out.flush()).is_err()
                {
                    return Ok(Exit::Ok);
                }
            }
        })
    })
}
