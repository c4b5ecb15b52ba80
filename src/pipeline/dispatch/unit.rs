//! The grouping of nodes into jobs: a family of repetitions is an array, a chain of small stages may be one job.

use std::collections::BTreeSet;

use super::rules::Needs;
use crate::graph;
use crate::spec::Spec;

/// Nodes that are submitted together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unit {
    /// What it is called: `cluster`, `features+neighbors`.
    pub(super) name: String,
    pub(super) needs: Needs,
    /// The nodes of each task, in the order in which they run.
    pub(super) tasks: Vec<Vec<usize>>,
}

impl Unit {
    pub(super) fn nodes(&self) -> impl Iterator<Item = usize> + '_ {
        self.tasks.iter().flatten().copied()
    }

    /// What a task reads that it does not make.
    pub(super) fn reads(&self, spec: &Spec, task: usize) -> BTreeSet<usize> {
        let own = &self.tasks[task];
        let read = own.iter().flat_map(|&node| graph::inputs(&spec.nodes[node]));
        read.filter(|node| !own.contains(node)).collect()
    }
}

/// Groups nodes, given in the order of the pipeline, into units of at most so many tasks; each unit comes after those that it reads.
pub(super) fn units(spec: &Spec, nodes: &[usize], needs: impl Fn(usize) -> Needs, most: usize) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for &index in nodes {
        let (family, needs) = (&spec.nodes[index].family, needs(index));
        match units.iter_mut().find(|unit| unit.name == *family && unit.needs == needs) {
            Some(unit) => unit.tasks.push(vec![index]),
            None => units.push(Unit { name: family.clone(), needs, tasks: vec![vec![index]] }),
        }
    }
    let mut units = fused(spec, in_order(spec, units));
    for unit in &mut units {
        unit.name.truncate(80);
    }
    let cut = |unit: Unit| {
        let pieces: Vec<Unit> =
            unit.tasks.chunks(most.max(1)).map(|tasks| Unit { tasks: tasks.to_vec(), ..unit.clone() }).collect();
        pieces
    };
    units.into_iter().flat_map(cut).collect()
}

/// Families know no circles, so there is always one to come next.
fn in_order(spec: &Spec, mut units: Vec<Unit>) -> Vec<Unit> {
    let mut sorted = Vec::with_capacity(units.len());
    while !units.is_empty() {
        let open: BTreeSet<usize> = units.iter().flat_map(Unit::nodes).collect();
        let free = |unit: &Unit| (0..unit.tasks.len()).all(|task| unit.reads(spec, task).is_disjoint(&open));
        let next = units.iter().position(free).unwrap_or(0);
        sorted.push(units.remove(next));
    }
    sorted
}

/// Makes chains of units that allow it one: of each task the one with the same number, and nothing else that is still to be made.
fn fused(spec: &Spec, units: Vec<Unit>) -> Vec<Unit> {
    let open: BTreeSet<usize> = units.iter().flat_map(Unit::nodes).collect();
    let mut done: Vec<Unit> = Vec::new();
    for unit in units {
        let reads = |task: usize| -> BTreeSet<usize> { unit.reads(spec, task).intersection(&open).copied().collect() };
        let fits = |above: &Unit| {
            above.needs.fuse == Some(true)
                && above.needs == unit.needs
                && above.tasks.len() == unit.tasks.len()
                && (0..unit.tasks.len()).all(|task| {
                    let reads = reads(task);
                    !reads.is_empty() && reads.iter().all(|node| above.tasks[task].contains(node))
                })
        };
        match done.iter_mut().find(|above| fits(above)) {
            Some(above) => {
                above.name = format!("{}+{}", above.name, unit.name);
                above.tasks.iter_mut().zip(unit.tasks).for_each(|(above, tasks)| above.extend(tasks));
            }
            None => done.push(unit),
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::spec::{Request, check};
    use crate::testing::{SAMPLE, catalog};

    fn names(spec: &Spec, units: &[Unit]) -> Vec<String> {
        let task = |task: &Vec<usize>| task.iter().map(|&node| spec.nodes[node].name.as_str()).collect::<Vec<_>>().join("+");
        units
            .iter()
            .map(|unit| format!("{}: {}", unit.name, unit.tasks.iter().map(task).collect::<Vec<_>>().join(" ")))
            .collect()
    }

    #[test]
    fn repetitions_are_arrays_and_chains_may_be_fused() {
        let spec = check(Path::new("p.toml"), SAMPLE, &Request::default(), &catalog()).unwrap();
        let plain = units(&spec, &spec.order, |_| Needs::default(), 2);
        assert_eq!(
            names(&spec, &plain),
            [
                "data.pool: data.pool",
                "data.test: data.test",
                "pretext: pretext",
                "features: features",
                "neighbors: neighbors",
                "cluster: cluster@1 cluster@2",
                "cluster: cluster@3",
                "scores: scores@1 scores@2",
                "scores: scores@3"
            ]
        );
        let small = |node: usize| {
            let fuse = ["features", "neighbors", "cluster", "scores"].contains(&spec.nodes[node].family.as_str());
            Needs { fuse: Some(fuse), ..Needs::default() }
        };
        let after_data: Vec<usize> = spec.order.iter().copied().filter(|&node| node > 1).collect();
        let fused = units(&spec, &after_data, small, 100);
        assert_eq!(
            names(&spec, &fused),
            [
                "pretext: pretext",
                "features+neighbors: features+neighbors",
                "cluster+scores: cluster@1+scores@1 cluster@2+scores@2 cluster@3+scores@3"
            ]
        );
    }

    #[test]
    fn a_unit_comes_after_all_it_reads_though_one_of_its_nodes_could_come_first() {
        let spec = check(Path::new("p.toml"), SAMPLE, &Request::default(), &catalog()).unwrap();
        let at = |name: &str| spec.nodes.iter().position(|node| node.name == name).unwrap();
        let found = units(&spec, &[at("scores@1"), at("cluster@2"), at("scores@2")], |_| Needs::default(), 100);
        assert_eq!(names(&spec, &found), ["cluster: cluster@2", "scores: scores@1 scores@2"]);
    }
}
