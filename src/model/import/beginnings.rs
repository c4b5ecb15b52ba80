//! Prefixes of tensor names in a file: that of the network, and those of tensors that are left out.
//!
//! Training puts a network inside others, and each puts a word before the names: `module.` (data-parallel training), `_orig_mod.`
//! (`torch.compile`), `model.`, `net.`, `encoder.`, `backbone.` (Lightning, solo-learn, lightly), `base_encoder.`, `encoder_q.` (MoCo).
//! The network is found by a tensor that every residual network has (or AND's AlexNet), so that any word will do if there is one network only. A copy that
//! follows another network (`momentum_backbone.`, `encoder_k.`, `teacher.`) is taken only if it is named. Heads beside the network are
//! left, and it is said which.

use std::collections::{BTreeMap, BTreeSet};

use super::error::ImportError;
use kinset_base::reading::Reading;

/// What the settings say of the names in a file.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// What stands in front of the network's; none: found.
    pub prefix: Option<String>,
    /// Names that are left: `projector.*`.
    pub ignore: Vec<String>,
}

impl Names {
    /// True if a name is to be left. A pattern is the whole name or its first words; `*` stands for any letters.
    pub(super) fn ignores(&self, name: &str) -> bool {
        self.ignore.iter().any(|pattern| is_like(pattern, name) || is_like(pattern, &bare(name)))
    }
}

fn is_like(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return name.strip_prefix(pattern.trim_end_matches('.')).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    };
    let Some(mut left) = name.strip_prefix(first) else { return false };
    let Some((middle, last)) = rest.rsplit_once('*').or(Some(("", rest))) else { return false };
    for part in middle.split('*').filter(|part| !part.is_empty()) {
        let Some((_, after)) = left.split_once(part) else { return false };
        left = after;
    }
    left.ends_with(last)
}

/// A name without the words of data-parallel training before it and of `torch.compile` anywhere in it.
pub(super) fn bare(name: &str) -> String {
    let mut name = name.replace("._orig_mod.", ".");
    while let Some(rest) = name.strip_prefix("module.").or_else(|| name.strip_prefix("_orig_mod.")) {
        name = rest.to_owned();
    }
    name
}

/// A prefix as it stands before names, without [`bare`]'s words.
pub(super) fn with_dot(prefix: &str) -> String {
    bare(&if prefix.is_empty() || prefix.ends_with('.') { prefix.to_owned() } else { format!("{prefix}.") })
}

/// First words of heads, which stand beside a network or, after pooling, at its end.
const HEADS: [&str; 14] = [
    "fc",
    "classifier",
    "head",
    "heads",
    "projector",
    "projection",
    "projection_head",
    "predictor",
    "prediction_head",
    "online_classifier",
    "linear_classifier",
    "prototypes",
    "queue",
    "queue_ptr",
];

/// True if a name below a network is that of a head, which is left.
pub(super) fn is_head(below: &str) -> bool {
    HEADS.contains(&first_word(below))
}

fn first_word(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// True if what stands before a network's names says that it follows another one.
fn is_copy(prefix: &str) -> bool {
    const COPIES: [&str; 9] =
        ["encoder_k", "key_encoder", "teacher", "target", "target_encoder", "target_network", "ema", "model_ema", "encoder_m"];
    prefix.split('.').any(|word| COPIES.contains(&word) || word.contains("momentum") || word.ends_with("_ema"))
}

/// How the layers of a network are called below its prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Layers {
    /// `conv1`, `layer1`.
    Named,
    /// Places in an `nn.Sequential`, of the stages the given ones: `0`, `1`, `4`.
    Numbered(Vec<usize>),
    /// No residual network but an AlexNet: `features.0`, `fc1.0`.
    Alexnet,
}

/// A network in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// What stands before its names, without [`bare`]'s words.
    pub(super) prefix: String,
    pub(super) layers: Layers,
}

impl Place {
    /// The network in a file with these names, without [`bare`]'s words.
    ///
    /// # Errors
    /// If there are several, only a copy, or none under the prefix that was given.
    pub(super) fn of(names: &[String], wanted: Option<&str>) -> Result<Self, ImportError> {
        let all = Self::all(names);
        if let Some(wanted) = wanted {
            let prefix = with_dot(wanted);
            if !names.iter().any(|name| name.starts_with(&prefix)) {
                return Err(ImportError::NoPrefix { prefix: wanted.to_owned(), found: beginnings(names) });
            }
            let known = all.into_iter().find(|place| place.prefix == prefix);
            return Ok(known.unwrap_or(Self { prefix, layers: Layers::Named }));
        }
        let own: Vec<&Self> = all.iter().filter(|place| !is_copy(&place.prefix)).collect();
        match (own.as_slice(), all.as_slice()) {
            ([one], _) => Ok((*one).clone()),
            ([], []) => {
                // One that lacks its first block, or is another network: loading says how it differs.
                let first = names.iter().filter_map(|name| before(name, "conv1.weight")).min_by_key(|prefix| prefix.len());
                Ok(Self { prefix: first.unwrap_or_default().to_owned(), layers: Layers::Named })
            }
            _ => Err(ImportError::WhichPrefix { found: all.into_iter().map(|place| place.prefix).collect() }),
        }
    }

    fn all(names: &[String]) -> Vec<Self> {
        let known: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let mut places: BTreeMap<&str, Layers> = BTreeMap::new();
        for name in names {
            if let Some(prefix) = before(name, "features.0.weight")
                && known.contains(format!("{prefix}features.1.running_mean").as_str())
                && known.contains(format!("{prefix}fc1.0.weight").as_str())
            {
                places.insert(prefix, Layers::Alexnet);
                continue;
            }
            let Some(rest) = before(name, "0.conv1.weight") else { continue };
            if let Some(prefix) = before(rest.trim_end_matches('.'), "layer1") {
                places.insert(prefix, Layers::Named);
                continue;
            }
            let rest = rest.trim_end_matches('.');
            let place = rest.rsplit('.').next().unwrap_or(rest);
            let prefix = &rest[..rest.len() - place.len()];
            let Ok(place) = place.parse() else { continue };
            if known.contains(format!("{prefix}0.weight").as_str()) && known.contains(format!("{prefix}1.weight").as_str()) {
                let layers = places.entry(prefix).or_insert(Layers::Numbered(Vec::new()));
                if let Layers::Numbered(stages) = layers {
                    stages.push(place);
                }
            }
        }
        let place = |(prefix, mut layers): (&str, Layers)| {
            if let Layers::Numbered(stages) = &mut layers {
                stages.sort_unstable();
            }
            Self { prefix: prefix.to_owned(), layers }
        };
        places.into_iter().map(place).collect()
    }

    /// What a name below the prefix is called in a network of named layers.
    pub(super) fn named(&self, below: &str) -> String {
        let Layers::Numbered(stages) = &self.layers else { return below.to_owned() };
        let (place, rest) = below.split_once('.').unwrap_or((below, ""));
        match place.parse::<usize>() {
            Ok(0) => format!("conv1.{rest}"),
            Ok(1) => format!("bn1.{rest}"),
            Ok(place) => match stages.iter().position(|stage| *stage == place) {
                Some(stage) => format!("layer{}.{rest}", stage + 1),
                None => below.to_owned(),
            },
            Err(_) => below.to_owned(),
        }
    }
}

/// What stands before the end of a name, if it ends so: nothing, or words with a dot behind them.
pub(super) fn before<'a>(name: &'a str, end: &str) -> Option<&'a str> {
    name.strip_suffix(end).filter(|before| before.is_empty() || before.ends_with('.'))
}

/// The first words of names, each with how many begin so, the most frequent first.
pub(super) fn beginnings(names: &[String]) -> Vec<(String, usize)> {
    counted(names.iter().map(|name| first_word(name)))
}

fn counted<'a>(words: impl Iterator<Item = &'a str>) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    let mut counts: Vec<(String, usize)> = counts.into_iter().map(|(word, count)| (word.to_owned(), count)).collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts
}

/// [`beginnings`] in words, some of them.
pub(super) fn in_words(beginnings: &[(String, usize)]) -> String {
    const SHOWN: usize = 6;
    let mut words: Vec<String> =
        beginnings.iter().take(SHOWN).map(|(word, count)| format!("`{}.` ({count})", short(word))).collect();
    if beginnings.len() > SHOWN {
        words.push(format!("{} more", beginnings.len() - SHOWN));
    }
    words.join(", ")
}

fn short(word: &str) -> String {
    word.chars().take(60).collect()
}

/// What is told of the names in a file: `taken` and `left` are as they stand in it. A prefix that all files of a family have is not worth
/// a word.
pub(super) fn told(place: (&str, bool), taken: &[String], left: &[String], ignored: usize, lightning: bool) -> Reading {
    let (prefix, usual) = place;
    let mut reading = Reading::default();
    if lightning {
        reading.took("the `state_dict` of a Lightning checkpoint");
    }
    if taken.iter().any(|name| name.trim_start_matches("_orig_mod.").starts_with("module.")) {
        reading.took("names without data-parallel training's `module.`");
    }
    if taken.iter().any(|name| name.split('.').any(|word| word == "_orig_mod")) {
        reading.took("names without `torch.compile`'s `_orig_mod.`");
    }
    if !prefix.is_empty() && !usual {
        reading.took(format!("the network is what begins with `{prefix}`"));
    }
    let left: Vec<String> = left.iter().map(|name| bare(name)).collect();
    for (group, count) in counted(left.iter().map(|name| beside(name, prefix))) {
        let dot = if left.contains(&group) { "" } else { ".*" };
        reading.left(format!("{count} × `{}{dot}`", short(&group)));
    }
    if ignored > 0 {
        reading.left(format!("{ignored} × `ignore`"));
    }
    reading
}

/// The words of a name up to the first in which it leaves the prefix.
fn beside<'a>(name: &'a str, prefix: &str) -> &'a str {
    let shared = name.split('.').zip(prefix.trim_end_matches('.').split('.')).take_while(|(own, other)| own == other);
    let length = shared.map(|(word, _)| word.len() + 1).sum::<usize>().min(name.len());
    &name[..length + first_word(&name[length..]).len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> Vec<String> {
        of.iter().map(|name| bare(name)).collect()
    }

    #[test]
    fn words_of_wrappers_are_taken_away() {
        for name in
            ["module.a.b", "_orig_mod.a.b", "module._orig_mod.a.b", "_orig_mod.module.a.b", "module.a._orig_mod.b", "a.b"]
        {
            assert_eq!(bare(name), "a.b", "{name}");
        }
        assert_eq!(bare("a.module.b"), "a.module.b", "a module of that name");
    }

    #[test]
    fn a_pattern_is_a_beginning_or_has_stars() {
        let names = Names { ignore: ["fc", "head.*", "*.queue", "a*b*c"].map(String::from).to_vec(), prefix: None };
        for ignored in ["fc", "fc.weight", "module.fc.weight", "head.0.weight", "model.queue", "abc", "a1b2c"] {
            assert!(names.ignores(ignored), "{ignored}");
        }
        for kept in ["fc2.weight", "heads.0", "queue", "model.queue_ptr", "acb", "a1b2"] {
            assert!(!names.ignores(kept), "{kept}");
        }
    }

    #[test]
    fn the_network_is_found_whatever_stands_before_it() {
        for prefix in ["", "model.", "net.", "backbone.", "model.encoder.", "base_encoder.", "encoder_q.", "my.own.word."] {
            let all =
                names(&[&format!("{prefix}conv1.weight"), &format!("{prefix}layer1.0.conv1.weight"), "projector.0.weight"]);
            assert_eq!(Place::of(&all, None).unwrap(), Place { prefix: prefix.into(), layers: Layers::Named });
        }
        let numbered =
            names(&["backbone.0.weight", "backbone.1.weight", "backbone.5.0.conv1.weight", "backbone.4.0.conv1.weight"]);
        let found = Place::of(&numbered, None).unwrap();
        assert_eq!((found.prefix.as_str(), &found.layers), ("backbone.", &Layers::Numbered(vec![4, 5])));
        let named = ["0.weight", "1.bias", "4.0.conv1.weight", "5.1.bn2.bias", "9.x"].map(|below| found.named(below));
        assert_eq!(named, ["conv1.weight", "bn1.bias", "layer1.0.conv1.weight", "layer2.1.bn2.bias", "9.x"]);
    }

    #[test]
    fn a_copy_is_taken_only_if_it_is_named() {
        let two = names(&["backbone.layer1.0.conv1.weight", "momentum_backbone.layer1.0.conv1.weight"]);
        assert_eq!(Place::of(&two, None).unwrap().prefix, "backbone.");
        for wanted in ["momentum_backbone", "momentum_backbone.", "module.momentum_backbone."] {
            assert_eq!(Place::of(&two, Some(wanted)).unwrap().prefix, "momentum_backbone.");
        }
        let refused = Place::of(&two[1..], None).unwrap_err();
        assert!(matches!(&refused, ImportError::WhichPrefix { found } if *found == ["momentum_backbone."]), "{refused}");
        let several = names(&["a.layer1.0.conv1.weight", "b.layer1.0.conv1.weight"]);
        assert!(matches!(Place::of(&several, None), Err(ImportError::WhichPrefix { .. })));
        let none = Place::of(&several, Some("c")).unwrap_err();
        assert_eq!(none.to_string(), "no name in it begins with `c`; they begin with `a.` (1), `b.` (1)");
    }
}
