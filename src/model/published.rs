//! Published frozen encoders by name: their architectures, and the preprocessing of pictures before them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::encoder::{architecture, tower};
use super::error::Result;
use kinset_artifact::encoder::{Architecture, Backbone, Family, Filter, Normalization, Resize, Stem, Transformer};
use kinset_stage::Complaint;

/// A published network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Published {
    /// DINOv2, ViT-S/14: 384 features.
    #[default]
    #[serde(rename = "dinov2_vits14")]
    Dinov2Small,
    /// DINOv2, ViT-B/14: 768 features.
    #[serde(rename = "dinov2_vitb14")]
    Dinov2Base,
    /// DINOv2, ViT-L/14: 1024 features.
    #[serde(rename = "dinov2_vitl14")]
    Dinov2Large,
    /// DINOv2 with four registers, ViT-S/14.
    #[serde(rename = "dinov2_vits14_reg")]
    Dinov2SmallRegisters,
    /// DINOv2 with four registers, ViT-B/14.
    #[serde(rename = "dinov2_vitb14_reg")]
    Dinov2BaseRegisters,
    /// DINOv2 with four registers, ViT-L/14.
    #[serde(rename = "dinov2_vitl14_reg")]
    Dinov2LargeRegisters,
    /// CLIP's image encoder, ViT-B/32: 512 features.
    #[serde(rename = "clip_vit_b32")]
    ClipBase32,
    /// CLIP's image encoder, ViT-B/16: 512 features.
    #[serde(rename = "clip_vit_b16")]
    ClipBase16,
    /// CLIP's image encoder, ViT-L/14: 768 features.
    #[serde(rename = "clip_vit_l14")]
    ClipLarge14,
    /// ResNet-50 of torchvision: 2048 features.
    #[serde(rename = "resnet50")]
    Resnet50,
}

kinset_stage::settings! {
    /// A published network, and where it differs from the one of its name.
    #[derive(PartialEq)]
    pub struct TowerSettings {
        /// Its name.
        backbone: Published = Published::default();
        /// Width of the tokens (of the first stage, for a residual network); unset: the named network's.
        width: Option<usize> = None;
        /// Blocks; unset: the named network's.
        depth: Option<usize> = None;
        /// Attention heads; unset: the named network's.
        heads: Option<usize> = None;
        /// Units of a block's hidden layer; unset: four times the width.
        hidden: Option<usize> = None;
        /// Side of a patch, pixels; unset: the named network's.
        patch: Option<usize> = None;
        /// Patches a side that positions were learned for; unset: the named network's.
        grid: Option<usize> = None;
        /// Register tokens; unset: the named network's.
        registers: Option<usize> = None;
        /// Outputs of CLIP's projection; unset: the named network's.
        output: Option<usize> = None;
    }
    and idle
}

/// ImageNet's channels, of values 0–1.
pub const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
/// Those of the images CLIP was trained on (`preprocess` of OpenAI's code).
pub const CLIP: ([f32; 3], [f32; 3]) = ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]);
/// Side of the images all of them are usually shown, pixels.
const SIZE: usize = 224;

/// Width, depth, heads.
type Trunk = (usize, usize, usize);
const SMALL: Trunk = (384, 12, 6);
const BASE: Trunk = (768, 12, 12);
const LARGE: Trunk = (1024, 24, 16);

impl Published {
    /// All, those that clusterings usually begin with first.
    pub const ALL: [Self; 10] = [
        Self::Dinov2Base,
        Self::Dinov2Small,
        Self::ClipBase16,
        Self::ClipBase32,
        Self::Dinov2SmallRegisters,
        Self::Dinov2BaseRegisters,
        Self::Dinov2Large,
        Self::Dinov2LargeRegisters,
        Self::ClipLarge14,
        Self::Resnet50,
    ];

    /// Width and shape of a transformer.
    fn transformer(self) -> Option<(usize, Transformer)> {
        let of = |(width, depth, heads): Trunk, family, patch, grid, registers, output| {
            let hidden = 4 * width;
            Some((width, Transformer { family, depth, heads, patch, grid, hidden, registers, output }))
        };
        // Learned at 518 pixels.
        let dinov2 = |trunk, registers| of(trunk, Family::Dinov2, 14, 37, registers, None);
        let clip = |trunk, patch: usize, output| of(trunk, Family::Clip, patch, SIZE / patch, 0, Some(output));
        match self {
            Self::Dinov2Small => dinov2(SMALL, 0),
            Self::Dinov2Base => dinov2(BASE, 0),
            Self::Dinov2Large => dinov2(LARGE, 0),
            Self::Dinov2SmallRegisters => dinov2(SMALL, 4),
            Self::Dinov2BaseRegisters => dinov2(BASE, 4),
            Self::Dinov2LargeRegisters => dinov2(LARGE, 4),
            Self::ClipBase32 => clip(BASE, 32, 512),
            Self::ClipBase16 => clip(BASE, 16, 512),
            Self::ClipLarge14 => clip(LARGE, 14, 768),
            Self::Resnet50 => None,
        }
    }

    /// The network of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|network| network.name() == name)
    }

    /// Its name in settings.
    pub fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|name| Some(name.as_str()?.to_owned())).unwrap_or_default()
    }

    /// Where Hugging Face's hub has it.
    pub fn repository(self) -> &'static str {
        match self {
            Self::Dinov2Small => "facebook/dinov2-small",
            Self::Dinov2Base => "facebook/dinov2-base",
            Self::Dinov2Large => "facebook/dinov2-large",
            Self::Dinov2SmallRegisters => "facebook/dinov2-with-registers-small",
            Self::Dinov2BaseRegisters => "facebook/dinov2-with-registers-base",
            Self::Dinov2LargeRegisters => "facebook/dinov2-with-registers-large",
            Self::ClipBase32 => "openai/clip-vit-base-patch32",
            Self::ClipBase16 => "openai/clip-vit-base-patch16",
            Self::ClipLarge14 => "openai/clip-vit-large-patch14",
            Self::Resnet50 => "timm/resnet50.tv_in1k",
        }
    }

    /// What pictures go through: the `val` transform of the network's authors, and the same for other sizes in proportion.
    fn normalization(self, size: usize, shorter: Option<usize>) -> Normalization {
        // 256 pixels for 224, as the field cuts ImageNet; CLIP cuts nothing off the shorter side.
        let cut = (size * 256).div_ceil(SIZE);
        let ((mean, std), filter, usual) = match self {
            Self::Resnet50 => (IMAGENET, Filter::Bilinear, cut),
            Self::ClipBase32 | Self::ClipBase16 | Self::ClipLarge14 => (CLIP, Filter::Bicubic, size),
            _ => (IMAGENET, Filter::Bicubic, cut),
        };
        let resize = Some(Resize { shorter: shorter.unwrap_or(usual), filter });
        Normalization { mean: mean.to_vec(), std: std.to_vec(), resize }
    }
}

impl TowerSettings {
    /// The network for images of this size (none: the usual one), brought there over a shorter side of so many pixels (none: in
    /// the usual proportion).
    pub fn network(&self, size: Option<usize>, shorter: Option<usize>) -> Result<(Architecture, Normalization)> {
        let size = size.unwrap_or(SIZE);
        let normalization = self.backbone.normalization(size, shorter);
        let Some((width, named)) = self.backbone.transformer() else {
            let width = self.width.unwrap_or(64);
            return Ok((architecture(Backbone::Resnet50, Stem::Imagenet, width, 3, size, None)?, normalization));
        };
        let width = self.width.unwrap_or(width);
        let shape = Transformer {
            family: named.family,
            depth: self.depth.unwrap_or(named.depth),
            heads: self.heads.unwrap_or(named.heads),
            patch: self.patch.unwrap_or(named.patch),
            grid: self.grid.unwrap_or(named.grid),
            hidden: self.hidden.unwrap_or(width.saturating_mul(4)),
            registers: self.registers.unwrap_or(named.registers),
            output: named.output.map(|output| self.output.unwrap_or(output)),
        };
        Ok((tower(shape, width, size)?, normalization))
    }

    /// Settings that the named network has no use for.
    fn idle(&self) -> Vec<Complaint> {
        let clip = self.backbone.transformer().is_some_and(|(_, shape)| shape.output.is_some());
        let residual = self.backbone == Published::Resnet50;
        let idle = [
            ("depth", self.depth, residual),
            ("heads", self.heads, residual),
            ("hidden", self.hidden, residual),
            ("patch", self.patch, residual),
            ("grid", self.grid, residual),
            ("registers", self.registers, residual || clip),
            ("output", self.output, !clip),
        ];
        let idle = idle.into_iter().filter(|(_, value, idle)| *idle && value.is_some());
        idle.map(|(field, ..)| Complaint::new(field, "is nothing that this network has")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_stage::Settings;

    fn of(backbone: Published) -> (Architecture, Normalization) {
        TowerSettings { backbone, ..TowerSettings::default() }.network(None, None).unwrap()
    }

    #[test]
    fn named_networks_have_the_features_that_are_published() {
        for (backbone, features) in [
            (Published::Dinov2Small, 384),
            (Published::Dinov2Base, 768),
            (Published::Dinov2LargeRegisters, 1024),
            (Published::ClipBase32, 512),
            (Published::ClipBase16, 512),
            (Published::ClipLarge14, 768),
            (Published::Resnet50, 2048),
        ] {
            let (architecture, _) = of(backbone);
            assert_eq!((architecture.features, architecture.size), (features, 224), "{backbone:?}");
        }
        assert_eq!(of(Published::ClipBase32).0.transformer.unwrap().grid, 7);
    }

    #[test]
    fn pictures_are_prepared_as_the_authors_do() {
        let resize = |backbone| of(backbone).1.resize.unwrap();
        assert_eq!(resize(Published::Dinov2Small), Resize { shorter: 256, filter: Filter::Bicubic });
        assert_eq!(resize(Published::ClipBase32), Resize { shorter: 224, filter: Filter::Bicubic });
        assert_eq!(resize(Published::Resnet50), Resize { shorter: 256, filter: Filter::Bilinear });
        let (architecture, normalization) = TowerSettings::default().network(Some(518), None).unwrap();
        assert_eq!((architecture.size, normalization.resize.unwrap().shorter), (518, 592));
        assert_eq!(TowerSettings::default().network(None, Some(300)).unwrap().1.resize.unwrap().shorter, 300);
    }

    #[test]
    fn what_a_network_does_not_have_is_not_set() {
        let settings = |backbone| TowerSettings { backbone, registers: Some(2), output: Some(3), ..TowerSettings::default() };
        let fields = |backbone| settings(backbone).check().into_iter().map(|complaint| complaint.path).collect::<Vec<_>>();
        assert_eq!(fields(Published::Dinov2Base), ["output"]);
        assert_eq!(fields(Published::ClipBase32), ["registers"]);
        assert_eq!(fields(Published::Resnet50), ["registers", "output"]);
        let text = serde_json::to_string(&Published::Dinov2BaseRegisters).unwrap();
        assert_eq!(text, "\"dinov2_vitb14_reg\"");
    }
}
