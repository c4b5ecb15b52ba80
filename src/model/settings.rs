//! Settings of a network that is to be trained from scratch, as a pipeline file gives them.

use schemars::Schema;
use serde::Deserialize;
use serde_json::Value;

use super::encoder::architecture;
use super::error::Result;
use kinset_artifact::encoder::{Architecture, Backbone, Projection, ProjectionKind, Stem};
use kinset_stage::Complaint;

kinset_stage::settings! {
    /// A network to be trained from scratch.
    #[derive(PartialEq)]
    pub struct NetworkSettings {
        /// `resnet18` (SCAN on CIFAR and STL), `resnet50` (ImageNet), `resnet_tiny` (8–32 px on a CPU) or `alexnet` (AND's table; stem
        /// `cifar` or `imagenet`, images of one size).
        #[schemars(transform = trainable)]
        backbone: Backbone = Backbone::Resnet18;
        /// `cifar` for small images, `stl` for 96 px, `imagenet` for 224 px (SCAN's code, `models/`).
        stem: Stem = Stem::Cifar;
        /// Channels of the first stage; 64 in the papers.
        width: usize = 64, within 1..=1024;
        /// Projection head between features and loss: `mlp`, `mlp_norm` (batch norm before its ReLU, as BYOL has it) or `linear`.
        projection: ProjectionKind = ProjectionKind::Mlp;
        /// Outputs of the projection head, P; 128 in SimCLR and SCAN.
        projection_dim: usize = 128, within 1..=65_536;
    }
    and combinations
}

/// Leaves networks that have nothing to train out of the schema.
fn trainable(backbone: &mut Schema) {
    if let Some(Value::Array(ways)) = backbone.get_mut("oneOf") {
        let named = |way: &Value| Backbone::deserialize(&way["const"]);
        ways.retain(|way| named(way).is_ok_and(|backbone| untrainable(backbone).is_none()));
    }
}

/// Why a network is not to be trained from scratch, if it is not.
fn untrainable(backbone: Backbone) -> Option<&'static str> {
    match backbone {
        Backbone::Pixels | Backbone::Features => Some("is one that has nothing to train"),
        Backbone::Graph => Some("is `graph`: read one with the stage `onnx_encoder`"),
        Backbone::Vit => Some("is `vit`: read a published one with the stage `frozen`"),
        Backbone::Resnet18 | Backbone::Resnet34 | Backbone::Resnet50 | Backbone::ResnetTiny | Backbone::Alexnet => None,
    }
}

impl NetworkSettings {
    /// The network for images of this size.
    pub fn architecture(&self, channels: usize, size: usize) -> Result<Architecture> {
        let projection = Projection { kind: self.projection, dim: self.projection_dim };
        architecture(self.backbone, self.stem, self.width, channels, size, Some(projection))
    }

    fn combinations(&self) -> Option<Complaint> {
        if self.backbone == Backbone::Alexnet && !matches!(self.stem, Stem::Cifar | Stem::Imagenet) {
            let what = format!("is `{}`; `alexnet` has the forms `cifar` and `imagenet`", self.stem.word());
            return Some(Complaint::new("stem", what));
        }
        untrainable(self.backbone).map(|why| Complaint::new("backbone", why))
    }
}
