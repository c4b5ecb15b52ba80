//! The names of our tensors in others' files. One table per family of files, read both ways: as weights come in and as they go out.
//!
//! | files of | backbone | projection | heads |
//! |---|---|---|---|
//! | SCAN, NNM, RUC | `backbone.…` | `contrastive_head.…` | `cluster_head.{h}.…` |
//! | MoCo | `encoder_q.…` | `encoder_q.fc.…` | |
//! | AND | `…` | `linear.…`; of an AlexNet `projection.0.…` | |
//!
//! What stands in front of all of them, and what is left beside them, says [`super::beginnings`]. `num_batches_tracked` matters only to
//! a batch norm without momentum; MoCo's key encoder and queue only to its training: they are left out.

/// A family of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// SCAN's, which NNM and RUC took over. Our own names.
    Scan,
    /// MoCo's.
    Moco,
    /// AND's: a network and a linear layer, without a name around them.
    And,
}

/// The counters that only PyTorch needs.
pub(crate) const COUNTER: &str = "num_batches_tracked";

/// The linear layer at the end of AND's AlexNet; what brings its output to unit length counts as a layer and has no tensors.
pub(super) const ALEXNET_PROJECTION: &str = "projection.0.";

impl Layout {
    /// The family whose backbone has this in front of its names.
    pub(super) fn of(prefix: &str) -> Self {
        let last = prefix.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        match last {
            "encoder_q" => Self::Moco,
            "backbone" => Self::Scan,
            _ => Self::And,
        }
    }

    /// Our name for one of theirs; nothing where a tensor is left out on purpose. What has no place with us keeps its name, so
    /// that loading reports it.
    pub(super) fn ours(self, name: &str) -> Option<String> {
        if name.rsplit('.').next() == Some(COUNTER) {
            return None;
        }
        match self {
            Self::Scan => Some(name.to_owned()),
            Self::Moco => {
                if name.starts_with("encoder_k.") || name == "queue" || name == "queue_ptr" {
                    return None;
                }
                let Some(inner) = name.strip_prefix("encoder_q.") else { return Some(name.to_owned()) };
                Some(match inner.strip_prefix("fc.") {
                    Some(rest) => format!("contrastive_head.{rest}"),
                    None => format!("backbone.{inner}"),
                })
            }
            Self::And => Some(match name.strip_prefix("linear.").or_else(|| name.strip_prefix(ALEXNET_PROJECTION)) {
                Some(rest) => format!("contrastive_head.{rest}"),
                None => format!("backbone.{name}"),
            }),
        }
    }

    /// Their name for one of ours, in an AlexNet or another network; nothing where they have no place for it.
    pub(crate) fn theirs(self, name: &str, alexnet: bool) -> Option<String> {
        let parts = [name.strip_prefix("backbone."), name.strip_prefix("contrastive_head.")];
        match (self, parts) {
            (Self::Scan, _) => Some(name.to_owned()),
            (Self::Moco, [Some(rest), _]) => Some(format!("module.encoder_q.{rest}")),
            (Self::Moco, [_, Some(rest)]) => Some(format!("module.encoder_q.fc.{rest}")),
            (Self::And, [Some(rest), _]) => Some(rest.to_owned()),
            // Two layers would need other names, and AND's network has one.
            (Self::And, [_, Some(rest)]) if !rest.contains('.') => {
                Some(format!("{}{rest}", if alexnet { ALEXNET_PROJECTION } else { "linear." }))
            }
            (Self::Moco | Self::And, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_out_and_come_back() {
        for layout in [Layout::Scan, Layout::Moco, Layout::And] {
            for name in ["backbone.conv1.weight", "backbone.layer2.0.bn1.running_mean", "contrastive_head.weight"] {
                let theirs = layout.theirs(name, false).unwrap();
                assert_eq!(layout.ours(theirs.trim_start_matches("module.")).unwrap(), name, "{layout:?}");
            }
        }
        let theirs = Layout::And.theirs("contrastive_head.weight", true).unwrap();
        assert_eq!(theirs, "projection.0.weight");
        assert_eq!(Layout::And.ours(&theirs).unwrap(), "contrastive_head.weight");
        assert_eq!(Layout::Moco.theirs("contrastive_head.2.bias", false).unwrap(), "module.encoder_q.fc.2.bias");
        assert_eq!(Layout::And.theirs("contrastive_head.2.bias", true), None);
        assert_eq!(Layout::Moco.theirs("cluster_head.0.weight", false), None);
        assert_eq!(Layout::Scan.theirs("cluster_head.0.weight", false).unwrap(), "cluster_head.0.weight");
    }

    #[test]
    fn what_only_training_needs_is_left_out_and_strangers_stay_to_be_reported() {
        assert_eq!(Layout::Scan.ours("backbone.bn1.num_batches_tracked"), None);
        for name in ["encoder_k.conv1.weight", "queue", "queue_ptr"] {
            assert_eq!(Layout::Moco.ours(name), None);
        }
        assert_eq!(Layout::Moco.ours("teacher.conv1.weight").unwrap(), "teacher.conv1.weight");
        assert_eq!(Layout::And.ours("fc.weight").unwrap(), "backbone.fc.weight");
        let of = ["", "net.", "backbone.", "model.backbone.", "encoder_q.", "my_backbone."].map(Layout::of);
        assert_eq!(of, [Layout::And, Layout::And, Layout::Scan, Layout::Scan, Layout::Moco, Layout::And]);
    }
}
