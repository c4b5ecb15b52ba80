//! Files of weights: zip, legacy stream, safetensors, and the pickles in them; ONNX.

use kinset::artifact::encoder::{Normalization, Stem};
use kinset::model::import::{Wanted, find, frozen};
use kinset::model::onnx;
use kinset::model::published::{Published, TowerSettings};

/// Reads what somebody may have sent.
pub(crate) fn target(bytes: &[u8]) {
    let wanted = Wanted { stem: Some(Stem::Cifar), ..Wanted::default() };
    for wanted in [wanted, Wanted::default()] {
        if let Ok(found) = find(bytes, &wanted) {
            let normalization = Normalization::new(vec![0.5; found.channels.min(8)], vec![0.5; found.channels.min(8)]);
            let _ = found.encoder(32, &normalization);
            let _ = found.classifier(32, &normalization);
        }
    }
    let small = onnx::Wanted { size: Some(12), ..onnx::Wanted::default() };
    for wanted in [onnx::Wanted::default(), onnx::Wanted { pool: Some(onnx::Pool::First), ..small }] {
        let _ = onnx::read(bytes, &wanted);
    }
    for backbone in [Published::Dinov2Small, Published::ClipBase32, Published::Resnet50] {
        let tiny = TowerSettings { backbone, width: Some(16), ..TowerSettings::default() };
        if let Ok((architecture, normalization)) = tiny.network(None, None) {
            let _ = frozen::tower(bytes, &frozen::Wanted::default(), &architecture, &normalization);
        }
    }
}
