//! The shape of a pipeline: what comes before what, what a selection means, how it looks.
//!
//! Pure functions over node indices. An edge leads from what is read to who reads it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::fmt::Write as _;

use petgraph::Direction::{self, Incoming, Outgoing};
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use super::fault::{Faults, Finding, SpecFault, list};
use super::spec::{Node, Spec};

/// The nodes that a node reads, each once for every port.
pub fn inputs(node: &Node) -> impl Iterator<Item = usize> + '_ {
    node.ports.values().flatten().map(|output| output.node)
}

/// These nodes and all that they need.
pub fn needed(spec: &Spec, chosen: &BTreeSet<usize>) -> BTreeSet<usize> {
    let mut needed = chosen.clone();
    for &index in spec.order.iter().rev() {
        if needed.contains(&index) {
            needed.extend(inputs(&spec.nodes[index]));
        }
    }
    needed
}

fn digraph(inputs: &[Vec<usize>]) -> DiGraph<(), ()> {
    let mut graph = DiGraph::with_capacity(inputs.len(), inputs.len() * 2);
    let nodes: Vec<NodeIndex> = inputs.iter().map(|_| graph.add_node(())).collect();
    for (reader, read) in inputs.iter().enumerate() {
        for &read in read {
            graph.add_edge(nodes[read], nodes[reader], ());
        }
    }
    graph
}

/// An order in which each node comes after its inputs; among those free to come next, the smallest index first. Nodes on a
/// cycle are left out.
pub fn order(inputs: &[Vec<usize>]) -> Vec<usize> {
    let graph = digraph(inputs);
    let mut waits: Vec<usize> = inputs.iter().map(Vec::len).collect();
    let mut free: BinaryHeap<Reverse<usize>> = (0..inputs.len()).filter(|&node| waits[node] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(inputs.len());
    while let Some(Reverse(node)) = free.pop() {
        order.push(node);
        for reader in graph.neighbors_directed(NodeIndex::new(node), Outgoing) {
            waits[reader.index()] -= 1;
            if waits[reader.index()] == 0 {
                free.push(Reverse(reader.index()));
            }
        }
    }
    order
}

/// One shortest cycle for each group of nodes that wait for each other. Each node of a cycle reads the next, the last reads the
/// first, and the first is the one that comes first in the file.
pub fn cycles(inputs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut found = Vec::new();
    for group in tarjan_scc(&digraph(inputs)) {
        let group: BTreeSet<usize> = group.into_iter().map(NodeIndex::index).collect();
        let Some(&start) = group.first().filter(|_| group.len() > 1) else { continue };
        // Breadth first along "reads", inside the group: the first way back is a shortest one.
        let mut from: BTreeMap<usize, usize> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            if inputs[node].contains(&start) {
                let mut cycle = vec![node];
                let mut at = node;
                while let Some(&before) = from.get(&at) {
                    cycle.push(before);
                    at = before;
                }
                cycle.reverse();
                found.push(cycle);
                break;
            }
            for &read in inputs[node].iter().filter(|read| group.contains(read) && **read != start) {
                if let std::collections::btree_map::Entry::Vacant(entry) = from.entry(read) {
                    entry.insert(node);
                    queue.push_back(read);
                }
            }
        }
    }
    found.sort_unstable();
    found
}

/// Which nodes are the given one or read from it, over any number of steps.
pub fn below(inputs: &[Vec<usize>], from: usize) -> Vec<bool> {
    reach(inputs, &[from], Outgoing)
}

fn reach(inputs: &[Vec<usize>], from: &[usize], direction: Direction) -> Vec<bool> {
    let graph = digraph(inputs);
    let mut reached = vec![false; inputs.len()];
    let mut open: Vec<usize> = from.to_vec();
    while let Some(node) = open.pop() {
        if !std::mem::replace(&mut reached[node], true) {
            open.extend(graph.neighbors_directed(NodeIndex::new(node), direction).map(NodeIndex::index));
        }
    }
    reached
}

/// Which part of a pipeline to look at. Names are of nodes (`cluster@lr=0.1@3`), of all their repetitions (`cluster@lr=0.1`) or of all
/// that a stage has become (`cluster`). Empty lists restrict nothing; what several lists allow is what all of them allow.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// `--only A,B`: these and nothing else.
    pub only: Vec<String>,
    /// `--from A`: these and all below.
    pub from: Vec<String>,
    /// `--until B`: these and all they need.
    pub until: Vec<String>,
    /// `--force`: run again although fresh; the empty list means all that is selected.
    pub force: Option<Vec<String>>,
}

/// What a selection selects, as indices of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// Nodes that may run.
    pub nodes: BTreeSet<usize>,
    /// Nodes among them that run even if fresh.
    pub forced: BTreeSet<usize>,
}

/// Applies a selection.
///
/// # Errors
/// Names that no node carries, all of them; a selection of nothing; forcing what is not selected.
pub fn select(spec: &Spec, selection: &Selection) -> Result<Selected, Faults> {
    let inputs: Vec<Vec<usize>> = spec.nodes.iter().map(|node| inputs(node).collect()).collect();
    let mut findings = Vec::new();
    let mut named = |names: &[String]| {
        let mut found = Vec::new();
        for name in names {
            let before = found.len();
            found.extend(spec.nodes.iter().enumerate().filter(|(_, node)| node.is_called(name)).map(|(index, _)| index));
            if found.len() == before {
                let mut known: Vec<String> = spec.nodes.iter().map(|node| node.family.clone()).collect();
                known.dedup();
                let fault = SpecFault::UnknownName { what: "stage", written: name.clone(), known };
                findings.push(Finding::nowhere(fault));
            }
        }
        found
    };
    let mut nodes: BTreeSet<usize> = (0..spec.nodes.len()).collect();
    let only = named(&selection.only);
    let from = named(&selection.from);
    let until = named(&selection.until);
    let forced = selection.force.as_deref().map(&mut named);
    if !findings.is_empty() {
        return Err(Faults::new(Vec::new(), findings));
    }
    if !only.is_empty() {
        nodes.retain(|node| only.contains(node));
    }
    for (ends, direction) in [(&from, Outgoing), (&until, Incoming)] {
        if !ends.is_empty() {
            let reached = reach(&inputs, ends, direction);
            nodes.retain(|node| reached[*node]);
        }
    }
    let nothing = |why: String| Faults::nowhere(SpecFault::NothingSelected { why });
    if nodes.is_empty() {
        let parts = [("only", &selection.only), ("from", &selection.from), ("until", &selection.until)];
        let parts: Vec<String> = parts
            .iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(option, names)| format!("--{option} {}", names.join(",")))
            .collect();
        return Err(nothing(format!("no stage is within all of {}", list(&parts))));
    }
    let forced = match forced {
        None => BTreeSet::new(),
        Some(named) if named.is_empty() => nodes.clone(),
        Some(named) => named.into_iter().collect(),
    };
    if let Some(&outside) = forced.difference(&nodes).next() {
        return Err(nothing(format!("`{}` is to be forced, but is not selected", spec.nodes[outside].name)));
    }
    Ok(Selected { nodes, forced })
}

/// How a node stands, for drawings: a word, and whether it has work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// `fresh`, `to run`.
    pub word: String,
    /// True if it will run.
    pub work: bool,
}

/// The pipeline as a Mermaid flow chart, which GitHub and most Markdown viewers draw. `states` may be empty.
pub fn mermaid(spec: &Spec, states: &[State]) -> String {
    let mut out = String::from("flowchart TD\n");
    for (index, node) in spec.nodes.iter().enumerate() {
        let (open, close) = if is_source(node) { ("[(", ")]") } else { ("[", "]") };
        let state = states.get(index).map(|state| format!("<br/>{}", escaped(&state.word))).unwrap_or_default();
        let _ = writeln!(out, "    n{index}{open}\"{}<br/><i>{}</i>{state}\"{close}", escaped(&node.name), escaped(&node.kind));
    }
    for (from, to, label) in edges(spec) {
        let _ = writeln!(out, "    n{from} -->|{}| n{to}", escaped(&label));
    }
    let work: Vec<String> = with_work(spec, states).map(|index| format!("n{index}")).collect();
    if !work.is_empty() {
        let _ = writeln!(out, "    classDef work stroke-width:3px\n    class {} work", work.join(","));
    }
    out
}

/// The pipeline in the language of Graphviz. `states` may be empty.
pub fn dot(spec: &Spec, states: &[State]) -> String {
    let plain = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut out = format!("digraph \"{}\" {{\n    node [shape=box];\n", plain(&spec.name));
    for (index, node) in spec.nodes.iter().enumerate() {
        let shape = if is_source(node) { ", shape=cylinder" } else { "" };
        let state = states.get(index).map(|state| format!("\\n{}", plain(&state.word))).unwrap_or_default();
        let bold = if states.get(index).is_some_and(|state| state.work) { ", style=bold" } else { "" };
        let _ = writeln!(out, "    n{index} [label=\"{}\\n({}){state}\"{shape}{bold}];", plain(&node.name), plain(&node.kind));
    }
    for (from, to, label) in edges(spec) {
        let _ = writeln!(out, "    n{from} -> n{to} [label=\"{}\"];", plain(&label));
    }
    out.push_str("}\n");
    out
}

fn is_source(node: &Node) -> bool {
    node.kind == super::catalog::INGEST
}

/// From, to, what flows: each pair of port and output once, in the order of the readers.
fn edges(spec: &Spec) -> impl Iterator<Item = (usize, usize, String)> + '_ {
    spec.nodes.iter().enumerate().flat_map(|(to, node)| {
        let outputs = node.ports.values().flatten();
        outputs.map(move |output| (output.node, to, output.artifact.to_owned()))
    })
}

fn with_work<'a>(spec: &'a Spec, states: &'a [State]) -> impl Iterator<Item = usize> + 'a {
    (0..spec.nodes.len()).filter(|index| states.get(*index).is_some_and(|state| state.work))
}

/// HTML entities for what Mermaid would read as its own.
fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|letter| match letter {
            '"' => "#quot;".chars().collect::<Vec<_>>(),
            '<' => "#lt;".chars().collect(),
            '>' => "#gt;".chars().collect(),
            '|' => "#124;".chars().collect(),
            '#' => "#35;".chars().collect(),
            letter => vec![letter],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::spec::{Request, check};
    use super::super::testing::{SAMPLE, catalog};
    use super::*;

    fn sample() -> Spec {
        let request = Request { set: vec!["repeat.seeds=2".into()], ..Request::default() };
        check(Path::new("p.toml"), SAMPLE, &request, &catalog()).unwrap()
    }

    fn selected(selection: &Selection) -> Result<String, String> {
        let spec = sample();
        let names =
            |nodes: &BTreeSet<usize>| nodes.iter().map(|&node| spec.nodes[node].name.clone()).collect::<Vec<_>>().join(" ");
        match select(&spec, selection) {
            Ok(selected) if selected.forced.is_empty() => Ok(names(&selected.nodes)),
            Ok(selected) => Ok(format!("{} | {}", names(&selected.nodes), names(&selected.forced))),
            Err(faults) => Err(faults.to_string()),
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn selections_cut_the_graph_where_they_say() {
        let all = Selection::default();
        let of = |selection: Selection| selected(&selection).unwrap();
        assert_eq!(of(all.clone()), "data.pool data.test pretext features neighbors cluster@1 cluster@2 scores@1 scores@2");
        assert_eq!(of(Selection { only: names(&["cluster", "features"]), ..all.clone() }), "features cluster@1 cluster@2");
        assert_eq!(of(Selection { from: names(&["cluster@2"]), ..all.clone() }), "cluster@2 scores@2");
        assert_eq!(of(Selection { until: names(&["neighbors"]), ..all.clone() }), "data.pool pretext features neighbors");
        assert_eq!(
            of(Selection { from: names(&["pretext"]), until: names(&["neighbors"]), ..all.clone() }),
            "pretext features neighbors"
        );
        assert_eq!(
            of(Selection { until: names(&["pretext"]), force: Some(names(&["pretext"])), ..all.clone() }),
            "data.pool pretext | pretext"
        );
        assert_eq!(
            of(Selection { only: names(&["pretext"]), force: Some(Vec::new()), ..all }),
            "pretext | pretext",
            "forcing without names forces all that is selected"
        );
    }

    #[test]
    fn selections_of_strangers_and_of_nothing_are_refused() {
        let all = Selection::default();
        let fault = |selection: Selection| selected(&selection).unwrap_err();
        assert_eq!(fault(Selection { only: names(&["clutser"]), ..all.clone() }), "there is no stage `clutser`");
        assert_eq!(
            fault(Selection { only: names(&["x"]), from: names(&["y"]), ..all.clone() }),
            "the pipeline file has 2 faults",
            "all at once"
        );
        assert_eq!(
            fault(Selection { from: names(&["scores"]), until: names(&["pretext"]), ..all.clone() }),
            "no stage is selected: no stage is within all of `--from scores`, `--until pretext`"
        );
        assert_eq!(
            fault(Selection { only: names(&["pretext"]), force: Some(names(&["cluster"])), ..all }),
            "no stage is selected: `cluster@1` is to be forced, but is not selected"
        );
    }

    #[test]
    fn the_order_is_that_of_the_file_wherever_the_wires_allow() {
        assert_eq!(order(&[vec![2], vec![], vec![], vec![0, 1]]), [1, 2, 0, 3]);
        assert_eq!(order(&[vec![1, 1], vec![]]), [1, 0], "two ports may read the same node");
        assert_eq!(order(&[vec![1], vec![0], vec![]]), [2], "a circle has no order");
        assert_eq!(order(&[]), [0; 0]);
    }

    #[test]
    fn a_circle_is_found_by_its_shortest_way() {
        assert_eq!(cycles(&[vec![1], vec![2], vec![0, 1], vec![2]]), [vec![0, 1, 2]]);
        assert_eq!(cycles(&[vec![1, 3], vec![2], vec![3], vec![0]]), [vec![0, 3]]);
        assert!(cycles(&[vec![], vec![0], vec![0, 1]]).is_empty());
    }

    #[test]
    fn drawings_name_every_node_and_wire() {
        let text = "name='d'\n[data.a]\ndataset='x'\n[stage.s]\nkind='simclr'\nimages='data.a'\n";
        let spec = check(Path::new("p.toml"), text, &Request::default(), &catalog()).unwrap();
        let states = [State { word: "fresh".into(), work: false }, State { word: "to run".into(), work: true }];
        assert_eq!(
            mermaid(&spec, &states),
            "flowchart TD\n    n0[(\"data.a<br/><i>ingest</i><br/>fresh\")]\n    n1[\"s<br/><i>simclr</i><br/>to run\"]\n    n0 \
             -->|images| n1\n    classDef work stroke-width:3px\n    class n1 work\n"
        );
        assert_eq!(
            dot(&spec, &[]),
            "digraph \"d\" {\n    node [shape=box];\n    n0 [label=\"data.a\\n(ingest)\", shape=cylinder];\n    n1 \
             [label=\"s\\n(simclr)\"];\n    n0 -> n1 [label=\"images\"];\n}\n"
        );
    }
}
