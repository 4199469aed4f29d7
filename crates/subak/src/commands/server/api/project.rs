//! The project itself: what it is called, what is wrong with it, its connections, and the documentation.

use serde::Serialize;
use subak_diag::{Diagnostic, Severity, Sources};
use subak_server::{Call, Endpoint, Nothing, Page, Problem};
use utoipa::ToSchema;

use super::assets::dialect_of;
use super::{Api, VIEW, text};
use crate::commands::docs;

/// The project.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProjectView {
    /// Its name.
    name: String,
    /// The profile under which the server runs; absent for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    /// The connection of SQL assets.
    warehouse: String,
    /// Its time zone.
    timezone: String,
    /// The version of the server.
    version: String,
    /// The clock of the server.
    now: String,
    /// How many assets it has.
    asset_count: usize,
    /// How many jobs.
    job_count: usize,
    /// How many problems its files have just now. Where there are errors, the server goes by the files as they were before.
    problem_count: usize,
    /// Whether the server goes by files of before.
    is_broken: bool,
}

/// Something that is wrong with the files.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::commands) struct ProblemView {
    /// `error` or `warning`.
    pub(super) severity: String,
    /// Its code.
    code: String,
    /// What is wrong, one sentence.
    message: String,
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    /// What to do.
    help: Vec<String>,
    /// All of it with the place in the file, as the command line shows it.
    text: String,
}

impl ProblemView {
    pub(in crate::commands) fn of(problem: &Diagnostic, sources: &Sources) -> Self {
        let label = problem.labels.first();
        let place = label.and_then(|label| sources.line_column(&label.path, label.span.start));
        Self {
            severity: if problem.severity == Severity::Error { "error" } else { "warning" }.to_owned(),
            code: problem.code.id.to_owned(),
            message: problem.message.clone(),
            path: label.map(|label| label.path.to_string()),
            line: place.map(|(line, _)| line),
            help: problem.help.clone(),
            text: subak_diag::to_text(problem, sources, false),
        }
    }
}

/// A connection to an outside system. What it is configured with is not told: there may be secrets among it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConnectionView {
    /// Its name.
    name: String,
    /// Its type, such as `postgres`.
    kind: String,
    /// Whether SQL assets use it where they name no other.
    is_warehouse: bool,
    /// How many steps of a run use it at a time; absent where nothing bounds them.
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel: Option<usize>,
    /// Whether queries can be asked there.
    runs_sql: bool,
    /// How many assets use it.
    asset_count: usize,
}

/// A page of the documentation, by its name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TopicView {
    /// What to ask for.
    topic: String,
    /// Its title.
    title: String,
}

/// A page of the documentation.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DocView {
    /// What was asked for.
    topic: String,
    /// Its title.
    title: String,
    /// The page in Markdown.
    markdown: String,
}

fn project(api: &Api, call: &Call, _: Nothing) -> Result<ProjectView, Problem> {
    let serving = api.serving()?;
    let (opened, config) = (&serving.opened, &serving.opened.project.config);
    Ok(ProjectView {
        name: config.project.clone(),
        profile: opened.profile.clone(),
        warehouse: config.warehouse.to_string(),
        timezone: config.timezone.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now: text(call.now),
        asset_count: opened.graph().assets().len(),
        job_count: serving.jobs.len(),
        problem_count: serving.problems.len(),
        is_broken: serving.problems.iter().any(|problem| problem.severity == "error"),
    })
}

fn problems(api: &Api, _: &Call, _: Nothing) -> Result<Page<ProblemView>, Problem> {
    Ok(Page::whole(api.serving()?.problems.clone()))
}

fn connections(api: &Api, _: &Call, _: Nothing) -> Result<Page<ConnectionView>, Problem> {
    let serving = api.serving()?;
    let (graph, config) = (serving.opened.graph(), &serving.opened.project.config);
    let views = config.connections.iter().map(|(name, connection)| ConnectionView {
        name: name.to_string(),
        kind: connection.kind.clone(),
        is_warehouse: *name == config.warehouse,
        parallel: connection.parallel.map(std::num::NonZeroUsize::get),
        runs_sql: dialect_of(&serving.opened, name).is_some(),
        asset_count: graph.assets().iter().filter(|asset| asset.connections().contains(&name)).count(),
    });
    Ok(Page::whole(views.collect()))
}

#[expect(clippy::unnecessary_wraps, reason = "one form for all routes")]
fn topics(_: &Api, _: &Call, _: Nothing) -> Result<Page<TopicView>, Problem> {
    let view = |(topic, title): (String, String)| TopicView { topic, title };
    Ok(Page::whole(docs::listed().into_iter().map(view).collect()))
}

fn doc(_: &Api, call: &Call, _: Nothing) -> Result<DocView, Problem> {
    let wanted = call.part("topic").replace('~', "/");
    let Some((topic, title, page)) = docs::find(&wanted) else { return Err(Problem::not_found("page", &wanted)) };
    Ok(DocView { topic, title, markdown: page.to_owned() })
}

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    vec![
        Endpoint::read("/api/v1/project", VIEW, "The project, and how its files are.", project),
        Endpoint::read("/api/v1/problems", VIEW, "What is wrong with the files of the project.", problems),
        Endpoint::read("/api/v1/connections", VIEW, "The connections to outside systems.", connections),
        Endpoint::read("/api/v1/docs", VIEW, "The pages of the documentation.", topics),
        Endpoint::read("/api/v1/docs/{topic}", VIEW, "A page of the documentation; `~` stands for `/` in its name.", doc),
    ]
}
