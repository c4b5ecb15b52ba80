//! What a pipeline file says of a network that is to be trained from scratch.

use serde::{Deserialize, Serialize};

use super::encoder::architecture;
use super::error::Result;
use kinset_artifact::encoder::{Architecture, Backbone, Projection, ProjectionKind, Stem};

/// A network to be trained from scratch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSettings {
    /// `resnet18` (SCAN on CIFAR and STL), `resnet50` (ImageNet) or `resnet_tiny` (8–32 px on a CPU).
    pub backbone: Backbone,
    /// `cifar` for small images, `stl` for 96 px, `imagenet` for 224 px (SCAN's code, `models/`).
    pub stem: Stem,
    /// Channels of the first stage; 64 in the papers.
    pub width: usize,
    /// Projection head between features and loss: `mlp`, `mlp_norm` (batch norm before its ReLU, as BYOL has it) or `linear`.
    pub projection: ProjectionKind,
    /// Outputs of the projection head, P; 128 in SimCLR and SCAN.
    pub projection_dim: usize,
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            backbone: Backbone::Resnet18,
            stem: Stem::Cifar,
            width: 64,
            projection: ProjectionKind::Mlp,
            projection_dim: 128,
        }
    }
}

impl NetworkSettings {
    /// The network for images of this size.
    ///
    /// # Errors
    /// If there is no such network.
    pub fn architecture(&self, channels: usize, size: usize) -> Result<Architecture> {
        let projection = Projection { kind: self.projection, dim: self.projection_dim };
        architecture(self.backbone, self.stem, self.width, channels, size, Some(projection))
    }

    /// What is wrong with it, field by field, as far as that can be said without images.
    pub fn complaints(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if !(1..=1024).contains(&self.width) {
            found.push(("width", format!("is {}, and must lie between 1 and 1024", self.width)));
        }
        if !(1..=65_536).contains(&self.projection_dim) {
            found.push(("projection_dim", format!("is {}, and must lie between 1 and 65536", self.projection_dim)));
        }
        match self.backbone {
            Backbone::Pixels | Backbone::Features => {
                found.push(("backbone", "is one that has nothing to train".to_owned()));
            }
            Backbone::Vit => found.push(("backbone", "is `vit`: read a published one with the stage `frozen`".to_owned())),
            Backbone::Resnet18 | Backbone::Resnet34 | Backbone::Resnet50 | Backbone::ResnetTiny => {}
        }
        found
    }
}
