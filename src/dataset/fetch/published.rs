//! Published weights of image encoders by name: where they can be had, and what they must add up to.
//!
//! Addresses are those of the authors, or of their repositories on Hugging Face's hub at a fixed revision. The authors publish no
//! checksums but for ResNet-50, whose file name begins its own; the others are those under which projects that pin these files get
//! them: DINOv2 in refiners' conversion of these weights, CLIP in several that fetch it from the hub. Files without
//! such a checksum are not here.

use super::error::FetchError;
use super::weights::Weights;
use kinset_base::search_path::DataPaths;

/// A file of weights.
#[derive(Debug)]
pub struct PublishedWeights {
    /// The network it is for, as settings name it.
    pub name: &'static str,
    pub url: &'static str,
    /// 64 hexadecimal digits.
    pub sha256: &'static str,
    /// Its size, in millions of bytes.
    pub megabytes: u64,
    pub license: &'static str,
    pub title: &'static str,
}

const APACHE: &str = "Apache-2.0";
const MIT: &str = "MIT";

/// All of them.
pub static PUBLISHED: [PublishedWeights; 9] = [
    PublishedWeights {
        name: "dinov2_vits14",
        url: "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
        sha256: "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        megabytes: 88,
        license: APACHE,
        title: "DINOv2, ViT-S/14",
    },
    PublishedWeights {
        name: "dinov2_vitb14",
        url: "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
        sha256: "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
        megabytes: 346,
        license: APACHE,
        title: "DINOv2, ViT-B/14",
    },
    PublishedWeights {
        name: "dinov2_vitl14",
        url: "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        sha256: "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        megabytes: 1218,
        license: APACHE,
        title: "DINOv2, ViT-L/14",
    },
    PublishedWeights {
        name: "dinov2_vits14_reg",
        url: "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth",
        sha256: "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",
        megabytes: 88,
        license: APACHE,
        title: "DINOv2 with registers, ViT-S/14",
    },
    PublishedWeights {
        name: "dinov2_vitb14_reg",
        url: "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_reg4_pretrain.pth",
        sha256: "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71",
        megabytes: 346,
        license: APACHE,
        title: "DINOv2 with registers, ViT-B/14",
    },
    PublishedWeights {
        name: "dinov2_vitl14_reg",
        url: "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_reg4_pretrain.pth",
        sha256: "36e4deffbaef061a2576705b0c36f93621e2ae20bf6274694821b0b492551b51",
        megabytes: 1218,
        license: APACHE,
        title: "DINOv2 with registers, ViT-L/14",
    },
    PublishedWeights {
        name: "clip_vit_b32",
        url: "https://huggingface.co/openai/clip-vit-base-patch32/resolve/3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268/pytorch_model.bin",
        sha256: "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
        megabytes: 605,
        license: MIT,
        title: "CLIP, ViT-B/32, with the text encoder, which is not read",
    },
    PublishedWeights {
        name: "clip_vit_l14",
        url: "https://huggingface.co/openai/clip-vit-large-patch14/resolve/32bd64288804d66eefd0ccbe215aa642df71cc41/model.safetensors",
        sha256: "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
        megabytes: 1711,
        license: MIT,
        title: "CLIP, ViT-L/14, with the text encoder, which is not read",
    },
    PublishedWeights {
        name: "resnet50",
        url: "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        sha256: "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        megabytes: 103,
        license: "BSD-3-Clause",
        title: "ResNet-50 of torchvision, trained on ImageNet's labels",
    },
];

impl PublishedWeights {
    pub fn find(name: &str) -> Option<&'static Self> {
        PUBLISHED.iter().find(|weights| weights.name == name)
    }

    /// The file, below the folder of data.
    ///
    /// # Errors
    /// None that can happen: the checksum is one.
    pub fn weights(&self, places: &DataPaths) -> Result<Weights, FetchError> {
        Weights::new(self.url, self.sha256, None, places)
    }

    /// The command that brings it.
    pub fn command(&self) -> String {
        format!("kinset data fetch {}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::server::{Reply, Server};
    use super::*;
    use kinset_base::fs;

    #[test]
    fn every_file_has_a_name_of_its_own_an_encrypted_address_and_a_checksum() {
        let dir = tempfile::tempdir().unwrap();
        let places = DataPaths::new("", Some(dir.path().into()), None);
        for one in &PUBLISHED {
            assert!(std::ptr::eq(PublishedWeights::find(one.name).unwrap(), one), "{}", one.name);
            assert!(one.url.starts_with("https://") && one.megabytes > 0, "{}", one.name);
            assert_eq!(one.weights(&places).unwrap().sha256, one.sha256);
        }
        // The publisher of ResNet-50 puts the beginning of the checksum into the name.
        let resnet = PublishedWeights::find("resnet50").unwrap();
        assert!(resnet.url.contains(&resnet.sha256[..8]));
        assert!(PublishedWeights::find("resnet51").is_none());
    }

    /// What a mirror sends under a published name lies where the published file would, and is no other.
    #[test]
    fn a_mirror_is_asked_and_the_checksum_has_the_last_word() {
        let dir = tempfile::tempdir().unwrap();
        let places = DataPaths::new("", Some(dir.path().into()), None);
        let server = Server::new(vec![Reply::file(b"another file")]);
        let weights = PublishedWeights::find("dinov2_vits14").unwrap().weights(&places).unwrap();
        let place = weights.path();
        let mirrored = weights.from(&server.url(""));
        assert_eq!(mirrored.path(), place);
        let error = mirrored.fetch(Duration::from_millis(1), Duration::from_millis(500), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("is not the published file"), "{error}");
        assert!(!fs::exists(&place));
    }
}
