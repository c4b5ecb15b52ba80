//! The results that belong together in a report, which shows one set of images: the assignments of them, the features they are seen
//! by, the neighbors they have.

use std::cell::RefCell;
use std::collections::BTreeSet;

use kinset_artifact::{Artifact, Stored};
use kinset_base::fault::chain;
use kinset_pipeline::graph;
use kinset_pipeline::spec::{Node, Spec};
use kinset_pipeline::state::{self, Known};
use kinset_store::Store;

/// The results of a pipeline, by type.
#[derive(Clone, Copy)]
pub(super) struct Results<'a> {
    pub(super) spec: &'a Spec,
    pub(super) store: &'a Store,
    pub(super) known: &'a Known,
    /// What is left out because its bytes are not what was written, each once.
    pub(super) damaged: &'a RefCell<BTreeSet<String>>,
}

impl Results<'_> {
    /// The result of this kind that a node gave; of several the one that is named after the kind. None if it is damaged.
    pub(super) fn get<A: Artifact>(&self, node: usize) -> Option<Stored<A>> {
        let outputs = &self.known.get(&node)?.outputs;
        let named = outputs.get(A::KIND).filter(|output| output.kind == A::KIND);
        let (name, output) = named.map(|output| (A::KIND, output)).or_else(|| {
            outputs.iter().find(|(_, output)| output.kind == A::KIND).map(|(name, output)| (name.as_str(), output))
        })?;
        // A record of another age may have another number of files.
        if output.files.len() != A::FILES.len() {
            return None;
        }
        match state::stored(self.store, self.name(node), name, output) {
            Ok(stored) => Some(stored),
            Err(error) => {
                self.damaged.borrow_mut().insert(chain(&error));
                None
            }
        }
    }

    pub(super) fn has(&self, node: usize, kind: &str) -> bool {
        self.known.get(&node).is_some_and(|record| record.outputs.values().any(|output| output.kind == kind))
    }

    pub(super) fn name(&self, node: usize) -> &str {
        &self.spec.nodes[node].name
    }
}

/// What is wired to a port, the first of it.
pub(crate) fn wired(node: &Node, port: &str) -> Option<usize> {
    Some(node.ports.get(port)?.first()?.node)
}

/// The images that features are of: those that were embedded, also where several features were joined.
fn embedded(nodes: &[Node], features: usize) -> Option<usize> {
    let node = &nodes[features];
    wired(node, "images").or_else(|| wired(node, "features").and_then(|below| embedded(nodes, below)))
}

/// All that a node reads, over any number of steps, and itself.
pub(super) fn above(spec: &Spec, node: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::from([node]);
    let mut open = vec![node];
    while let Some(node) = open.pop() {
        open.extend(graph::inputs(&spec.nodes[node]).filter(|&input| found.insert(input)));
    }
    found
}

/// One set of images and what is known of it. Nodes, whether they have results or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) images: Option<usize>,
    pub(super) assignments: Option<usize>,
    pub(super) classifier: Option<usize>,
    pub(super) features: Option<usize>,
    pub(super) neighbors: Option<usize>,
    /// The node that knows their classes.
    pub(super) labels: Option<usize>,
}

impl Subject {
    /// What the report is about: the assignments that were asked for, else those of the last stage that predicts, else whatever
    /// there are features or neighbors of. Of repetitions the first.
    pub(super) fn of(results: &Results<'_>, asked: Option<&str>) -> Self {
        let nodes = &results.spec.nodes;
        let is = |index: usize, name: &str| nodes[index].is_called(name);
        let candidates: Vec<usize> = (0..nodes.len()).filter(|&index| nodes[index].gives("assignments")).collect();
        let by_name = |&&index: &&usize| {
            asked.is_none_or(|name| is(index, name) || wired(&nodes[index], "classifier").is_some_and(|maker| is(maker, name)))
        };
        let mut there = candidates.iter().filter(by_name).filter(|index| results.has(**index, "assignments"));
        let last = there.next_back().or_else(|| candidates.iter().rfind(by_name)).copied();
        // The first repetition, and the first of what varies, of the family that comes last.
        let assignments = last.and_then(|last| {
            let twins = || candidates.iter().copied().filter(|&index| nodes[index].family == nodes[last].family);
            twins().find(|&index| results.has(index, "assignments")).or_else(|| twins().next())
        });
        let classifier = assignments.and_then(|node| wired(&nodes[node], "classifier"));
        // k-means is what others are compared with.
        let learned = |index: &usize| nodes[*index].gives("classifier") && nodes[*index].kind != "kmeans";
        let trained = classifier.or_else(|| (0..nodes.len()).rev().find(learned));
        let chain = trained.map(|node| above(results.spec, node)).unwrap_or_default();

        let pixels = |node: &Node| wired(node, "encoder").is_some_and(|maker| nodes[maker].kind == "pixels");
        let images_of = |node: &Node| wired(node, "images");
        let mut images = assignments.and_then(|node| images_of(&nodes[node]));
        let features = (0..nodes.len())
            .filter(|&index| nodes[index].gives("features") && results.has(index, "features"))
            .filter(|&index| images.is_none() || images_of(&nodes[index]) == images)
            .min_by_key(|&index| {
                let node = &nodes[index];
                let kin = wired(node, "encoder").is_some_and(|maker| chain.contains(&maker));
                (pixels(node), images_of(node).is_none(), !chain.contains(&index), !kin, index)
            });
        images = images.or_else(|| features.and_then(|node| images_of(&nodes[node])));
        let neighbors = (0..nodes.len())
            .filter(|&index| results.has(index, "neighbors"))
            .filter(|&index| wired(&nodes[index], "features").and_then(|node| embedded(nodes, node)) == images)
            .min_by_key(|&index| (!chain.contains(&index), index));
        images = images.or_else(|| (0..nodes.len()).find(|&index| results.has(index, "images")));

        // Labels of the images themselves, or of who measured them.
        let labels = images.and_then(|images| {
            let judge = nodes.iter().find(|node| images_of(node) == Some(images) && node.ports.contains_key("labels"));
            let judged = judge.and_then(|node| wired(node, "labels")).filter(|&node| results.has(node, "labels"));
            judged.or_else(|| Some(images).filter(|&node| results.has(node, "labels")))
        });
        Self { images, assignments, classifier, features, neighbors, labels }
    }
}
