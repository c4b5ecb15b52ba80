//! The architecture of imported tensors: its shape is read off theirs, and then every name and every shape must agree.

use candle_core::Device;

use super::beginnings::{self, Names};
use super::error::ImportError;
use super::names::Layout;
use super::state::{self, State};
use crate::alexnet;
use crate::encoder::alexnet;
use crate::error::{ModelError, Result};
use crate::{ClassifierNet, EncoderNet, HeadChoice, architecture};
use kinset_artifact::encoder::{
    Architecture, Backbone, Classifier, ClassifierCard, Encoder, EncoderCard, HeadKind, Normalization, Projection,
    ProjectionKind, Stem, Tensors, Weights,
};
use kinset_base::reading::Reading;

/// The most stages and blocks that are accepted from names.
const MOST_BLOCKS: usize = 64;
const MOST_HEADS: usize = 1024;
/// The largest side of an image, pixels, that an AlexNet of a file is looked at for.
const LARGEST_ALEXNET: usize = 2048;

/// What the file does not say, or what is to be said otherwise.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The network, where a file has several.
    pub part: Option<String>,
    /// The family; else the one that fits best.
    pub backbone: Option<Backbone>,
    /// The first layers; needed where they begin with a 3 × 3 convolution.
    pub stem: Option<Stem>,
    /// The best head; else the file's word, else the only one.
    pub head: Option<usize>,
    /// What stands before the network's names, and what is left beside them.
    pub names: Names,
}

/// The tensors of a file under our names, and what they are.
#[derive(Debug)]
pub struct Found {
    state: State,
    pub channels: usize,
    backbone: Backbone,
    stem: Stem,
    width: usize,
    heads: Option<Heads>,
}

/// What the heads are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heads {
    count: usize,
    clusters: usize,
    hidden: Option<usize>,
    best: usize,
    /// Who says so.
    told: bool,
}

/// Reads the network of a file: PyTorch's zip or legacy stream, or safetensors.
///
/// # Errors
/// [`ImportError`]: another format, a damaged file, a pickle that wants more than tensors and plain containers, no network in it
/// or several, a stem or head that must be named.
pub fn find(bytes: &[u8], wanted: &Wanted) -> std::result::Result<Found, ImportError> {
    let mut state = state::read(bytes, wanted.part.as_deref(), &wanted.names)?;
    let alexnet = state.alexnet;
    let name = if alexnet { "features.0.weight" } else { "conv1.weight" };
    let Some(first) = state.tensors.get(&format!("backbone.{name}")) else {
        let found = format!("the names of its tensors begin with {}", beginnings::in_words(&state.beginnings));
        return Err(ImportError::NoNetwork { found });
    };
    let shape = first.shape.clone();
    let &[width, channels, kernel, _] = shape.as_slice() else {
        return Err(ImportError::Tensor { name: name.into(), what: format!("has the shape {shape:?}") });
    };
    let stem = if alexnet { form(wanted.stem, kernel, &shape)? } else { stem(wanted.stem, kernel, &shape)? };
    let (own, other) = if stem == Stem::Imagenet { ("downsample", "shortcut") } else { ("shortcut", "downsample") };
    rename(&mut state, other, own);
    let known = || if alexnet { Backbone::Alexnet } else { backbone(&state.tensors) };
    let backbone = wanted.backbone.unwrap_or_else(known);
    let heads = heads(&state, wanted)?;
    Ok(Found { state, channels, backbone, stem, width, heads })
}

impl Found {
    pub fn layout(&self) -> Layout {
        self.state.layout
    }

    /// Tensors that only training needs, and that were left out.
    pub fn left_out(&self) -> usize {
        self.state.left_out
    }

    /// What was taken away from names, and which tensors stand beside the network.
    pub fn reading(&self) -> &Reading {
        &self.state.reading
    }

    /// The encoder: the backbone, with the projection if the file has one.
    ///
    /// # Errors
    /// [`ModelError::Weights`] with all that is missing, unexpected or of another shape; [`ModelError::NotFinite`].
    pub fn encoder(&self, size: usize, normalization: &Normalization) -> Result<Encoder> {
        let body = self.part(|name| !is_head(name));
        let projection = projection(&body);
        let architecture = self.architecture(size, projection)?;
        let (net, card) = build(architecture, &body, normalization).map_err(|error| self.in_their_words(error))?;
        Ok(Encoder { card, tensors: net.to_tensors()? })
    }

    /// The classifier, if the file has heads. They read the backbone, as all of these files' do.
    pub fn classifier(&self, size: usize, normalization: &Normalization) -> Result<Option<Classifier>> {
        let Some(heads) = self.heads else { return Ok(None) };
        let body = self.part(|name| name.starts_with("backbone."));
        let architecture = self.architecture(size, None)?;
        let (_, encoder) = build(architecture, &body, normalization).map_err(|error| self.in_their_words(error))?;
        let chosen_by = match (heads.told, heads.count) {
            (true, _) => "as the imported file says",
            (false, 1) => "the only one of the imported file",
            (false, _) => "as the settings say",
        };
        let card = ClassifierCard {
            encoder,
            clusters: heads.clusters,
            heads: heads.count,
            head: heads.best,
            chosen_by: chosen_by.to_owned(),
            head_losses: Vec::new(),
            kind: HeadKind::Linear,
            hidden: heads.hidden,
            bottleneck: None,
            normalize_features: false,
            committee: false,
        };
        let all = self.part(|name| name.starts_with("backbone.") || is_head(name));
        let net = ClassifierNet::from_tensors(&card, &all, &Device::Cpu).map_err(|error| self.in_their_words(error))?;
        let choice = HeadChoice { head: heads.best, chosen_by: card.chosen_by, losses: Vec::new() };
        let card = net.card(normalization.clone(), choice)?;
        Ok(Some(Classifier { card, tensors: net.to_tensors()? }))
    }

    /// What the file has and the network lacks, as the file calls it.
    fn in_their_words(&self, error: ModelError) -> ModelError {
        let ModelError::Weights(mut mismatch) = error else { return error };
        for name in &mut mismatch.unexpected {
            if let Some(theirs) = self.state.theirs.get(name) {
                name.clone_from(theirs);
            }
        }
        let (network, names) = (word(self.backbone), beginnings::in_words(&self.state.beginnings));
        mismatch.file =
            Some(format!("the nearest network is `{network}` of width {}; the names begin with {names}", self.width));
        ModelError::Weights(mismatch)
    }

    fn architecture(&self, size: usize, projection: Option<Projection>) -> Result<Architecture> {
        let shape = architecture(self.backbone, self.stem, self.width, self.channels, size, projection)?;
        if let Some(layout) = alexnet(&shape)
            && let Some(Weights { shape: fc1, .. }) = self.state.tensors.get("backbone.fc1.0.weight")
            && let &[_, inputs] = fc1.as_slice()
        {
            let fits = |size: &usize| {
                let [(_, [wanted, _]), _] = alexnet::Layout { size: *size, ..layout }.dense()?;
                (wanted == inputs).then_some(())
            };
            let sizes: Vec<usize> = (1..=LARGEST_ALEXNET).filter(|size| fits(size).is_some()).collect();
            if let [least, .., most] = sizes.as_slice()
                && !(least..=most).contains(&&size)
            {
                let wanted = format!("{least} to {most} pixels, because `fc1` of the file reads {inputs} numbers: set `size`");
                return Err(ModelError::Architecture { field: "size", found: size.to_string(), wanted });
            }
        }
        Ok(shape)
    }

    fn part(&self, keep: impl Fn(&str) -> bool) -> Tensors {
        let mut part = Tensors::default();
        for (name, Weights { shape, values }) in self.state.tensors.iter().filter(|(name, _)| keep(name)) {
            part.insert(name, shape.clone(), values.clone());
        }
        part
    }
}

/// A network of these tensors; its card knows which of them training moves.
fn build(architecture: Architecture, tensors: &Tensors, normalization: &Normalization) -> Result<(EncoderNet, EncoderCard)> {
    let draft = EncoderCard { architecture, normalization: normalization.clone(), parameters: Vec::new(), buffers: Vec::new() };
    let net = EncoderNet::from_tensors(&draft, tensors, &Device::Cpu)?;
    let card = net.card(normalization.clone());
    Ok((net, card))
}

fn is_head(name: &str) -> bool {
    name.starts_with("cluster_head.")
}

/// A family as the settings call it.
fn word(backbone: Backbone) -> &'static str {
    match backbone {
        Backbone::Resnet18 => "resnet18",
        Backbone::Resnet34 => "resnet34",
        Backbone::Resnet50 => "resnet50",
        Backbone::ResnetTiny => "resnet_tiny",
        Backbone::Alexnet => "alexnet",
        Backbone::Pixels => "pixels",
        Backbone::Vit => "vit",
        Backbone::Graph => "graph",
        Backbone::Features => "features",
    }
}

/// The first layers: told by the kernel where only one stem has it.
fn stem(wanted: Option<Stem>, kernel: usize, shape: &[usize]) -> std::result::Result<Stem, ImportError> {
    match (kernel, wanted) {
        (7, None | Some(Stem::Imagenet)) => Ok(Stem::Imagenet),
        (3, None) => Err(ImportError::WhichStem),
        (3, Some(stem)) if stem != Stem::Imagenet => Ok(stem),
        (_, Some(stem)) => Err(ImportError::Stem { found: format!("{shape:?}"), stem: stem.word() }),
        (_, None) => Err(ImportError::Stem { found: format!("{shape:?}"), stem: "imagenet" }),
    }
}

/// The form of an AlexNet, which its first kernel tells.
fn form(wanted: Option<Stem>, kernel: usize, shape: &[usize]) -> std::result::Result<Stem, ImportError> {
    let found = if kernel == 11 { Stem::Imagenet } else { Stem::Cifar };
    match wanted {
        Some(stem) if stem != found => Err(ImportError::Stem { found: format!("{shape:?}"), stem: stem.word() }),
        _ => Ok(found),
    }
}

/// torchvision and the CIFAR code call the way around a block differently; our networks go by the stem.
fn rename(state: &mut State, from: &str, to: &str) {
    let (from, to) = (format!(".{from}."), format!(".{to}."));
    let names: Vec<String> = state
        .tensors
        .names()
        .filter(|name| name.starts_with("backbone.layer") && name.contains(&from))
        .map(str::to_owned)
        .collect();
    for name in names {
        let new = name.replacen(&from, &to, 1);
        if state.tensors.get(&new).is_none()
            && let Some(Weights { shape, values }) = state.tensors.remove(&name)
        {
            state.tensors.insert(new, shape, values);
        }
    }
}

/// The family whose blocks are most like those of the file; if they are not equal, loading lists what differs.
fn backbone(tensors: &Tensors) -> Backbone {
    let mut blocks: Vec<usize> = Vec::new();
    let mut bottleneck = false;
    for name in tensors.names() {
        let Some(rest) = name.strip_prefix("backbone.layer") else { continue };
        let mut parts = rest.splitn(3, '.');
        let (Some(stage), Some(block), Some(inner)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (Ok(stage), Ok(block)) = (stage.parse::<usize>(), block.parse::<usize>()) else { continue };
        if !(1..=MOST_BLOCKS).contains(&stage) || block >= MOST_BLOCKS {
            continue;
        }
        blocks.resize(blocks.len().max(stage), 0);
        blocks[stage - 1] = blocks[stage - 1].max(block + 1);
        bottleneck |= inner == "conv3.weight";
    }
    let known: [(Backbone, &[usize], bool); 4] = [
        (Backbone::Resnet18, &[2, 2, 2, 2], false),
        (Backbone::Resnet34, &[3, 4, 6, 3], false),
        (Backbone::Resnet50, &[3, 4, 6, 3], true),
        (Backbone::ResnetTiny, &[1, 1, 1], false),
    ];
    let unlike = |wanted: &[usize], thick: bool| {
        let stages = wanted.len().max(blocks.len());
        let at = |list: &[usize], stage: usize| list.get(stage).copied().unwrap_or(0);
        let off: usize = (0..stages).map(|stage| at(wanted, stage).abs_diff(at(&blocks, stage))).sum();
        off + if thick == bottleneck { 0 } else { 2 * MOST_BLOCKS }
    };
    let nearest = known.into_iter().min_by_key(|(_, wanted, thick)| unlike(wanted, *thick));
    nearest.map_or(Backbone::Resnet18, |(backbone, ..)| backbone)
}

/// The projection that the names of its tensors tell.
fn projection(tensors: &Tensors) -> Option<Projection> {
    let outputs = |name: &str| tensors.get(name).and_then(|weights| weights.shape.first().copied());
    let known = [
        (ProjectionKind::Linear, "contrastive_head.weight"),
        (ProjectionKind::MlpNorm, "contrastive_head.3.weight"),
        (ProjectionKind::Mlp, "contrastive_head.2.weight"),
    ];
    known.into_iter().find_map(|(kind, last)| Some(Projection { kind, dim: outputs(last)? }))
}

/// The heads that the names of their tensors tell.
fn heads(state: &State, wanted: &Wanted) -> std::result::Result<Option<Heads>, ImportError> {
    let outputs = |name: String| state.tensors.get(&name).and_then(|weights| weights.shape.first().copied());
    let count = (0..MOST_HEADS)
        .take_while(|h| [".weight", ".2.weight"].iter().any(|last| outputs(format!("cluster_head.{h}{last}")).is_some()))
        .count();
    let hidden = outputs("cluster_head.0.0.weight".into());
    let last = if hidden.is_some() { "cluster_head.0.2.weight" } else { "cluster_head.0.weight" };
    let Some(clusters) = outputs(last.into()) else {
        return match wanted.head {
            Some(head) => Err(ImportError::NoHead { head: head as i64, heads: 0 }),
            None => Ok(None),
        };
    };
    let told = wanted.head.is_none() && state.head.is_some();
    let best = match (wanted.head.map(|head| head as i64).or(state.head), count) {
        (Some(head), _) => head,
        (None, 1) => 0,
        (None, heads) => return Err(ImportError::WhichHead { heads }),
    };
    let Some(best) = usize::try_from(best).ok().filter(|&best| best < count) else {
        return Err(ImportError::NoHead { head: best, heads: count });
    };
    Ok(Some(Heads { count, clusters, hidden, best, told }))
}

impl From<ImportError> for ModelError {
    fn from(error: ImportError) -> Self {
        Self::Import(Box::new(error))
    }
}
