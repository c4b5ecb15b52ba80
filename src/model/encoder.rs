//! Encoders: networks from images to features.

use candle_core::{DType, Device, Tensor};

use super::alexnet::{self, AlexNet};
use super::error::{ModelError, Result};
use super::graph::GraphNet;
use super::head::ProjectionHead;
use super::norm::Mode;
use super::params::{Builder, Params};
use super::resnet::{Layout, ResNet};
use super::vit::Vit;
use kinset_artifact::encoder::{Architecture, Backbone, EncoderCard, Normalization, Projection, Stem, Tensors, Transformer};
use kinset_base::seed::Seed;
use kinset_kernel::{avg_pool2d, l2_normalize};

/// The widest first stage that is accepted: 16 times the paper's, some 30 GiB of ResNet-50.
const WIDEST: usize = 1024;
/// Numbers that remain of the map of an inner layer: about as many as the usual linear evaluation of layers leaves (9,000 to 9,600).
const MOST_INNER: usize = 10_000;
/// The largest input side and projection that are accepted.
const LARGEST: usize = 65_536;

#[derive(Clone, Debug)]
enum Body {
    ResNet(ResNet),
    AlexNet(AlexNet),
    Vit(Box<Vit>),
    Graph(GraphNet),
    /// No network: the input, flattened.
    Pixels,
    /// No network and no input: what it would make is there already.
    Features,
}

/// A backbone and, on top of it, a projection head if the architecture has one.
///
/// Cloning shares the numbers; so do [`EncoderNet::frozen`] and [`EncoderNet::without_projection`].
/// [`EncoderNet::duplicate`] makes new ones.
#[derive(Clone, Debug)]
pub struct EncoderNet {
    architecture: Architecture,
    params: Params,
    body: Body,
    projection: Option<ProjectionHead>,
    recorded: bool,
}

/// An architecture with its number of features filled in.
///
/// # Errors
/// [`ModelError::Architecture`] names the setting that does not fit.
pub fn architecture(
    backbone: Backbone,
    stem: Stem,
    width: usize,
    channels: usize,
    size: usize,
    projection: Option<Projection>,
) -> Result<Architecture> {
    let mut architecture =
        Architecture { backbone, stem, width, channels, size, features: 0, projection, transformer: None, graph: None };
    architecture.features = features(&architecture)?;
    Ok(architecture)
}

/// A vision transformer of tokens of this width, for color images of this size.
///
/// # Errors
/// [`ModelError::Architecture`] names the setting that does not fit.
pub fn tower(shape: Transformer, width: usize, size: usize) -> Result<Architecture> {
    let (backbone, stem, transformer) = (Backbone::Vit, Stem::Imagenet, Some(shape));
    let mut architecture =
        Architecture { backbone, stem, width, channels: 3, size, features: 0, projection: None, transformer, graph: None };
    architecture.features = features(&architecture)?;
    Ok(architecture)
}

/// What stands for an encoder under heads on features that were made elsewhere.
///
/// # Errors
/// [`ModelError::Architecture`] for features without numbers, or of too many.
pub fn features_alone(dim: usize) -> Result<Architecture> {
    let (backbone, stem) = (Backbone::Features, Stem::Cifar);
    let architecture = Architecture {
        backbone,
        stem,
        width: 1,
        channels: 1,
        size: 1,
        features: dim,
        projection: None,
        transformer: None,
        graph: None,
    };
    features(&architecture).map(|_| architecture)
}

/// Checks the settings; returns D.
fn features(architecture: &Architecture) -> Result<usize> {
    let wrong = |field: &'static str, found: usize, wanted: String| {
        Err(ModelError::Architecture { field, found: found.to_string(), wanted })
    };
    if !matches!(architecture.channels, 1 | 3) {
        return wrong("channels", architecture.channels, "1 (gray) or 3 (color)".into());
    }
    if !(1..=LARGEST).contains(&architecture.size) {
        return wrong("size", architecture.size, format!("1 to {LARGEST} pixels"));
    }
    if let Some(projection) = &architecture.projection
        && !(1..=LARGEST).contains(&projection.dim)
    {
        return wrong("projection.dim", projection.dim, format!("1 to {LARGEST}"));
    }
    if let Some(shape) = &architecture.transformer {
        return Vit::features(architecture, shape);
    }
    if architecture.backbone == Backbone::Vit {
        return wrong("backbone", 0, "a published transformer has a shape: read it with the stage `frozen`".into());
    }
    if matches!(architecture.backbone, Backbone::Features | Backbone::Graph) {
        return match architecture.features {
            dim @ 1..=LARGEST if architecture.projection.is_none() => Ok(dim),
            dim => wrong("features", dim, format!("1 to {LARGEST} numbers, without a projection")),
        };
    }
    if !(1..=WIDEST).contains(&architecture.width) && architecture.backbone != Backbone::Pixels {
        return wrong("width", architecture.width, format!("1 to {WIDEST} channels in the first stage"));
    }
    if let Some(layout) = alexnet(architecture) {
        if !matches!(layout.stem, Stem::Cifar | Stem::Imagenet) {
            return Err(ModelError::Architecture {
                field: "stem",
                found: layout.stem.word().into(),
                wanted: "`cifar` or `imagenet`, the two forms of AlexNet".into(),
            });
        }
        if layout.dense().is_none() {
            let least = if layout.stem == Stem::Cifar { 8 } else { 63 };
            let most = "and so few that its first fully connected layer has at most 2,147,483,648 weights";
            return wrong("size", layout.size, format!("at least {least} pixels, {most}"));
        }
        return Ok(layout.features());
    }
    let Some(layout) = layout(architecture) else {
        if architecture.projection.is_some() {
            return wrong("projection", 1, "pixels go without a projection".into());
        }
        return Ok(architecture.channels * architecture.size * architecture.size);
    };
    Ok(layout.features())
}

/// The same, and that the card knows D.
pub(super) fn check(architecture: &Architecture) -> Result<usize> {
    match features(architecture)? {
        features if features == architecture.features => Ok(features),
        features => Err(ModelError::Architecture {
            field: "features",
            found: architecture.features.to_string(),
            wanted: format!("this one has {features}"),
        }),
    }
}

/// The layers of a residual network, if it is one.
pub(super) fn layout(architecture: &Architecture) -> Option<Layout> {
    let &Architecture { stem, channels, width, .. } = architecture;
    let of = |blocks: &'static [usize], bottleneck| Some(Layout { stem, channels, width, blocks, bottleneck });
    match architecture.backbone {
        Backbone::Resnet18 => of(&[2, 2, 2, 2], false),
        Backbone::Resnet34 => of(&[3, 4, 6, 3], false),
        Backbone::Resnet50 => of(&[3, 4, 6, 3], true),
        Backbone::ResnetTiny => of(&[1, 1, 1], false),
        Backbone::Alexnet | Backbone::Pixels | Backbone::Vit | Backbone::Graph | Backbone::Features => None,
    }
}

/// The layers of an AlexNet, if it is one.
pub(super) fn alexnet(architecture: &Architecture) -> Option<alexnet::Layout> {
    let &Architecture { stem, channels, width, size, .. } = architecture;
    (architecture.backbone == Backbone::Alexnet).then_some(alexnet::Layout { stem, channels, width, size })
}

/// A map with as many numbers per image as an inner layer may have.
///
/// # Shapes
/// `[B, C, H, W]` → `[B, C·⌊H/w⌋·⌊W/w⌋]` for windows of w × w pixels.
fn averaged(map: &Tensor) -> Result<Tensor> {
    let (_, channels, height, width) = map.dims4()?;
    let most = height.min(width);
    let window = (1..most).find(|w| channels * (height / w) * (width / w) <= MOST_INNER).unwrap_or(most);
    if window == 1 {
        return Ok(map.flatten_from(1)?);
    }
    let (rows, columns) = (height / window * window, width / window * window);
    let seen = map.narrow(2, (height - rows) / 2, rows)?.narrow(3, (width - columns) / 2, columns)?.contiguous()?;
    Ok(avg_pool2d(&seen, window, window)?.flatten_from(1)?)
}

impl EncoderNet {
    pub fn init(architecture: &Architecture, seed: Seed, device: &Device) -> Result<Self> {
        Self::build(architecture, Builder::fresh(seed, device))
    }

    /// A network from its card and numbers. Names and shapes must agree both ways.
    ///
    /// # Errors
    /// [`ModelError::Architecture`], [`ModelError::Weights`] with all that is missing, unexpected or of another shape,
    /// [`ModelError::NotFinite`].
    pub fn from_tensors(card: &EncoderCard, tensors: &Tensors, device: &Device) -> Result<Self> {
        Self::build(&card.architecture, Builder::restored(tensors, device)?)
    }

    /// The network that these numbers, shared with it, make up.
    fn over(architecture: &Architecture, params: &Params, recorded: bool) -> Result<Self> {
        Ok(Self { recorded, ..Self::build(architecture, Builder::shared(params, recorded))? })
    }

    fn build(architecture: &Architecture, mut builder: Builder) -> Result<Self> {
        let features = check(architecture)?;
        let body = match (layout(architecture), &architecture.transformer) {
            (Some(layout), _) => Body::ResNet(builder.within("backbone", |b| ResNet::build(b, &layout))?),
            (None, Some(shape)) => {
                Body::Vit(Box::new(builder.within("backbone", |b| Vit::build(b, shape, architecture.width))?))
            }
            (None, None) if architecture.graph.is_some() => {
                let Some(graph) = &architecture.graph else { unreachable!("it is there") };
                Body::Graph(builder.within("backbone", |b| GraphNet::build(b, graph))?)
            }
            (None, None) if architecture.backbone == Backbone::Features => Body::Features,
            (None, None) => match alexnet(architecture).and_then(|layout| Some((layout, layout.dense()?))) {
                Some((layout, dense)) => Body::AlexNet(builder.within("backbone", |b| AlexNet::build(b, &layout, dense))?),
                None => Body::Pixels,
            },
        };
        let projection = match &architecture.projection {
            Some(shape) => Some(builder.within("contrastive_head", |b| ProjectionHead::build(b, features, shape))?),
            None => None,
        };
        Ok(Self { architecture: architecture.clone(), params: builder.finish()?, body, projection, recorded: true })
    }

    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    pub fn params(&self) -> &Params {
        &self.params
    }

    /// D.
    pub fn dim(&self) -> usize {
        self.architecture.features
    }

    /// The numbers, off the device.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] if training diverged; if the device fails.
    pub fn to_tensors(&self) -> Result<Tensors> {
        self.params.to_tensors()
    }

    /// All about it but its numbers.
    pub fn card(&self, normalization: Normalization) -> EncoderCard {
        EncoderCard {
            architecture: self.architecture.clone(),
            normalization,
            parameters: self.params.parameters().map(|(name, _)| name.to_owned()).collect(),
            buffers: self.params.buffers().map(|(name, _)| name.to_owned()).collect(),
        }
    }

    /// The same numbers, seen without recording: no gradient reaches them and no graph is kept, in either mode. In
    /// [`Mode::Train`] the running statistics still move, for both.
    pub fn frozen(&self) -> Result<Self> {
        Self::over(&self.architecture, &self.params, false)
    }

    /// The backbone alone, its numbers shared.
    pub fn without_projection(&self) -> Result<Self> {
        let architecture = Architecture { projection: None, ..self.architecture.clone() };
        Self::over(&architecture, &self.params.subset(|name| name.starts_with("backbone.")), self.recorded)
    }

    /// An equal network with numbers of its own.
    pub fn duplicate(&self) -> Result<Self> {
        Self::over(&self.architecture, &self.params.duplicate()?, true)
    }

    /// What the backbone makes of images. Not normalized.
    ///
    /// # Shapes
    /// `images`: `[B, C, S, S]`, normalised by the card's mean and standard deviation. Returns `[B, D]`. A residual network
    /// takes any S, a transformer any multiple of its patch, `alexnet` and `pixels` only their own.
    ///
    /// # Errors
    /// [`ModelError::Input`] for another shape, or a single value per channel in [`Mode::Train`].
    pub fn features(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        self.check_images(images)?;
        match &self.body {
            Body::ResNet(net) => net.forward(images, mode),
            Body::AlexNet(net) => net.forward(images, mode),
            Body::Vit(net) => net.forward(images),
            Body::Graph(net) => {
                let (batch, features) = (images.dim(0)?, net.forward(images)?);
                if features.dims() == [batch, self.dim()] {
                    return Ok(features);
                }
                let wanted = format!("a graph that makes `[{batch}, {}]` of {batch} pictures", self.dim());
                Err(ModelError::Input { wanted, found: features.dims().to_vec() })
            }
            Body::Features => Err(ModelError::NoImages),
            Body::Pixels => Ok(images.flatten_from(1)?),
        }
    }

    /// Names of the layers that [`EncoderNet::inner`] knows, from the first to the last: `conv1` and the blocks `layer1.0`, … of a
    /// residual network, `conv1` to `fc2` of AlexNet, `blocks.0`, … of a transformer, none of others.
    pub fn layers(&self) -> Vec<String> {
        match &self.body {
            Body::ResNet(net) => net.layers(),
            Body::AlexNet(net) => net.layers(),
            Body::Vit(net) => net.layers(),
            Body::Graph(_) | Body::Pixels | Body::Features => Vec::new(),
        }
    }

    /// What a layer inside the backbone makes of images, by its place in [`EncoderNet::layers`]: a map after its ReLU and before a
    /// pooling, a fully connected layer's output, a transformer's class token.
    ///
    /// A map of more than 10,000 numbers is averaged over the smallest square windows that leave at most so many; what does not fill a
    /// window is cut off around it.
    ///
    /// # Shapes
    /// `images` as in [`EncoderNet::features`]. Returns `[B, D']`.
    ///
    /// # Paper
    /// Zhang, Isola and Efros 2016, "Colorful image colorization", section 3.2: linear classifiers on layers of AlexNet, each reduced to
    /// about 9,000 numbers.
    ///
    /// # Errors
    /// As [`EncoderNet::features`]; [`ModelError::Absent`] for a layer that is not there.
    pub fn inner(&self, images: &Tensor, layer: usize) -> Result<Tensor> {
        let made = self.made(images, layer)?;
        if made.dims().len() == 2 { Ok(made) } else { averaged(&made) }
    }

    /// The same as the layer makes it.
    pub(super) fn made(&self, images: &Tensor, layer: usize) -> Result<Tensor> {
        self.check_images(images)?;
        if layer >= self.layers().len() {
            return Err(ModelError::Absent { part: "such layer" });
        }
        match &self.body {
            Body::ResNet(net) => net.until(images, Mode::Eval, layer),
            Body::AlexNet(net) => net.until(images, Mode::Eval, layer),
            Body::Vit(net) => net.until(images, Some(layer)),
            Body::Graph(_) | Body::Pixels | Body::Features => unreachable!("they have no named layers"),
        }
    }

    /// Numbers per image of a layer, D'.
    ///
    /// # Errors
    /// As [`EncoderNet::inner`].
    pub fn inner_dim(&self, layer: usize) -> Result<usize> {
        let Architecture { channels, size, .. } = self.architecture;
        let device = self.params.iter().next().map_or(Device::Cpu, |(_, _, var)| var.device().clone());
        let one = Tensor::zeros((1, channels, size, size), DType::F32, &device)?;
        Ok(self.frozen()?.inner(&one, layer)?.dim(1)?)
    }

    /// Whether images are what the backbone takes.
    fn check_images(&self, images: &Tensor) -> Result<()> {
        let Architecture { channels, size, .. } = self.architecture;
        let wrong = |wanted: String| Err(ModelError::Input { wanted, found: images.dims().to_vec() });
        let &[batch, found, height, width] = images.dims() else {
            return wrong(format!("a batch of images `[B, {channels}, S, S]`"));
        };
        if matches!(self.body, Body::Features) {
            return Err(ModelError::NoImages);
        }
        if found != channels || batch == 0 || height == 0 || width == 0 {
            return wrong(format!("at least one image of {channels} channels, `[B, {channels}, S, S]`"));
        }
        match &self.body {
            Body::AlexNet(_) | Body::Graph(_) if (height, width) != (size, size) => {
                wrong(format!("pictures of {size} × {size} pixels"))
            }
            Body::Pixels if (height, width) != (size, size) => wrong(format!("pixels of {size} × {size}")),
            _ => Ok(()),
        }
    }

    /// What the projection head makes of features: rows of unit length. The mode matters to heads with batch norm.
    ///
    /// # Shapes
    /// `features`: `[B, D]`. Returns `[B, P]`.
    ///
    /// # Errors
    /// [`ModelError::Absent`] without a projection head.
    pub fn project(&self, features: &Tensor, mode: Mode) -> Result<Tensor> {
        Ok(l2_normalize(&self.projection(features, mode)?)?)
    }

    /// As [`EncoderNet::project`], before rows are brought to unit length: what a prediction head reads.
    pub fn projection(&self, features: &Tensor, mode: Mode) -> Result<Tensor> {
        let head = self.projection.as_ref().ok_or(ModelError::Absent { part: "projection head" })?;
        head.forward(features, mode)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;
    use rayon::ThreadPoolBuilder;

    use super::super::params::values;
    use super::*;
    use crate::testing::{assert_near, fill, noisy, wave};
    use crate::{Mismatch, Role};
    use kinset_artifact::encoder::ProjectionKind;

    const MLP: Option<Projection> = Some(Projection { kind: ProjectionKind::Mlp, dim: 128 });

    fn new(backbone: Backbone, stem: Stem, width: usize, channels: usize, projection: Option<Projection>) -> EncoderNet {
        let shape = architecture(backbone, stem, width, channels, 32, projection).unwrap();
        EncoderNet::init(&shape, Seed::new(1), &Device::Cpu).unwrap()
    }

    fn tiny() -> EncoderNet {
        new(Backbone::ResnetTiny, Stem::Cifar, 4, 1, Some(Projection { kind: ProjectionKind::Mlp, dim: 5 }))
    }

    fn normalization() -> Normalization {
        Normalization::new(vec![0.5], vec![0.5])
    }

    // methods/scan.md sections 2.1, 8.2 and 10.

    #[test]
    fn resnet_18_has_the_size_and_names_of_the_published_files() {
        let net = new(Backbone::Resnet18, Stem::Cifar, 64, 3, MLP);
        assert_eq!(net.params().size(), 11_497_152);
        assert_eq!(net.without_projection().unwrap().params().size(), 11_168_832);
        // 124 in the file, 20 of them counters that we do without.
        assert_eq!(net.params().len(), 104);
        let shape = |name: &str| net.params().get(name).unwrap().dims().to_vec();
        assert_eq!(shape("backbone.conv1.weight"), [64, 3, 3, 3]);
        assert_eq!(shape("backbone.layer2.0.shortcut.0.weight"), [128, 64, 1, 1]);
        assert_eq!(shape("backbone.layer4.1.bn2.running_var"), [512]);
        assert_eq!(shape("contrastive_head.2.weight"), [128, 512]);
        assert!(net.params().get("backbone.layer1.0.shortcut.0.weight").is_none());
        assert_eq!(new(Backbone::Resnet18, Stem::Stl, 64, 3, MLP).params().size(), 11_497_152);
    }

    #[test]
    fn resnet_50_has_the_size_and_names_of_torchvision() {
        let net = new(Backbone::Resnet50, Stem::Imagenet, 64, 3, MLP);
        assert_eq!((net.params().size(), net.dim()), (27_966_656, 2048));
        assert_eq!(net.without_projection().unwrap().params().size(), 23_508_032);
        // 322 in the file, 53 of them counters.
        assert_eq!(net.params().len(), 269);
        let shape = |name: &str| net.params().get(name).unwrap().dims().to_vec();
        assert_eq!(shape("backbone.conv1.weight"), [64, 3, 7, 7]);
        assert_eq!(shape("backbone.layer1.0.downsample.0.weight"), [256, 64, 1, 1]);
        assert_eq!(shape("backbone.layer4.2.conv3.weight"), [2048, 512, 1, 1]);
    }

    #[test]
    fn the_cifar_network_gives_the_reference_numbers() {
        let net = new(Backbone::Resnet18, Stem::Cifar, 64, 3, MLP);
        reference(
            &net,
            32,
            &[0.0851422, 0.1017941, 0.0692543, 0.0456446],
            57.69957,
            [0.0720619, 0.0122954, -0.0519982, -0.1029711],
        );
    }

    #[test]
    fn the_stl_network_gives_the_reference_numbers() {
        let net = new(Backbone::Resnet18, Stem::Stl, 64, 3, MLP);
        reference(
            &net,
            96,
            &[0.0917356, 0.0982922, 0.0640810, 0.0397652],
            59.41931,
            [0.0719617, 0.0121947, -0.0520924, -0.1030532],
        );
    }

    fn reference(net: &EncoderNet, size: usize, row: &[f64], sum: f64, head: [f64; 4]) {
        fill(net.params());
        let features = net.features(&wave(&[2, 3, size, size], 0.01, 0.0, 1.0), Mode::Eval).unwrap();
        let found = values(&features).unwrap();
        assert_near("features", &found[..4], row, 1e-6);
        let total: f64 = found.iter().map(|&v| f64::from(v)).sum();
        assert!((total - sum).abs() < 2e-4, "{total} is not {sum}");
        let projected = values(&net.project(&features, Mode::Eval).unwrap()).unwrap();
        assert_near("head", &projected[128..132], &head, 1e-6);
    }

    #[test]
    fn every_stem_and_body_gives_features_of_its_dimension_at_any_size() {
        for (backbone, stem) in [
            (Backbone::Resnet18, Stem::Cifar),
            (Backbone::Resnet34, Stem::Stl),
            (Backbone::Resnet50, Stem::Imagenet),
            (Backbone::ResnetTiny, Stem::Strided),
            (Backbone::ResnetTiny, Stem::Cifar),
        ] {
            let net = new(backbone, stem, 2, 1, None);
            for size in [8, 13, 28] {
                let images = wave(&[2, 1, size, size], 0.1, 0.0, 1.0);
                for mode in [Mode::Train, Mode::Eval] {
                    let features = net.features(&images, mode).unwrap();
                    assert_eq!(features.dims(), [2, net.dim()], "{backbone:?} {stem:?} {size}");
                }
            }
        }
    }

    #[test]
    fn one_layer_more_or_another_head_moves_no_other_weight() {
        let start = |net: &EncoderNet, name: &str| values(net.params().get(name).unwrap()).unwrap();
        let (eighteen, fifty_less) =
            (new(Backbone::Resnet18, Stem::Cifar, 8, 1, None), new(Backbone::ResnetTiny, Stem::Cifar, 8, 1, MLP));
        for name in ["backbone.conv1.weight", "backbone.layer2.0.conv1.weight", "backbone.layer3.0.shortcut.0.weight"] {
            assert_eq!(start(&eighteen, name), start(&fifty_less, name), "{name}");
        }
    }

    #[test]
    fn a_network_survives_its_tensors() {
        let net = tiny();
        let images = wave(&[4, 1, 8, 8], 0.05, 0.0, 1.0);
        net.features(&images, Mode::Train).unwrap();
        let card = net.card(normalization());
        assert_eq!(card.parameters.len() + card.buffers.len(), net.params().len());
        assert!(card.buffers.iter().all(|name| name.contains("running_")));
        let again = EncoderNet::from_tensors(&card, &net.to_tensors().unwrap(), &Device::Cpu).unwrap();
        assert_eq!(again.to_tensors().unwrap(), net.to_tensors().unwrap());
        let output =
            |net: &EncoderNet| values(&net.project(&net.features(&images, Mode::Eval).unwrap(), Mode::Eval).unwrap()).unwrap();
        assert_eq!(output(&net), output(&again));
    }

    #[test]
    fn loading_lists_all_that_is_missing_unexpected_or_of_another_shape() {
        let net = tiny();
        let mut tensors = net.to_tensors().unwrap();
        tensors.remove("backbone.conv1.weight");
        tensors.remove("backbone.bn1.running_mean");
        tensors.insert("backbone.fc.weight", vec![1], vec![0.0]);
        tensors.insert("contrastive_head.2.bias", vec![7], vec![0.0; 7]);
        let Err(ModelError::Weights(found)) = EncoderNet::from_tensors(&net.card(normalization()), &tensors, &Device::Cpu)
        else {
            panic!("it was loaded")
        };
        assert_eq!(
            found,
            Mismatch {
                missing: vec!["backbone.conv1.weight".into(), "backbone.bn1.running_mean".into()],
                unexpected: vec!["backbone.fc.weight".into()],
                misshapen: vec![("contrastive_head.2.bias".into(), vec![5], vec![7])],
                file: None,
            }
        );
    }

    #[test]
    fn a_card_that_claims_too_much_is_refused_before_memory_is_taken() {
        let mut card = tiny().card(normalization());
        card.architecture.width = 1024;
        card.architecture.backbone = Backbone::Resnet50;
        card.architecture.features = 32 * 1024;
        let result = EncoderNet::from_tensors(&card, &tiny().to_tensors().unwrap(), &Device::Cpu);
        assert!(matches!(result, Err(ModelError::Weights(_))));
        card.architecture.width = usize::MAX / 2;
        let result = EncoderNet::from_tensors(&card, &tiny().to_tensors().unwrap(), &Device::Cpu);
        assert!(matches!(result, Err(ModelError::Architecture { field: "width", .. })));
        let four = architecture(Backbone::Resnet18, Stem::Cifar, 8, 4, 32, None);
        assert!(matches!(four, Err(ModelError::Architecture { field: "channels", .. })));
    }

    #[test]
    fn images_that_do_not_fit_are_an_error() {
        let net = tiny();
        for shape in [&[2, 3, 8, 8][..], &[0, 1, 8, 8], &[2, 8, 8], &[2, 1, 0, 8]] {
            let images = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
            assert!(matches!(net.features(&images, Mode::Eval), Err(ModelError::Input { .. })), "{shape:?}");
        }
    }

    #[test]
    fn inner_layers_have_names_and_the_last_of_a_residual_network_averages_to_its_features() {
        let net = tiny();
        assert_eq!(net.layers(), ["conv1", "layer1.0", "layer2.0", "layer3.0"]);
        let images = wave(&[2, 1, 8, 8], 0.1, 0.0, 1.0);
        let dims: Vec<usize> = (0..4).map(|layer| net.inner(&images, layer).unwrap().dim(1).unwrap()).collect();
        assert_eq!(dims, [4 * 64, 4 * 64, 8 * 16, 16 * 4]);
        let last = net.made(&images, 3).unwrap().flatten_from(2).unwrap().mean(2).unwrap();
        let features: Vec<f64> =
            values(&net.features(&images, Mode::Eval).unwrap()).unwrap().iter().map(|&v| v.into()).collect();
        assert_near("last", &values(&last).unwrap(), &features, 1e-6);
        assert_eq!(net.inner_dim(2).unwrap(), 8 * 16 * 16, "of images of its own 32 pixels");
        assert!(matches!(net.inner(&images, 4), Err(ModelError::Absent { .. })));
        assert!(net.inner(&wave(&[2, 3, 8, 8], 0.1, 0.0, 1.0), 0).is_err(), "other channels");
    }

    #[test]
    fn a_large_map_is_averaged_over_the_smallest_windows_that_leave_few_enough_numbers() {
        let map = wave(&[2, 200, 15, 17], 0.37, 0.1, 1.0);
        let small = averaged(&map).unwrap();
        // 2 × 2 would leave 200 · 7 · 8 = 11,200.
        assert_eq!(small.dims(), [2, 200 * 5 * 5]);
        let all = values(&map).unwrap();
        // Two of 17 columns are cut off, one on each side.
        let wanted: f32 =
            (0..3).flat_map(|row| (1..4).map(move |column| row * 17 + column)).map(|at| all[at]).sum::<f32>() / 9.0;
        assert!((values(&small).unwrap()[0] - wanted).abs() < 1e-6);
        assert_eq!(averaged(&map.narrow(1, 0, 39).unwrap()).unwrap().dims(), [2, 39 * 255], "as it is");
        assert_eq!(averaged(&wave(&[1, 3, 1, 1], 0.3, 0.0, 1.0)).unwrap().dims(), [1, 3]);
    }

    #[test]
    fn pixels_are_their_own_features() {
        let shape = architecture(Backbone::Pixels, Stem::Cifar, 64, 1, 4, None).unwrap();
        let net = EncoderNet::init(&shape, Seed::new(1), &Device::Cpu).unwrap();
        let images = wave(&[3, 1, 4, 4], 0.3, 0.0, 1.0);
        let features = net.features(&images, Mode::Eval).unwrap();
        assert_eq!((features.dims(), net.dim(), net.params().len()), (&[3, 16][..], 16, 0));
        assert_eq!(values(&features).unwrap(), values(&images).unwrap());
        assert!(net.features(&wave(&[3, 1, 5, 5], 0.3, 0.0, 1.0), Mode::Eval).is_err());
        assert!(matches!(net.project(&features, Mode::Eval), Err(ModelError::Absent { .. })));
    }

    #[test]
    fn a_frozen_network_records_nothing_but_moves_its_statistics() {
        let net = tiny();
        let frozen = net.frozen().unwrap();
        let images = wave(&[4, 1, 8, 8], 0.05, 0.0, 1.0);
        let mean = || values(net.params().get("backbone.bn1.running_mean").unwrap()).unwrap();
        let before = mean();
        let features = frozen.features(&images, Mode::Train).unwrap();
        assert_ne!(mean(), before, "the statistics stood still");
        assert!(!features.track_op() && !frozen.project(&features, Mode::Train).unwrap().track_op());
        assert!(!frozen.features(&images, Mode::Eval).unwrap().track_op());
        assert!(net.features(&images, Mode::Eval).unwrap().track_op());
        // The numbers are shared, those of a duplicate are not.
        let apart = net.duplicate().unwrap();
        let weight = net.params().get("backbone.conv1.weight").unwrap();
        weight.set(&weight.as_detached_tensor().zeros_like().unwrap()).unwrap();
        let first = |net: &EncoderNet| values(net.params().get("backbone.conv1.weight").unwrap()).unwrap()[0];
        assert!(first(&frozen) == 0.0 && first(&apart) != 0.0);
    }

    /// A network of another precision, which runs on candle's own operations.
    fn wide(net: &EncoderNet) -> EncoderNet {
        let mut params = Params::new();
        for (name, role, var) in net.params().iter() {
            let var = Var::from_tensor(&var.as_detached_tensor().to_dtype(DType::F64).unwrap()).unwrap();
            params.push(name, role, var).unwrap();
        }
        EncoderNet::over(&net.architecture, &params, true).unwrap()
    }

    /// Any smooth function of the output that treats no two numbers alike.
    fn loss(net: &EncoderNet, images: &Tensor, mode: Mode) -> Tensor {
        let output = net.project(&net.features(images, mode).unwrap(), mode).unwrap();
        let weights = wave(output.dims(), 1.1, 0.4, 1.0).to_dtype(output.dtype()).unwrap();
        (output * weights).unwrap().sum_all().unwrap()
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let projection = Some(Projection { kind: ProjectionKind::Linear, dim: 5 });
        let alexnet = architecture(Backbone::Alexnet, Stem::Cifar, 1, 1, 8, projection).unwrap();
        let alexnet = EncoderNet::init(&alexnet, Seed::new(1), &Device::Cpu).unwrap();
        let images = wave(&[4, 1, 8, 8], 0.05, 0.3, 1.0).to_dtype(DType::F64).unwrap();
        let both = [Mode::Train, Mode::Eval].map(|mode| [(wide(&tiny()), mode), (wide(&alexnet), mode)]);
        for (net, mode) in both.into_iter().flatten() {
            let value = || loss(&net, &images, mode).to_scalar::<f64>().unwrap();
            let grads = loss(&net, &images, mode).backward().unwrap();
            for (name, var) in net.params().parameters() {
                let start = var.as_detached_tensor().copy().unwrap();
                let gradient = grads.get(var.as_tensor()).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
                let flat = start.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                for at in [0, flat.len() / 2, flat.len() - 1] {
                    let moved = |by: f64| {
                        let mut flat = flat.clone();
                        flat[at] += by;
                        var.set(&Tensor::from_vec(flat, start.shape(), &Device::Cpu).unwrap()).unwrap();
                        value()
                    };
                    let h = 1e-6;
                    let slope = (moved(h) - moved(-h)) / (2.0 * h);
                    let off = (slope - gradient[at]).abs() / slope.abs().max(1e-2);
                    assert!(off < 1e-4, "{mode:?} {name}[{at}]: {} is not {slope}", gradient[at]);
                }
                var.set(&start).unwrap();
            }
        }
    }

    #[test]
    fn the_fast_operations_give_the_gradients_of_the_precise_ones() {
        let residual = [Stem::Cifar, Stem::Strided, Stem::Stl, Stem::Imagenet].map(|stem| (Backbone::ResnetTiny, stem, 12));
        let plain = [(Backbone::Alexnet, Stem::Cifar, 17), (Backbone::Alexnet, Stem::Imagenet, 70)];
        for (backbone, stem, size) in residual.into_iter().chain(plain) {
            let projection = Some(Projection { kind: ProjectionKind::Mlp, dim: 5 });
            let shape = architecture(backbone, stem, 4, 1, size, projection).unwrap();
            let net = EncoderNet::init(&shape, Seed::new(1), &Device::Cpu).unwrap();
            let precise = wide(&net);
            // Noise, for a large AlexNet: on a wave poolings have near-ties, which rounding decides.
            let images = if size == 70 { noisy(&[4, 1, size, size], 7) } else { wave(&[4, 1, size, size], 0.05, 0.3, 1.0) };
            let fast = loss(&net, &images, Mode::Train).backward().unwrap();
            let slow = loss(&precise, &images.to_dtype(DType::F64).unwrap(), Mode::Train).backward().unwrap();
            for ((name, var), (_, other)) in net.params().parameters().zip(precise.params().parameters()) {
                let found = values(fast.get(var.as_tensor()).unwrap()).unwrap();
                let wanted = slow.get(other.as_tensor()).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
                let scale = wanted.iter().fold(1e-3_f64, |most, v| most.max(v.abs()));
                // A bias before batch norm has no effect: its gradient is what rounding leaves.
                let scale = if wanted.iter().all(|v| v.abs() < 1e-9) { 1.0 } else { scale };
                for (found, wanted) in found.iter().zip(&wanted) {
                    assert!((f64::from(*found) - wanted).abs() < 2e-4 * scale, "{stem:?} {name}: {found} is not {wanted}");
                }
            }
            for ((name, var), (_, other)) in net.params().buffers().zip(precise.params().buffers()) {
                let wanted = other.to_vec1::<f64>().unwrap();
                assert_near(name, &values(var).unwrap(), &wanted, 1e-6);
            }
        }
    }

    #[test]
    fn the_bits_of_a_step_do_not_depend_on_the_number_of_threads() {
        let step = |threads: usize| -> Vec<Vec<f32>> {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let net = new(Backbone::ResnetTiny, Stem::Strided, 8, 3, MLP);
                let images = wave(&[16, 3, 20, 20], 0.013, 0.3, 1.0);
                let grads = loss(&net, &images, Mode::Train).backward().unwrap();
                let gradients = net.params().parameters().map(|(_, var)| values(grads.get(var.as_tensor()).unwrap()).unwrap());
                let buffers = net.params().iter().filter(|&(_, role, _)| role == Role::Buffer);
                gradients.chain(buffers.map(|(_, _, var)| values(var).unwrap())).collect()
            })
        };
        assert_eq!(step(1), step(3));
    }
}
