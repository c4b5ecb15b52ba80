//! The state dict in a file: which of the things in it is a network, and what the network's tensors are called here.
//!
//! A state dict is a dictionary of named tensors, one of which is a `conv1.weight` of four axes, or an AlexNet's `features.0.weight`. It may be the whole file (SCAN's
//! pretext and self-label files), stand beside other things (`model` and `head`; `state_dict`; AND's `net`), or have a twin
//! (RUC's `net1` and `net2`, of which the caller names one).

use std::collections::{BTreeMap, BTreeSet};

use super::beginnings::{self, Layers, Names, Place, bare};
use super::error::ImportError;
use super::file::{Opened, named};
use super::names::{ALEXNET_PROJECTION, COUNTER, Layout};
use kinset_artifact::encoder::{Tensors, Weights};
use kinset_base::pickle::PickleError;
use kinset_base::pickle::value::{Id, Pickled, Tensor, Value};
use kinset_base::reading::Reading;

type Result<T> = std::result::Result<T, ImportError>;

/// Dictionaries within dictionaries.
const DEEPEST: usize = 4;
/// Entries that are looked at, and tensors of a network.
const MOST: usize = 1 << 20;

/// A network's tensors by our names.
#[derive(Debug)]
pub(super) struct State {
    /// Floats only, without counters.
    pub(super) tensors: Tensors,
    /// Our name → the name in the file.
    pub(super) theirs: BTreeMap<String, String>,
    pub(super) layout: Layout,
    /// It is an AlexNet, and not a residual network.
    pub(super) alexnet: bool,
    /// The head that the file calls the best.
    pub(super) head: Option<i64>,
    /// Tensors that were left out, because only training needs them.
    pub(super) left_out: usize,
    /// What was taken away from names, and which tensors stand beside the network.
    pub(super) reading: Reading,
    /// The first words of all names, each with how many begin so.
    pub(super) beginnings: Vec<(String, usize)>,
}

/// Reads the network of a file, or the one of this name.
pub(super) fn read(bytes: &[u8], part: Option<&str>, wanted: &Names) -> Result<State> {
    let none = |found| ImportError::NoNetwork { found };
    found(bytes, part, wanted, (&is_first, &none), |dict, weights| translate(dict, wanted, weights))
}

/// The names in a state dict, and what is known from beside it.
pub(super) struct Dict {
    pub(super) names: Vec<String>,
    /// The head that the file calls the best.
    head: Option<i64>,
    pub(super) lightning: bool,
}

/// By which tensor a network is known, and what is said if none has it.
pub(super) type Sought<'a> = (&'a dyn Fn(&str) -> bool, &'a dyn Fn(String) -> ImportError);

/// Finds the network of a file by the names of its first layer, and hands over the names of its tensors with a way to get them.
pub(super) fn found<T>(
    bytes: &[u8],
    part: Option<&str>,
    wanted: &Names,
    (is_first, none): Sought<'_>,
    then: impl FnOnce(Dict, &mut dyn FnMut(&str) -> Result<Weights>) -> Result<T>,
) -> Result<T> {
    match Opened::open(bytes)? {
        Opened::Named(file) => {
            let names: Vec<String> = file.names().into_iter().map(str::to_owned).collect();
            let own = |part: &str| ImportError::NoPart { part: part.to_owned(), found: vec!["all of it".into()] };
            if let Some(part) = part {
                return Err(own(part));
            }
            if !names.iter().any(|name| is_first(name)) {
                return Err(none(listed(names.iter().map(String::as_str))));
            }
            then(Dict { names, head: None, lightning: false }, &mut |name| named(&file, name))
        }
        Opened::Pickled(mut checkpoint) => {
            let found = networks(&checkpoint.pickled, is_first);
            let names = || found.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
            let chosen = match (part, found.as_slice()) {
                (None, [(_, only)]) => *only,
                (None, []) => {
                    // The network may be in what was not built: a whole module was saved.
                    return Err(match checkpoint.pickled.strangers.first() {
                        Some(name) => PickleError::Refused { name: name.clone() }.into(),
                        None => none(contents(&checkpoint.pickled)),
                    });
                }
                (None, _) => return Err(ImportError::Several(names())),
                (Some(part), _) => match found.iter().find(|(path, _)| path == part) {
                    Some((_, id)) => *id,
                    None => return Err(ImportError::NoPart { part: part.to_owned(), found: names() }),
                },
            };
            let head = head(&checkpoint.pickled);
            let lightning = is_lightning(&checkpoint.pickled);
            let mut places: BTreeMap<String, Option<Tensor>> = BTreeMap::new();
            for (name, id) in checkpoint.pickled.entries(chosen).into_iter().flatten() {
                if let Some(class) = checkpoint.pickled.stranger(id).filter(|_| !wanted.ignores(name)) {
                    return Err(ImportError::Object { name: name.to_owned(), class: class.to_owned() });
                }
                let tensor =
                    if let Value::Tensor(tensor) = checkpoint.pickled.get(id) { Some((**tensor).clone()) } else { None };
                places.insert(name.to_owned(), tensor);
            }
            let names = places.keys().cloned().collect();
            then(Dict { names, head, lightning }, &mut |name| match places.get(name) {
                Some(Some(tensor)) => checkpoint.weights(name, tensor),
                _ => Err(ImportError::Tensor { name: name.to_owned(), what: "is not a tensor".into() }),
            })
        }
    }
}

/// Brings tensors under our names.
fn translate(dict: Dict, wanted: &Names, weights: &mut dyn FnMut(&str) -> Result<Weights>) -> Result<State> {
    let Dict { names, head, lightning } = dict;
    if names.len() > MOST {
        return Err(PickleError::TooLarge { what: format!("a network of {} tensors", names.len()), most: MOST as u64 }.into());
    }
    let all = names.len();
    let names: Vec<String> = names.into_iter().filter(|name| !wanted.ignores(name)).collect();
    let ignored = all - names.len();
    let bares: Vec<String> = names.iter().map(|name| bare(name)).collect();
    let beginnings = beginnings::beginnings(&bares);
    let place = Place::of(&bares, wanted.prefix.as_deref())?;
    let layout = Layout::of(&place.prefix);
    let (mut tensors, mut theirs, mut left_out) = (Tensors::default(), BTreeMap::new(), 0);
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    for (name, bare) in names.into_iter().zip(bares) {
        let ours = match ours(&place, layout, &bare) {
            Some(Ours::Name(ours)) => ours,
            Some(Ours::LeftOut) => {
                left_out += 1;
                continue;
            }
            None => {
                left.push(name);
                continue;
            }
        };
        let found = weights(&name)?;
        if let Some(twin) = theirs.insert(ours.clone(), name.clone()) {
            return Err(ImportError::Tensor { name, what: format!("is the same as `{twin}`") });
        }
        tensors.insert(ours, found.shape, found.values);
        taken.push(name);
    }
    let usual = matches!(place.prefix.as_str(), "backbone." | "encoder_q.") && wanted.prefix.is_none();
    let reading = beginnings::told((&place.prefix, usual), &taken, &left, ignored, lightning);
    let alexnet = place.layers == Layers::Alexnet;
    Ok(State { tensors, theirs, layout, alexnet, head, left_out, reading, beginnings })
}

/// What becomes of a tensor.
enum Ours {
    Name(String),
    /// Only training needs it.
    LeftOut,
}

/// Our name for one of the file's; nothing where it stands beside the network.
fn ours(place: &Place, layout: Layout, name: &str) -> Option<Ours> {
    if name.rsplit('.').next() == Some(COUNTER) {
        return Some(Ours::LeftOut);
    }
    let by = |name: &str| Some(layout.ours(name).map_or(Ours::LeftOut, Ours::Name));
    let last = match layout {
        Layout::Scan => "backbone.",
        Layout::Moco => "encoder_q.",
        Layout::And => "",
    };
    if let Some(below) = name.strip_prefix(&place.prefix) {
        // MoCo's projection is called `fc`, and that of AND's AlexNet as others call their heads.
        let own = layout == Layout::Moco || (place.layers == Layers::Alexnet && below.starts_with(ALEXNET_PROJECTION));
        let head = !own && beginnings::is_head(below);
        return if head { None } else { by(&format!("{last}{}", place.named(below))) };
    }
    let beside = name.strip_prefix(place.prefix.strip_suffix(last)?)?;
    match layout {
        Layout::Scan => {
            ["contrastive_head.", "cluster_head."].iter().any(|head| beside.starts_with(head)).then(|| by(beside))?
        }
        Layout::Moco if ["encoder_k.", "queue"].iter().any(|known| beside.starts_with(known)) => by(beside),
        Layout::Moco | Layout::And => None,
    }
}

fn is_first(name: &str) -> bool {
    ["conv1.weight", "features.0.weight"].iter().any(|first| beginnings::before(name, first).is_some())
}

/// The state dicts of networks in a file, with the path that leads to each; the whole file's is empty.
fn networks(pickled: &Pickled, is_first: &dyn Fn(&str) -> bool) -> Vec<(String, Id)> {
    let (mut found, mut seen, mut looked) = (Vec::new(), BTreeSet::new(), 0);
    let mut waiting = vec![(String::new(), pickled.root, 0)];
    while let Some((path, id, depth)) = waiting.pop() {
        let Some(entries) = pickled.entries(id) else { continue };
        if !seen.insert(id) {
            continue;
        }
        let mut inner = Vec::new();
        let mut network = false;
        for (name, value) in entries {
            looked += 1;
            if looked > MOST {
                return found;
            }
            match pickled.get(value) {
                Value::Tensor(tensor) => network |= is_first(name) && tensor.shape.len() == 4,
                Value::Dict(_) if depth < DEEPEST && name.len() < 256 => {
                    let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                    inner.push((path, value, depth + 1));
                }
                _ => {}
            }
        }
        if network {
            found.push((path, id));
        } else {
            waiting.extend(inner);
        }
    }
    found.sort();
    found
}

/// The head that a file of SCAN or NNM calls the best: a NumPy scalar, or a plain number.
fn head(pickled: &Pickled) -> Option<i64> {
    let entries: Vec<(&str, Id)> = pickled.entries(pickled.root)?.collect();
    ["head", "best_loss_head"].into_iter().find_map(|wanted| {
        let (_, id) = entries.iter().find(|(name, _)| *name == wanted)?;
        match pickled.get(*id) {
            Value::Int(head) => Some(*head),
            _ => None,
        }
    })
}

fn is_lightning(pickled: &Pickled) -> bool {
    pickled.entries(pickled.root).into_iter().flatten().any(|(name, _)| name == "pytorch-lightning_version")
}

/// What a file without a network holds.
fn contents(pickled: &Pickled) -> String {
    match pickled.entries(pickled.root) {
        Some(entries) => listed(entries.map(|(name, _)| name)),
        None => "it is not a dictionary".to_owned(),
    }
}

pub(super) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.take(5).map(|name| format!("`{}`", name.chars().take(60).collect::<String>())).collect();
    if names.is_empty() { "it is empty".to_owned() } else { format!("it has {}", names.join(", ")) }
}
