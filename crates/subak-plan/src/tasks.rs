//! Assets that a graph of tasks makes: where one is to be made, its tasks are.

use subak_domain::{Action, AssetGraph, Definition, Work};

/// Puts the tasks of such assets before their own steps. The first ones wait for what the asset needs and have its reason, so that they are left out
/// when it is; the step of the asset waits for the last ones.
#[must_use]
pub fn with_tasks(actions: Vec<Action>, graph: &AssetGraph) -> Vec<Action> {
    let made_by = |action: &Action| {
        let Work::Materialize { asset, .. } = &action.work else { return None };
        match &graph.get(asset)?.definition {
            Definition::Graph(made) => Some(made),
            _ => None,
        }
    };
    let mut all = Vec::with_capacity(actions.len());
    for mut action in actions {
        if let Some(made) = made_by(&action) {
            for task in &made.actions {
                let mut task = task.clone();
                task.reason = action.reason.clone();
                if task.needs.is_empty() {
                    task.needs.clone_from(&action.needs);
                    // What a job says of the asset holds for what comes first.
                    task.rule.when = match (action.rule.when.clone(), task.rule.when.take()) {
                        (Some(outer), Some(own)) => Some(format!("({outer}) and ({own})")),
                        (outer, own) => own.or(outer),
                    };
                    if action.rule.trigger != subak_domain::Trigger::default() {
                        task.rule.trigger = action.rule.trigger;
                    }
                }
                all.push(task);
            }
            action.rule.trigger = subak_domain::Trigger::default();
            action.rule.when = None;
            action.needs.extend(made.leaves.iter().cloned());
            action.needs.sort();
            action.needs.dedup();
        }
        all.push(action);
    }
    all
}
