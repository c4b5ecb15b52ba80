//! The names of frozen encoders' tensors in others' files. One table per family of files: our name, theirs, and what is done to a
//! tensor on the way. `#` stands for the number of a block or layer.
//!
//! | files | begin with | beside the image encoder, and left out |
//! |---|---|---|
//! | DINOv2's authors | nothing, or `teacher.backbone.` | `mask_token`, the heads of training |
//! | DINOv2 of transformers | nothing, `dinov2.`, `dinov2_with_registers.` | `mask_token`, `classifier` |
//! | CLIP's authors, open_clip | `visual.` | the text tower |
//! | CLIP of transformers | `vision_model.` | the text tower, `position_ids` |
//! | torchvision's and timm's ResNet-50 | nothing | `fc`, counters |
//! | ResNet-50 of transformers | `resnet.` | `classifier`, counters |

use kinset_artifact::encoder::Weights;

/// What a tensor goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Nothing, but for axes of one entry in front.
    Same,
    /// It is one of three that are one with us: query, key or value.
    Third(usize),
    /// Rows become columns.
    Turned,
}

use Way::{Same, Third, Turned};

type Row = (&'static str, &'static str, Way);

/// The names of a family of files.
#[derive(Debug)]
pub(super) struct Names {
    /// For messages.
    pub(super) family: &'static str,
    /// The tensor by which it is known, and by which what stands before all names is found.
    pub(super) mark: &'static str,
    rows: &'static [Row],
    /// Beginnings of names that have no place with us, on purpose, wherever they stand.
    left_out: &'static [&'static str],
}

const DINOV2: Names = Names {
    family: "DINOv2's names",
    mark: "patch_embed.proj.weight",
    rows: &[
        ("cls_token", "cls_token", Same),
        ("pos_embed", "pos_embed", Same),
        ("register_tokens", "register_tokens", Same),
        ("patch_embed.proj.weight", "patch_embed.proj.weight", Same),
        ("patch_embed.proj.bias", "patch_embed.proj.bias", Same),
        ("blocks.#.norm1.weight", "blocks.#.norm1.weight", Same),
        ("blocks.#.norm1.bias", "blocks.#.norm1.bias", Same),
        ("blocks.#.attn.qkv.weight", "blocks.#.attn.qkv.weight", Same),
        ("blocks.#.attn.qkv.bias", "blocks.#.attn.qkv.bias", Same),
        ("blocks.#.attn.proj.weight", "blocks.#.attn.proj.weight", Same),
        ("blocks.#.attn.proj.bias", "blocks.#.attn.proj.bias", Same),
        ("blocks.#.ls1.gamma", "blocks.#.ls1.gamma", Same),
        ("blocks.#.norm2.weight", "blocks.#.norm2.weight", Same),
        ("blocks.#.norm2.bias", "blocks.#.norm2.bias", Same),
        ("blocks.#.mlp.fc1.weight", "blocks.#.mlp.fc1.weight", Same),
        ("blocks.#.mlp.fc1.bias", "blocks.#.mlp.fc1.bias", Same),
        ("blocks.#.mlp.fc2.weight", "blocks.#.mlp.fc2.weight", Same),
        ("blocks.#.mlp.fc2.bias", "blocks.#.mlp.fc2.bias", Same),
        ("blocks.#.ls2.gamma", "blocks.#.ls2.gamma", Same),
        ("norm.weight", "norm.weight", Same),
        ("norm.bias", "norm.bias", Same),
    ],
    left_out: &["mask_token", "dino_head.", "ibot_head.", "teacher.dino_head.", "teacher.ibot_head."],
};

const DINOV2_HUB: Names = Names {
    family: "transformers' names of DINOv2",
    mark: "embeddings.patch_embeddings.projection.weight",
    rows: &[
        ("cls_token", "embeddings.cls_token", Same),
        ("pos_embed", "embeddings.position_embeddings", Same),
        ("register_tokens", "embeddings.register_tokens", Same),
        ("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight", Same),
        ("patch_embed.proj.bias", "embeddings.patch_embeddings.projection.bias", Same),
        ("blocks.#.norm1.weight", "encoder.layer.#.norm1.weight", Same),
        ("blocks.#.norm1.bias", "encoder.layer.#.norm1.bias", Same),
        ("blocks.#.attn.qkv.weight", "encoder.layer.#.attention.attention.query.weight", Third(0)),
        ("blocks.#.attn.qkv.bias", "encoder.layer.#.attention.attention.query.bias", Third(0)),
        ("blocks.#.attn.qkv.weight", "encoder.layer.#.attention.attention.key.weight", Third(1)),
        ("blocks.#.attn.qkv.bias", "encoder.layer.#.attention.attention.key.bias", Third(1)),
        ("blocks.#.attn.qkv.weight", "encoder.layer.#.attention.attention.value.weight", Third(2)),
        ("blocks.#.attn.qkv.bias", "encoder.layer.#.attention.attention.value.bias", Third(2)),
        ("blocks.#.attn.proj.weight", "encoder.layer.#.attention.output.dense.weight", Same),
        ("blocks.#.attn.proj.bias", "encoder.layer.#.attention.output.dense.bias", Same),
        ("blocks.#.ls1.gamma", "encoder.layer.#.layer_scale1.lambda1", Same),
        ("blocks.#.norm2.weight", "encoder.layer.#.norm2.weight", Same),
        ("blocks.#.norm2.bias", "encoder.layer.#.norm2.bias", Same),
        ("blocks.#.mlp.fc1.weight", "encoder.layer.#.mlp.fc1.weight", Same),
        ("blocks.#.mlp.fc1.bias", "encoder.layer.#.mlp.fc1.bias", Same),
        ("blocks.#.mlp.fc2.weight", "encoder.layer.#.mlp.fc2.weight", Same),
        ("blocks.#.mlp.fc2.bias", "encoder.layer.#.mlp.fc2.bias", Same),
        ("blocks.#.ls2.gamma", "encoder.layer.#.layer_scale2.lambda1", Same),
        ("norm.weight", "layernorm.weight", Same),
        ("norm.bias", "layernorm.bias", Same),
    ],
    left_out: &["embeddings.mask_token", "classifier."],
};

const CLIP: Names = Names {
    family: "CLIP's names",
    mark: "visual.conv1.weight",
    rows: &[
        ("cls_token", "visual.class_embedding", Same),
        ("pos_embed", "visual.positional_embedding", Same),
        ("patch_embed.proj.weight", "visual.conv1.weight", Same),
        ("norm_pre.weight", "visual.ln_pre.weight", Same),
        ("norm_pre.bias", "visual.ln_pre.bias", Same),
        ("blocks.#.norm1.weight", "visual.transformer.resblocks.#.ln_1.weight", Same),
        ("blocks.#.norm1.bias", "visual.transformer.resblocks.#.ln_1.bias", Same),
        ("blocks.#.attn.qkv.weight", "visual.transformer.resblocks.#.attn.in_proj_weight", Same),
        ("blocks.#.attn.qkv.bias", "visual.transformer.resblocks.#.attn.in_proj_bias", Same),
        ("blocks.#.attn.proj.weight", "visual.transformer.resblocks.#.attn.out_proj.weight", Same),
        ("blocks.#.attn.proj.bias", "visual.transformer.resblocks.#.attn.out_proj.bias", Same),
        ("blocks.#.norm2.weight", "visual.transformer.resblocks.#.ln_2.weight", Same),
        ("blocks.#.norm2.bias", "visual.transformer.resblocks.#.ln_2.bias", Same),
        ("blocks.#.mlp.fc1.weight", "visual.transformer.resblocks.#.mlp.c_fc.weight", Same),
        ("blocks.#.mlp.fc1.bias", "visual.transformer.resblocks.#.mlp.c_fc.bias", Same),
        ("blocks.#.mlp.fc2.weight", "visual.transformer.resblocks.#.mlp.c_proj.weight", Same),
        ("blocks.#.mlp.fc2.bias", "visual.transformer.resblocks.#.mlp.c_proj.bias", Same),
        ("norm.weight", "visual.ln_post.weight", Same),
        ("norm.bias", "visual.ln_post.bias", Same),
        ("proj.weight", "visual.proj", Turned),
    ],
    left_out: &[
        "transformer.",
        "token_embedding.",
        "positional_embedding",
        "ln_final.",
        "text_projection",
        "logit_scale",
        "logit_bias",
        "input_resolution",
        "context_length",
        "vocab_size",
    ],
};

const CLIP_HUB: Names = Names {
    family: "transformers' names of CLIP",
    mark: "vision_model.embeddings.patch_embedding.weight",
    rows: &[
        ("cls_token", "vision_model.embeddings.class_embedding", Same),
        ("pos_embed", "vision_model.embeddings.position_embedding.weight", Same),
        ("patch_embed.proj.weight", "vision_model.embeddings.patch_embedding.weight", Same),
        ("norm_pre.weight", "vision_model.pre_layrnorm.weight", Same),
        ("norm_pre.bias", "vision_model.pre_layrnorm.bias", Same),
        ("blocks.#.norm1.weight", "vision_model.encoder.layers.#.layer_norm1.weight", Same),
        ("blocks.#.norm1.bias", "vision_model.encoder.layers.#.layer_norm1.bias", Same),
        ("blocks.#.attn.qkv.weight", "vision_model.encoder.layers.#.self_attn.q_proj.weight", Third(0)),
        ("blocks.#.attn.qkv.bias", "vision_model.encoder.layers.#.self_attn.q_proj.bias", Third(0)),
        ("blocks.#.attn.qkv.weight", "vision_model.encoder.layers.#.self_attn.k_proj.weight", Third(1)),
        ("blocks.#.attn.qkv.bias", "vision_model.encoder.layers.#.self_attn.k_proj.bias", Third(1)),
        ("blocks.#.attn.qkv.weight", "vision_model.encoder.layers.#.self_attn.v_proj.weight", Third(2)),
        ("blocks.#.attn.qkv.bias", "vision_model.encoder.layers.#.self_attn.v_proj.bias", Third(2)),
        ("blocks.#.attn.proj.weight", "vision_model.encoder.layers.#.self_attn.out_proj.weight", Same),
        ("blocks.#.attn.proj.bias", "vision_model.encoder.layers.#.self_attn.out_proj.bias", Same),
        ("blocks.#.norm2.weight", "vision_model.encoder.layers.#.layer_norm2.weight", Same),
        ("blocks.#.norm2.bias", "vision_model.encoder.layers.#.layer_norm2.bias", Same),
        ("blocks.#.mlp.fc1.weight", "vision_model.encoder.layers.#.mlp.fc1.weight", Same),
        ("blocks.#.mlp.fc1.bias", "vision_model.encoder.layers.#.mlp.fc1.bias", Same),
        ("blocks.#.mlp.fc2.weight", "vision_model.encoder.layers.#.mlp.fc2.weight", Same),
        ("blocks.#.mlp.fc2.bias", "vision_model.encoder.layers.#.mlp.fc2.bias", Same),
        ("norm.weight", "vision_model.post_layernorm.weight", Same),
        ("norm.bias", "vision_model.post_layernorm.bias", Same),
        ("proj.weight", "visual_projection.weight", Same),
    ],
    left_out: &["text_model.", "text_projection.", "logit_scale", "vision_model.embeddings.position_ids"],
};

/// A residual network's names are those of torchvision with us too: the rows say only what has no number.
const RESNET: Names = Names {
    family: "torchvision's names",
    mark: "layer1.0.conv1.weight",
    rows: &[
        ("conv1.weight", "conv1.weight", Same),
        ("bn1.*", "bn1.*", Same),
        ("layer#.#.conv#.weight", "layer#.#.conv#.weight", Same),
        ("layer#.#.bn#.*", "layer#.#.bn#.*", Same),
        ("layer#.#.downsample.#.*", "layer#.#.downsample.#.*", Same),
    ],
    left_out: &["fc."],
};

const RESNET_HUB: Names = Names {
    family: "transformers' names of ResNet",
    mark: "embedder.embedder.convolution.weight",
    rows: &[
        ("conv1.weight", "embedder.embedder.convolution.weight", Same),
        ("bn1.*", "embedder.embedder.normalization.*", Same),
        ("layer+.#.conv+.weight", "encoder.stages.#.layers.#.layer.#.convolution.weight", Same),
        ("layer+.#.bn+.*", "encoder.stages.#.layers.#.layer.#.normalization.*", Same),
        ("layer+.#.downsample.0.weight", "encoder.stages.#.layers.#.shortcut.convolution.weight", Same),
        ("layer+.#.downsample.1.*", "encoder.stages.#.layers.#.shortcut.normalization.*", Same),
    ],
    left_out: &["classifier."],
};

/// All families. The mark of an earlier one is not part of a later one's names.
pub(super) const FAMILIES: [&Names; 6] = [&CLIP_HUB, &DINOV2_HUB, &CLIP, &DINOV2, &RESNET_HUB, &RESNET];

/// The counters that only PyTorch needs.
const COUNTER: &str = "num_batches_tracked";

/// Where a name belongs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Our name, and the way there.
    Ours(String, Way),
    /// Nowhere, on purpose.
    LeftOut,
    /// Nowhere: it is reported.
    Unknown,
}

impl Names {
    /// The family of a file, and what stands before all its names: what is wanted, else the least.
    pub(super) fn of<'a>(
        names: impl Iterator<Item = &'a str> + Clone,
        wanted: Option<&str>,
    ) -> Option<(&'static Self, String)> {
        let fits =
            |name: &str, mark: &str| is_end(name, mark) && wanted.is_none_or(|wanted| name.strip_suffix(mark) == Some(wanted));
        FAMILIES.into_iter().find_map(|family| {
            let mark = names.clone().filter(|name| fits(name, family.mark)).min_by_key(|name| name.len())?;
            Some((family, mark[..mark.len() - family.mark.len()].to_owned()))
        })
    }

    /// Our name for one of theirs.
    pub(super) fn place(&self, prefix: &str, name: &str) -> Place {
        let left_out = |name: &str| {
            name.rsplit('.').next() == Some(COUNTER) || self.left_out.iter().any(|beginning| name.starts_with(beginning))
        };
        let Some(rest) = name.strip_prefix(prefix) else {
            return if left_out(name) { Place::LeftOut } else { Place::Unknown };
        };
        if left_out(rest) || left_out(name) {
            return Place::LeftOut;
        }
        let found = self.rows.iter().find_map(|(ours, theirs, way)| Some((fill(ours, &matched(theirs, rest)?), *way)));
        found.map_or(Place::Unknown, |(ours, way)| Place::Ours(ours, way))
    }

    /// Their name, or names, for one of ours.
    pub(super) fn theirs(&self, prefix: &str, ours: &str) -> Vec<String> {
        let rows = self.rows.iter().filter_map(|(mine, theirs, _)| {
            let parts = matched(mine, ours)?;
            Some(format!("{prefix}{}", fill(theirs, &parts)))
        });
        rows.collect()
    }
}

fn is_end(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// What stands in a name where a pattern has `#` and `+` (digits) or a last `*` (a word), each with its sign; nothing if the name
/// is not like the pattern.
fn matched<'a>(pattern: &str, name: &'a str) -> Option<Vec<(char, &'a str)>> {
    let mut parts = Vec::new();
    let mut rest = name;
    for piece in pattern.split_inclusive(SIGNS) {
        let literal = piece.trim_end_matches(SIGNS);
        rest = rest.strip_prefix(literal)?;
        if let Some(sign) = piece[literal.len()..].chars().next() {
            let length = if sign == '*' { rest.len() } else { rest.bytes().take_while(u8::is_ascii_digit).count() };
            if length == 0 || rest[..length].contains('.') {
                return None;
            }
            parts.push((sign, &rest[..length]));
            rest = &rest[length..];
        }
    }
    rest.is_empty().then_some(parts)
}

/// What stands for something else in a pattern.
const SIGNS: [char; 3] = ['#', '+', '*'];

/// A pattern with parts put in. `+` counts from 1 where `#` on the other side counts from 0.
fn fill(pattern: &str, parts: &[(char, &str)]) -> String {
    let mut parts = parts.iter();
    let mut text = String::new();
    for letter in pattern.chars() {
        if !SIGNS.contains(&letter) {
            text.push(letter);
            continue;
        }
        let &(sign, part) = parts.next().unwrap_or(&(letter, ""));
        let by = match (sign, letter) {
            ('#', '+') => 1,
            ('+', '#') => -1,
            _ => 0,
        };
        match part.parse::<i64>() {
            Ok(number) if by != 0 => text.push_str(&number.saturating_add(by).to_string()),
            _ => text.push_str(part),
        }
    }
    text
}

/// A tensor in our form.
pub(super) fn brought(name: &str, way: Way, weights: Weights) -> Weights {
    let Weights { mut shape, mut values } = weights;
    if let (Turned, &[rows, columns]) = (way, shape.as_slice()) {
        values =
            (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column)).map(|at| values[at]).collect();
        shape = vec![columns, rows];
    }
    if ["cls_token", "pos_embed", "register_tokens"].contains(&name) {
        while shape.len() < 3 {
            shape.insert(0, 1);
        }
    }
    Weights { shape, values }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_known_by_its_mark_whatever_stands_before_it() {
        let of = |names: &[&str]| Names::of(names.iter().copied(), None).map(|(found, prefix)| (found.family, prefix));
        assert_eq!(of(&["a.patch_embed.proj.weight", "x"]), Some((DINOV2.family, "a.".into())));
        assert_eq!(of(&["dinov2.embeddings.patch_embeddings.projection.weight"]), Some((DINOV2_HUB.family, "dinov2.".into())));
        assert_eq!(of(&["visual.conv1.weight"]), Some((CLIP.family, String::new())));
        assert_eq!(of(&["module.layer1.0.conv1.weight"]), Some((RESNET.family, "module.".into())));
        assert_eq!(of(&["patch_embed_proj.weight", "conv1.weight"]), None);
    }

    #[test]
    fn names_come_in_and_go_out_for_every_row() {
        for family in FAMILIES {
            for (ours, theirs, way) in family.rows {
                let name = theirs.replace('#', "2").replace('*', "weight");
                let Place::Ours(found, by) = family.place("", &name) else { panic!("{name} has no place") };
                let wanted = ours.replace('#', "2").replace('+', "3").replace('*', "weight");
                assert_eq!((found.as_str(), by), (wanted.as_str(), *way), "{}", family.family);
                assert!(family.theirs("p.", &found).contains(&format!("p.{name}")), "{name}");
            }
        }
    }

    #[test]
    fn what_has_no_place_is_left_out_by_name_or_reported() {
        assert_eq!(CLIP_HUB.place("", "text_model.encoder.layers.0.mlp.fc1.weight"), Place::LeftOut);
        assert_eq!(CLIP_HUB.place("", "vision_model.encoder.layers.0.mlp.fc3.weight"), Place::Unknown);
        assert_eq!(CLIP.place("", "positional_embedding"), Place::LeftOut);
        assert_eq!(CLIP.place("", "visual.attnpool.c_proj.weight"), Place::Unknown);
        assert_eq!(DINOV2.place("", "blocks.x.norm1.weight"), Place::Unknown);
        assert_eq!(DINOV2.place("teacher.backbone.", "teacher.dino_head.mlp.0.weight"), Place::LeftOut);
        assert_eq!(DINOV2.place("teacher.backbone.", "student.norm.weight"), Place::Unknown);
        assert_eq!(RESNET.place("", "layer1.0.bn1.num_batches_tracked"), Place::LeftOut);
        assert_eq!(RESNET.place("", "fc.bias"), Place::LeftOut);
    }

    #[test]
    fn columns_become_rows_and_missing_axes_come_in_front() {
        let weights = |shape: &[usize]| Weights { shape: shape.to_vec(), values: (0..6).map(|v| v as f32).collect() };
        let turned = brought("proj.weight", Turned, weights(&[2, 3]));
        assert_eq!((turned.shape, turned.values), (vec![3, 2], vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0]));
        assert_eq!(brought("cls_token", Same, weights(&[6])).shape, [1, 1, 6]);
        assert_eq!(brought("pos_embed", Same, weights(&[3, 2])).shape, [1, 3, 2]);
        assert_eq!(brought("pos_embed", Same, weights(&[1, 3, 2])).shape, [1, 3, 2]);
    }
}
