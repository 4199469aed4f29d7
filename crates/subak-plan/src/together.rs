//! Assets that one start of a program makes: their steps are carried out together.

use std::collections::{BTreeMap, BTreeSet};

use subak_domain::{Action, AssetGraph, StepId, Work};

/// The declaration and the partition that steps share.
type Group = (String, Option<String>);

/// Names the starts: steps of one declaration, and of one partition, belong to one start unless something else has to come between them. All of a
/// start wait for what any of them needs. The actions stand in an order in which what is needed comes first.
pub(crate) fn join(actions: &mut [Action], graph: &AssetGraph) {
    let groups: Vec<Option<Group>> = actions.iter().map(|action| group_of(action, graph)).collect();
    if groups.iter().all(Option::is_none) {
        return;
    }
    let starts = starts_of(actions, &groups);
    let mut members: BTreeMap<&String, BTreeSet<StepId>> = BTreeMap::new();
    let mut wanted: BTreeMap<&String, BTreeSet<StepId>> = BTreeMap::new();
    for (action, start) in actions.iter().zip(&starts) {
        if let Some(start) = start {
            members.entry(start).or_default().insert(action.step.clone());
            wanted.entry(start).or_default().extend(action.needs.iter().cloned());
        }
    }
    for (action, start) in actions.iter_mut().zip(&starts) {
        let Some(start) = start else { continue };
        let own = &members[start];
        let outside = wanted[start].iter().filter(|need| !own.contains(need)).cloned();
        let needs: BTreeSet<StepId> = action.needs.iter().cloned().chain(outside).collect();
        action.needs = needs.into_iter().collect();
        action.rule.invocation = Some(start.clone());
    }
}

fn group_of(action: &Action, graph: &AssetGraph) -> Option<Group> {
    let Work::Materialize { asset, partition, .. } = &action.work else { return None };
    let name = graph.get(asset)?.made_with()?;
    Some((name.to_owned(), partition.as_ref().map(|partition| partition.key.clone())))
}

/// The start that each action belongs to. A step that is behind one of its own group by way of something else belongs to a later start.
fn starts_of(actions: &[Action], groups: &[Option<Group>]) -> Vec<Option<String>> {
    let places: BTreeMap<&StepId, usize> = actions.iter().enumerate().map(|(at, action)| (&action.step, at)).collect();
    // By action: the first start that what is behind it can belong to, for each group that is before it.
    let mut earliest: Vec<BTreeMap<&Group, usize>> = Vec::with_capacity(actions.len());
    let mut starts = Vec::with_capacity(actions.len());
    for (action, group) in actions.iter().zip(groups) {
        let mut own: BTreeMap<&Group, usize> = BTreeMap::new();
        for need in action.needs.iter().filter_map(|need| places.get(need).copied()).filter(|at| *at < earliest.len()) {
            for (before, start) in &earliest[need] {
                // Leaving a group and coming back to it takes another start.
                let is_left = groups[need].as_ref() == Some(*before) && group.as_ref() != Some(*before);
                let start = start + usize::from(is_left);
                let known = own.entry(before).or_default();
                *known = (*known).max(start);
            }
        }
        if let Some(group) = group {
            own.entry(group).or_default();
        }
        starts.push(group.as_ref().map(|group| {
            let partition = group.1.as_ref().map(|key| format!(" {key}")).unwrap_or_default();
            format!("{}{partition}#{}", group.0, own[group])
        }));
        earliest.push(own);
    }
    starts
}

#[cfg(test)]
mod tests {
    use subak_domain::{Reason, Rule};

    use super::*;

    fn action(name: &str, needs: &[&str]) -> Action {
        Action {
            step: StepId::check(name),
            work: Work::Check { name: name.to_owned() },
            reason: Reason::Selected,
            needs: needs.iter().map(|need| StepId::check(need)).collect(),
            rule: Rule::default(),
        }
    }

    /// What stands between two of a group makes two starts of it.
    #[test]
    fn a_detour_takes_another_start() {
        let actions = [
            action("a", &[]),
            action("b", &["a"]),
            action("between", &["b"]),
            action("c", &["a", "between"]),
            action("d", &["a"]),
            action("e", &["c", "d"]),
        ];
        let group = Some(("g".to_owned(), None));
        let groups = [group.clone(), group.clone(), None, group.clone(), group.clone(), group];
        let starts: Vec<String> = starts_of(&actions, &groups).into_iter().map(Option::unwrap_or_default).collect();
        assert_eq!(starts, ["g#0", "g#0", "", "g#1", "g#0", "g#1"]);
    }
}
