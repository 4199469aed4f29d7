//! Assets that one start of a program makes: their steps are carried out together.

use std::collections::{BTreeMap, BTreeSet};

use subak_domain::{Action, AssetGraph, StepId, Work};

/// The declaration and the partition that steps share.
type Group = (String, Option<String>);

/// Names the starts: steps of one declaration, and of one partition, belong to one start unless something else has to come between them. A start
/// comes after whatever any of them needs has ended; who of them can be made then is seen then. The actions stand in an order in which what is
/// needed comes first.
pub(crate) fn join(actions: &mut [Action], graph: &AssetGraph) {
    let groups: Vec<Option<Group>> = actions.iter().map(|action| group_of(action, graph)).collect();
    if groups.iter().all(Option::is_none) {
        return;
    }
    let mut starts = starts_of(actions, &groups);
    // Starts of two declarations may wait for each other; then their steps have starts of their own.
    while let Some(circle) = circle(actions, &starts) {
        for (action, start) in actions.iter().zip(&mut starts) {
            if start.as_ref().is_some_and(|start| circle.contains(start)) {
                *start = Some(format!("{} alone", action.step));
            }
        }
    }
    let afters = afters_of(actions, &starts);
    let mut said: BTreeSet<&String> = BTreeSet::new();
    for (action, start) in actions.iter_mut().zip(&starts) {
        let Some(start) = start else { continue };
        action.rule.invocation = Some(start.clone());
        if said.insert(start) {
            action.rule.after = afters.get(start).map(|after| after.iter().cloned().collect()).unwrap_or_default();
        }
    }
}

/// What each start comes after: what its steps need and do not make.
fn afters_of(actions: &[Action], starts: &[Option<String>]) -> BTreeMap<String, BTreeSet<StepId>> {
    let mut members: BTreeMap<&String, BTreeSet<&StepId>> = BTreeMap::new();
    for (action, start) in actions.iter().zip(starts) {
        if let Some(start) = start {
            members.entry(start).or_default().insert(&action.step);
        }
    }
    let mut afters: BTreeMap<String, BTreeSet<StepId>> = BTreeMap::new();
    for (action, start) in actions.iter().zip(starts) {
        let Some(start) = start else { continue };
        let outside = action.needs.iter().filter(|need| !members[start].contains(need)).cloned();
        afters.entry(start.clone()).or_default().extend(outside);
    }
    afters
}

/// The starts that wait for each other, by whatever way; `None` where there are none.
fn circle(actions: &[Action], starts: &[Option<String>]) -> Option<BTreeSet<String>> {
    let afters = afters_of(actions, starts);
    let mut open: Vec<(&Action, &Option<String>)> = actions.iter().zip(starts).collect();
    let mut done: BTreeSet<&StepId> = BTreeSet::new();
    let known: BTreeSet<&StepId> = actions.iter().map(|action| &action.step).collect();
    loop {
        let before = open.len();
        open.retain(|(action, start)| {
            let after = start.as_ref().and_then(|start| afters.get(start)).into_iter().flatten();
            let is_free = action.needs.iter().chain(after).all(|need| done.contains(need) || !known.contains(need));
            if is_free {
                done.insert(&action.step);
            }
            !is_free
        });
        if open.is_empty() {
            return None;
        }
        if open.len() == before {
            let shared: BTreeSet<String> = open.iter().filter_map(|(_, start)| start.as_ref()).cloned().collect();
            let is_alone = shared.iter().all(|start| start.ends_with(" alone"));
            // What is left then are circles of the assets themselves, which no project has.
            return (!is_alone).then_some(shared);
        }
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

    /// Two declarations that read each other's assets do not wait for each other.
    #[test]
    fn starts_that_wait_for_each_other_are_taken_apart() {
        let actions = [action("a", &[]), action("y", &[]), action("x", &["a"]), action("b", &["y"])];
        let starts = [Some("g#0".to_owned()), Some("h#0".to_owned()), Some("h#0".to_owned()), Some("g#0".to_owned())];
        let found = circle(&actions, &starts).expect("a circle");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["g#0", "h#0"]);
        let apart = ["a alone", "y alone", "x alone", "b alone"].map(|start| Some(start.to_owned()));
        assert_eq!(circle(&actions, &apart), None);
        assert_eq!(circle(&actions, &[None, None, Some("h#0".to_owned()), None]), None);
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
