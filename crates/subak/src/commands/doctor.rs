//! `subak doctor`.

use std::path::Path;

use serde_json::json;
use subak_domain::Timestamp;
use subak_engine::{Clock, Connections, SystemClock};

use super::Context;
use crate::exit::{CliError, Exit};
use crate::open::ProjectConnections;
use crate::printer::{Table, bytes};
use crate::project;

/// Less free disk than this is worth a warning.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// One finding.
struct Finding {
    what: &'static str,
    status: &'static str,
    detail: String,
}

fn finding(what: &'static str, is_ok: bool, detail: String) -> Finding {
    Finding { what, status: if is_ok { "ok" } else { "problem" }, detail }
}

pub(super) fn execute(context: &Context<'_>) -> Result<Exit, CliError> {
    let kinds: Vec<&str> = subak_connectors::CONNECTORS.iter().map(|connector| connector.kind()).collect();
    let mut findings = vec![
        finding("version", true, format!("subak {}, connectors {}", env!("CARGO_PKG_VERSION"), kinds.join(", "))),
        clock(SystemClock.now()),
    ];
    match project::find_root(context.global) {
        Err(_) => findings.push(finding("project", true, "none here; `subak init` makes one".into())),
        Ok(root) => {
            findings.push(disk(&root));
            findings.push(permissions(&root));
            let loaded = project::load(&root, context.global, context.settings);
            let count = loaded.problems.iter().filter(|problem| problem.is_error()).count();
            findings.push(finding("project", count == 0, format!("{}: {count} errors", root.display())));
            if let Some(project) = loaded.project {
                let opened = project::opened(root, context.global, project, loaded.sources);
                findings.push(match opened.store() {
                    Ok(store) => finding("state", true, store.path().display().to_string()),
                    Err(error) => {
                        finding("state", false, error.problems.first().map(|problem| problem.message.clone()).unwrap_or_default())
                    }
                });
                context.block_on(async {
                    findings.extend(connections(context, &opened).await);
                    Ok(())
                })?;
            }
        }
    }
    let mut table = Table::new("findings", &["what", "status", "detail"]);
    table.rows = findings.iter().map(|finding| vec![json!(finding.what), json!(finding.status), json!(finding.detail)]).collect();
    context.printer.table(&table);
    Ok(if findings.iter().all(|finding| finding.status == "ok") { Exit::Ok } else { Exit::Failed })
}

/// A clock that stands before this version was made is wrong.
fn clock(now: Timestamp) -> Finding {
    let earliest: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap_or(Timestamp::UNIX_EPOCH);
    let detail = format!("{} UTC", now.strftime("%Y-%m-%d %H:%M:%S"));
    if now > earliest {
        finding("clock", true, detail)
    } else {
        finding("clock", false, format!("{detail} is before this version was made; set the clock"))
    }
}

fn disk(root: &Path) -> Finding {
    match nix::sys::statvfs::statvfs(root) {
        Ok(found) => {
            let free = found.blocks_available().saturating_mul(found.fragment_size());
            let detail = format!("{} free", bytes(free));
            if free >= FREE_BYTES_MIN {
                finding("disk", true, detail)
            } else {
                finding("disk", false, format!("{detail}; make room before a run fills it"))
            }
        }
        Err(error) => finding("disk", false, error.to_string()),
    }
}

fn permissions(root: &Path) -> Finding {
    let folder = root.join(project::STATE_FOLDER);
    let probe = folder.join("doctor");
    let result =
        std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&probe, "")).and_then(|()| std::fs::remove_file(&probe));
    match result {
        Ok(()) => finding("permissions", true, format!("{} can be written", folder.display())),
        Err(error) => finding("permissions", false, format!("{} cannot be written: {error}", folder.display())),
    }
}

async fn connections(context: &Context<'_>, opened: &project::Opened) -> Vec<Finding> {
    let all = ProjectConnections::new(&opened.root, &opened.project.config, context.settings, true);
    let mut findings = Vec::new();
    for name in opened.project.config.connections.keys() {
        let result = match all.open(name).await {
            Ok(connection) => match connection.source() {
                Some(source) => source.probe().await,
                None => Ok(()),
            },
            Err(error) => Err(error),
        };
        findings.push(match result {
            Ok(()) => finding("connection", true, format!("`{name}` answers")),
            Err(error) if error.kind == subak_connect::ConnectErrorKind::NotFound => {
                finding("connection", true, all.redactor().redact(&error.to_string()))
            }
            Err(error) => {
                let text = format!("{error}: {}", error.causes().join(": "));
                finding("connection", false, all.redactor().redact(&text))
            }
        });
    }
    findings
}
