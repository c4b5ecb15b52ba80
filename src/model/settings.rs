//! What a pipeline file says of a network that is to be trained from scratch.

use serde::{Deserialize, Serialize};

use super::encoder::architecture;
use super::error::Result;
use kinset_artifact::encoder::{Architecture, Backbone, Projection, ProjectionKind, Stem};
use kinset_stage::{Complaint, Limit, Settings};

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
    pub fn architecture(&self, channels: usize, size: usize) -> Result<Architecture> {
        let projection = Projection { kind: self.projection, dim: self.projection_dim };
        architecture(self.backbone, self.stem, self.width, channels, size, Some(projection))
    }
}

impl Settings for NetworkSettings {
    fn check(&self) -> Vec<Complaint> {
        let untrained = match self.backbone {
            Backbone::Pixels | Backbone::Features => Some("is one that has nothing to train"),
            Backbone::Vit => Some("is `vit`: read a published one with the stage `frozen`"),
            Backbone::Resnet18 | Backbone::Resnet34 | Backbone::Resnet50 | Backbone::ResnetTiny => None,
        };
        let found = [
            Limit::within(1..=1024).complaint("width", &self.width),
            Limit::within(1..=65_536).complaint("projection_dim", &self.projection_dim),
            untrained.map(|message| Complaint::new("backbone", message)),
        ];
        found.into_iter().flatten().collect()
    }
}
