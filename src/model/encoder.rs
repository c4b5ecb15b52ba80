//! From images to features.

use candle_core::{Device, Tensor};

use super::error::{ModelError, Result};
use super::head::ProjectionHead;
use super::norm::Mode;
use super::params::{Builder, Params};
use super::resnet::{Layout, ResNet};
use crate::artifact::encoder::{Architecture, Backbone, EncoderCard, Normalization, Projection, Stem, Tensors};
use crate::base::seed::Seed;

/// The widest first stage that is believed: 16 times the paper's, some 30 GiB of ResNet-50.
const WIDEST: usize = 1024;
/// The largest input side and projection that are believed.
const LARGEST: usize = 65_536;

#[derive(Clone, Debug)]
enum Body {
    ResNet(ResNet),
    /// No network: the input, flattened.
    Pixels,
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
    let mut architecture = Architecture { backbone, stem, width, channels, size, features: 0, projection };
    architecture.features = features(&architecture)?;
    Ok(architecture)
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
    let Some(layout) = layout(architecture) else {
        if architecture.projection.is_some() {
            return wrong("projection", 1, "pixels go without a projection".into());
        }
        return Ok(architecture.channels * architecture.size * architecture.size);
    };
    if !(1..=WIDEST).contains(&architecture.width) {
        return wrong("width", architecture.width, format!("1 to {WIDEST} channels in the first stage"));
    }
    Ok(layout.features())
}

fn layout(architecture: &Architecture) -> Option<Layout> {
    let &Architecture { stem, channels, width, .. } = architecture;
    let of = |blocks: &'static [usize], bottleneck| Some(Layout { stem, channels, width, blocks, bottleneck });
    match architecture.backbone {
        Backbone::Resnet18 => of(&[2, 2, 2, 2], false),
        Backbone::Resnet34 => of(&[3, 4, 6, 3], false),
        Backbone::Resnet50 => of(&[3, 4, 6, 3], true),
        Backbone::ResnetTiny => of(&[1, 1, 1], false),
        Backbone::Pixels => None,
    }
}

impl EncoderNet {
    /// A new network.
    ///
    /// # Errors
    /// [`ModelError::Architecture`] if there is no such network.
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
        let features = features(architecture)?;
        if features != architecture.features {
            return Err(ModelError::Architecture {
                field: "features",
                found: architecture.features.to_string(),
                wanted: format!("this one has {features}"),
            });
        }
        let body = match layout(architecture) {
            Some(layout) => Body::ResNet(builder.within("backbone", |b| ResNet::build(b, &layout))?),
            None => Body::Pixels,
        };
        let projection = match &architecture.projection {
            Some(shape) => Some(builder.within("contrastive_head", |b| ProjectionHead::build(b, features, shape))?),
            None => None,
        };
        Ok(Self { architecture: architecture.clone(), params: builder.finish()?, body, projection, recorded: true })
    }

    /// Its shape.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Its numbers.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// D.
    pub fn dim(&self) -> usize {
        self.architecture.features
    }

    /// The numbers, off the device, in state-dict order.
    ///
    /// # Errors
    /// If the device fails.
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
    ///
    /// # Errors
    /// None in practice: the numbers fit their own network.
    pub fn frozen(&self) -> Result<Self> {
        Self::over(&self.architecture, &self.params, false)
    }

    /// The backbone alone, its numbers shared.
    ///
    /// # Errors
    /// None in practice: the numbers fit their own network.
    pub fn without_projection(&self) -> Result<Self> {
        let architecture = Architecture { projection: None, ..self.architecture.clone() };
        Self::over(&architecture, &self.params.subset(|name| name.starts_with("backbone.")), self.recorded)
    }

    /// An equal network with numbers of its own.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn duplicate(&self) -> Result<Self> {
        Self::over(&self.architecture, &self.params.duplicate()?, true)
    }

    /// What the backbone makes of images. Not normalised.
    ///
    /// # Shapes
    /// `images`: `[B, C, S, S]`, normalised by the card's mean and standard deviation. Returns `[B, D]`. A residual network
    /// takes any S, `pixels` only its own.
    ///
    /// # Errors
    /// [`ModelError::Input`] for another shape, or a single value per channel in [`Mode::Train`].
    pub fn features(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        let Architecture { channels, size, .. } = self.architecture;
        let wrong = |wanted: String| Err(ModelError::Input { wanted, found: images.dims().to_vec() });
        let &[batch, found, height, width] = images.dims() else {
            return wrong(format!("a batch of images `[B, {channels}, S, S]`"));
        };
        if found != channels || batch == 0 || height == 0 || width == 0 {
            return wrong(format!("at least one image of {channels} channels, `[B, {channels}, S, S]`"));
        }
        match &self.body {
            Body::ResNet(net) => net.forward(images, mode),
            Body::Pixels if (height, width) != (size, size) => wrong(format!("pixels of {size} × {size}")),
            Body::Pixels => Ok(images.flatten_from(1)?),
        }
    }

    /// What the projection head makes of features: rows of unit length.
    ///
    /// # Shapes
    /// `features`: `[B, D]`. Returns `[B, P]`.
    ///
    /// # Errors
    /// [`ModelError::Absent`] without a projection head.
    pub fn project(&self, features: &Tensor) -> Result<Tensor> {
        let head = self.projection.as_ref().ok_or(ModelError::Absent { part: "projection head" })?;
        head.forward(features)
    }
}
