//! A published image encoder from another project's file: tensors under our names, checked against the requested network.

use std::collections::BTreeMap;

use candle_core::Device;

use super::beginnings::{self, bare};
use super::error::ImportError;
use super::state::{self, Dict};
use super::towers::{FAMILIES, Names, Place, Way, brought};
use crate::EncoderNet;
use crate::error::{ModelError, Result};
use crate::published::{Published, TowerSettings};
use kinset_artifact::encoder::{Architecture, Encoder, EncoderCard, Normalization, Tensors, Weights};
use kinset_base::reading::Reading;

/// The most that three thirds may amount to, in numbers.
const MOST: usize = 1 << 30;

/// A published encoder, and where it came from.
#[derive(Debug)]
pub struct Tower {
    pub encoder: Encoder,
    /// Whose names the file has.
    pub family: &'static str,
    /// Tensors that have no part in it: a text tower, a classifier, what only training needs.
    pub left_out: usize,
    /// What was taken away from names, and which tensors stand beside the network.
    pub reading: Reading,
}

/// What is read of a file.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// One of several networks.
    pub part: Option<String>,
    pub names: beginnings::Names,
}

/// Reads this network from a file: safetensors, or what PyTorch wrote.
///
/// # Errors
/// [`ImportError`] for what cannot be read; [`ModelError::Weights`] with all that is missing, unexpected or of another shape, in
/// the file's words.
pub fn tower(bytes: &[u8], wanted: &Wanted, architecture: &Architecture, normalization: &Normalization) -> Result<Tower> {
    let mut read = read(bytes, wanted)?;
    let tensors = std::mem::take(&mut read.tensors);
    let net = net(architecture, normalization, &tensors).map_err(|error| read.in_their_words(error))?;
    let encoder = Encoder { card: net.card(normalization.clone()), tensors };
    Ok(Tower { encoder, family: read.names.family, left_out: read.left_out, reading: read.reading })
}

/// The published network that a file holds, whose tensors are read once; nothing if it is none of them.
///
/// # Errors
/// [`ImportError`] for what cannot be read.
pub fn published(bytes: &[u8]) -> Result<Option<Published>> {
    let read = match read(bytes, &Wanted::default()) {
        Err(ImportError::NoTower { .. }) => return Ok(None),
        read => read?,
    };
    let patches = read.tensors.get(PATCHES).map(|weights| weights.shape.as_slice());
    for network in Published::ALL {
        let (architecture, normalization) =
            TowerSettings { backbone: network, ..TowerSettings::default() }.network(None, None)?;
        let shape = architecture.transformer.as_ref();
        let own = shape.map(|shape| [architecture.width, architecture.channels, shape.patch, shape.patch]);
        // A whole network is only made where its first layer fits.
        if own.as_ref().map(<[usize; 4]>::as_slice) == patches && net(&architecture, &normalization, &read.tensors).is_ok() {
            return Ok(Some(network));
        }
    }
    Ok(None)
}

/// The first layer of transformers, `[width, channels, patch, patch]`.
const PATCHES: &str = "backbone.patch_embed.proj.weight";

fn read(bytes: &[u8], wanted: &Wanted) -> std::result::Result<Read, ImportError> {
    let sought: state::Sought<'_> = (&is_mark, &|found| ImportError::NoTower { found });
    state::found(bytes, wanted.part.as_deref(), &wanted.names, sought, |dict, weights| collect(dict, &wanted.names, weights))
}

/// The network of these tensors.
fn net(architecture: &Architecture, normalization: &Normalization, tensors: &Tensors) -> Result<EncoderNet> {
    let (architecture, normalization) = (architecture.clone(), normalization.clone());
    let card = EncoderCard { architecture, normalization, parameters: Vec::new(), buffers: Vec::new() };
    EncoderNet::from_tensors(&card, tensors, &Device::Cpu)
}

/// What a file holds, by our names.
struct Read {
    names: &'static Names,
    prefix: String,
    tensors: Tensors,
    left_out: usize,
    reading: Reading,
    /// How the names of the file begin.
    beginnings: Vec<(String, usize)>,
}

fn is_mark(name: &str) -> bool {
    FAMILIES.iter().any(|family| name.ends_with(family.mark))
}

fn collect(
    dict: Dict,
    wanted: &beginnings::Names,
    weights: &mut dyn FnMut(&str) -> std::result::Result<Weights, ImportError>,
) -> std::result::Result<Read, ImportError> {
    let all = dict.names.len();
    let names: Vec<String> = dict.names.into_iter().filter(|name| !wanted.ignores(name)).collect();
    let ignored = all - names.len();
    let bares: Vec<String> = names.iter().map(|name| bare(name)).collect();
    let prefix = wanted.prefix.as_deref().map(beginnings::with_dot);
    let beginnings = beginnings::beginnings(&bares);
    let Some((family, prefix)) = Names::of(bares.iter().map(String::as_str), prefix.as_deref()) else {
        return Err(match &wanted.prefix {
            Some(prefix) => ImportError::NoPrefix { prefix: prefix.clone(), found: beginnings },
            None => ImportError::NoTower { found: state::listed(names.iter().map(String::as_str)) },
        });
    };
    let mut read =
        Read { names: family, prefix, tensors: Tensors::default(), left_out: 0, reading: Reading::default(), beginnings };
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    let mut thirds: BTreeMap<String, [Option<Weights>; 3]> = BTreeMap::new();
    for (name, bare) in names.into_iter().zip(bares) {
        let place = family.place(&read.prefix, &bare);
        // Beside the network, or a head at its end.
        if place == Place::Unknown && bare.strip_prefix(&read.prefix).is_none_or(beginnings::is_head) {
            left.push(name);
            continue;
        }
        taken.push(name.clone());
        match place {
            Place::LeftOut => read.left_out += 1,
            // Kept under a name of its own, so that loading reports it.
            Place::Unknown => read.tensors.insert(name, vec![0], Vec::new()),
            Place::Ours(ours, Way::Third(which)) => {
                thirds.entry(format!("backbone.{ours}")).or_default()[which] = Some(weights(&name)?);
            }
            Place::Ours(ours, way) => {
                let Weights { shape, values } = brought(&ours, way, weights(&name)?);
                let ours = format!("backbone.{ours}");
                if read.tensors.get(&ours).is_some() {
                    return Err(ImportError::Tensor { name, what: "is there twice".into() });
                }
                read.tensors.insert(ours, shape, values);
            }
        }
    }
    read.reading = beginnings::told((&read.prefix, false), &taken, &left, ignored, dict.lightning);
    for (ours, thirds) in thirds {
        // An incomplete one is missing as a whole, and all of its names are listed.
        if let Some(Weights { shape, values }) = joined(&ours, thirds)? {
            read.tensors.insert(ours, shape, values);
        }
    }
    Ok(read)
}

/// Query, key and value, one below the other.
fn joined(name: &str, thirds: [Option<Weights>; 3]) -> std::result::Result<Option<Weights>, ImportError> {
    let [Some(query), Some(key), Some(value)] = thirds else { return Ok(None) };
    let mut shape = query.shape.clone();
    let alike = key.shape == shape && value.shape == shape && query.values.len() <= MOST;
    let Some(first) = shape.first_mut().filter(|_| alike) else {
        let what = format!("has thirds of the shapes {:?}, {:?} and {:?}", query.shape, key.shape, value.shape);
        return Err(ImportError::Tensor { name: name.to_owned(), what });
    };
    *first *= 3;
    Ok(Some(Weights { shape, values: [query.values, key.values, value.values].concat() }))
}

impl Read {
    /// Both lists in the names of the file.
    fn in_their_words(&self, error: ModelError) -> ModelError {
        let ModelError::Weights(mut mismatch) = error else { return error };
        let theirs = |name: &String| match name.strip_prefix("backbone.").map(|ours| self.names.theirs(&self.prefix, ours)) {
            Some(found) if !found.is_empty() => found,
            _ => vec![name.clone()],
        };
        mismatch.missing = mismatch.missing.iter().flat_map(theirs).collect();
        mismatch.unexpected = mismatch.unexpected.iter().flat_map(theirs).collect();
        for (name, ..) in &mut mismatch.misshapen {
            *name = theirs(name).join(" + ");
        }
        let names = beginnings::in_words(&self.beginnings);
        mismatch.file = Some(format!("the file has {}, which begin with {names}", self.names.family));
        ModelError::Weights(mismatch)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::params::values;
    use crate::published::TowerSettings;
    use crate::testing::{assert_near, numbers, wave};
    use crate::{EncoderNet, Mode};
    use kinset_base::fs;

    fn folder() -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/encoders")
    }

    fn golden() -> Value {
        serde_json::from_str(&fs::read_text(&folder().join("expected.json")).unwrap()).unwrap()
    }

    fn read(case: &Value) -> Result<Tower> {
        let settings: TowerSettings = serde_json::from_value(case["network"].clone()).unwrap();
        let size = case["sizes"][0]["size"].as_u64().unwrap() as usize;
        let (architecture, normalization) = settings.network(Some(size), None).unwrap();
        let bytes = fs::read(&folder().join(case["file"].as_str().unwrap())).unwrap();
        tower(&bytes, &Wanted::default(), &architecture, &normalization)
    }

    /// The files and numbers are those of `tests/golden/encoders/towers.py`: transformers, torchvision, and files in the names of
    /// the authors.
    #[test]
    fn features_are_those_of_pytorch_for_every_family_and_size() {
        for case in golden()["towers"].as_array().unwrap() {
            let file = case["file"].as_str().unwrap();
            let found = read(case).unwrap_or_else(|error| panic!("{file}: {error}"));
            let net = EncoderNet::from_tensors(&found.encoder.card, &found.encoder.tensors, &Device::Cpu).unwrap();
            for size in case["sizes"].as_array().unwrap() {
                let side = size["size"].as_u64().unwrap() as usize;
                let images = wave(&[2, 3, side, side], 0.01, 0.0, 1.0);
                for net in [net.clone(), net.frozen().unwrap()] {
                    let features = net.features(&images, Mode::Eval).unwrap();
                    assert_near(&format!("{file} at {side}"), &values(&features).unwrap(), &numbers(&size["features"]), 1e-4);
                }
            }
            assert_eq!(found.left_out as u64, case["left_out"].as_u64().unwrap(), "{file}");
        }
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_is_said_in_the_words_of_the_file() {
        let golden = golden();
        let case = golden["towers"].as_array().unwrap().iter().find(|case| case["file"] == "dinov2_hub.safetensors").unwrap();
        let refuse = |setting: &str, value: u64| {
            let mut case = case.clone();
            case["network"][setting] = value.into();
            match read(&case).unwrap_err() {
                ModelError::Weights(mismatch) => mismatch,
                other => panic!("{other}"),
            }
        };
        let deeper = refuse("depth", 3);
        assert!(deeper.missing.contains(&"encoder.layer.2.attention.attention.key.weight".to_owned()), "{deeper}");
        assert!(deeper.unexpected.is_empty());
        let shallower = refuse("depth", 1);
        assert!(shallower.unexpected.contains(&"encoder.layer.1.layer_scale2.lambda1".to_owned()), "{shallower}");
        let wider = refuse("width", 24);
        assert!(wider.misshapen.iter().any(|(name, ..)| name.contains("query.weight + ")), "{wider}");
        let registers = refuse("registers", 2);
        assert_eq!(registers.missing, ["embeddings.register_tokens"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn changed_bytes_never_panic(
            file in 0_usize..3,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..8),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            static FILES: LazyLock<Vec<(Vec<u8>, Value)>> = LazyLock::new(|| {
                let golden = golden();
                let of = |name: &str| {
                    let case = golden["towers"].as_array().unwrap().iter().find(|case| case["file"] == name).unwrap().clone();
                    (fs::read(&folder().join(name)).unwrap(), case)
                };
                ["dinov2_reg_authors.pth", "clip_authors.safetensors", "dinov2_hub.safetensors"].map(of).into()
            });
            let (bytes, case) = &FILES[file];
            let mut bytes = bytes.clone();
            for (at, value, early) in changes {
                // Names stand at the beginning, and most of what can go wrong with them.
                let reach = if early { bytes.len().min(6000) } else { bytes.len() };
                bytes[at.index(reach)] = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let settings: TowerSettings = serde_json::from_value(case["network"].clone()).unwrap();
            let (architecture, normalization) = settings.network(Some(8), None).unwrap();
            let _ = tower(&bytes, &Wanted::default(), &architecture, &normalization);
        }
    }

    #[test]
    fn wrapped_towers_are_read_and_what_stands_beside_them_is_left() {
        let golden = golden();
        let case = golden["towers"].as_array().unwrap().iter().find(|case| case["file"] == "dinov2_hub.safetensors").unwrap();
        let plain = read(case).unwrap();
        let bytes = fs::read(&folder().join("dinov2_hub.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors = Tensors::default();
        for name in file.names() {
            let Weights { shape, values } = super::super::file::named(&file, name).unwrap();
            tensors.insert(format!("model._orig_mod.encoder.{name}"), shape, values);
        }
        for extra in ["model.head.weight", "projector.0.weight", "odd.thing"] {
            tensors.insert(extra, vec![1], vec![0.5]);
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        tensors.save(&path).unwrap();
        let settings: TowerSettings = serde_json::from_value(case["network"].clone()).unwrap();
        let size = case["sizes"][0]["size"].as_u64().unwrap() as usize;
        let (architecture, normalization) = settings.network(Some(size), None).unwrap();
        let wrapped = fs::read(&path).unwrap();
        let read = |wanted: &Wanted| tower(&wrapped, wanted, &architecture, &normalization);
        let found = read(&Wanted::default()).unwrap();
        assert_eq!((&found.encoder, found.left_out), (&plain.encoder, plain.left_out));
        assert_eq!(
            found.reading.line(),
            "names without `torch.compile`'s `_orig_mod.`, the network is what begins with `model.encoder.`; not read: \
             1 × `model.head.*`, 1 × `odd.*`, 1 × `projector.*`"
        );
        let names = |prefix: &str| beginnings::Names { prefix: Some(prefix.into()), ignore: vec!["odd".into()] };
        let named = read(&Wanted { part: None, names: names("model.encoder") }).unwrap();
        assert!(named.encoder == plain.encoder && named.reading.line().ends_with("1 × `ignore`"), "{}", named.reading.line());
        let error = read(&Wanted { part: None, names: names("student.") }).unwrap_err();
        assert!(error.to_string().contains("no name in it begins with `student.`; they begin with `model.`"), "{error}");
    }

    #[test]
    fn a_file_of_something_else_is_told_so() {
        let mut tensors = Tensors::default();
        tensors.insert("bert.embeddings.weight", vec![1], vec![0.0]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        tensors.save(&path).unwrap();
        let (architecture, normalization) = TowerSettings::default().network(None, None).unwrap();
        let error = tower(&fs::read(&path).unwrap(), &Wanted::default(), &architecture, &normalization).unwrap_err();
        assert!(error.to_string().contains("`bert.embeddings.weight`"), "{error}");
    }
}
