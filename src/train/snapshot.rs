//! The state of a training as one list that both saves and restores it.
//!
//! Every owner of state has one function `state(&mut self, snapshot)` that names each part once. A snapshot that is being saved
//! copies the part; one that is being restored overwrites it. So what is saved and what is restored cannot drift apart.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::checkpoint::{Checkpoint, Checkpoints};
use kinset_artifact::encoder::{Tensors, Weights};
use kinset_model::Params;
use kinset_model::params::values;
use kinset_stage::StageError;

/// All that training changes, by name: groups of tensors, and small values as JSON.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    restoring: bool,
    tensors: BTreeMap<String, Tensors>,
    values: BTreeMap<String, Value>,
}

impl Snapshot {
    /// A group of tensors: saved as `save` gives it, restored by `load`, which gets an empty group if none was saved.
    pub fn group<T: ?Sized, E: Into<StageError>>(
        &mut self,
        name: &str,
        of: &mut T,
        save: impl FnOnce(&T) -> Result<Tensors, E>,
        load: impl FnOnce(&mut T, &Tensors) -> Result<(), E>,
    ) -> Result<(), StageError> {
        if self.restoring {
            return load(of, self.tensors.entry(name.to_owned()).or_default()).map_err(Into::into);
        }
        self.tensors.insert(name.to_owned(), save(of).map_err(Into::into)?);
        Ok(())
    }

    /// Parameters and buffers of a network.
    pub fn params(&mut self, name: &str, mut params: &Params) -> Result<(), StageError> {
        self.group(name, &mut params, |params| params.to_tensors(), |params, saved| params.load(saved))
    }

    /// Tensors whose number may differ from what was saved.
    pub fn tensors(&mut self, name: &str, list: &mut Vec<Tensor>, device: &Device) -> Result<(), StageError> {
        let save = |list: &Vec<Tensor>| {
            let mut group = Tensors::default();
            for (at, tensor) in list.iter().enumerate() {
                group.insert(at.to_string(), tensor.dims().to_vec(), values(tensor)?);
            }
            Ok::<_, StageError>(group)
        };
        let load = |list: &mut Vec<Tensor>, group: &Tensors| {
            let saved = (0..group.len()).filter_map(|at| group.get(&at.to_string()));
            let restored = saved.map(|Weights { shape, values }| Tensor::from_slice(values, shape.as_slice(), device));
            *list = restored.collect::<candle_core::Result<_>>()?;
            Ok(())
        };
        self.group(name, list, save, load)
    }

    /// One tensor, which keeps its shape.
    ///
    /// # Errors
    /// If the device fails; if what was saved has another shape.
    pub fn tensor(&mut self, name: &str, tensor: &mut Tensor) -> Result<(), StageError> {
        let mut list = vec![tensor.clone()];
        self.tensors(name, &mut list, tensor.device())?;
        match list.pop() {
            Some(found) if found.dims() == tensor.dims() => *tensor = found,
            found => {
                return Err(StageError::Mismatch {
                    what: format!(
                        "the checkpoint contains `{name}` of shape {:?}, not {:?}",
                        found.map(|found| found.dims().to_vec()),
                        tensor.dims()
                    ),
                    hint: "run with `--force` to begin this stage again".into(),
                });
            }
        }
        Ok(())
    }

    /// Numbers, one per image for example.
    pub fn floats(&mut self, name: &str, list: &mut Vec<f32>) -> Result<(), StageError> {
        let mut tensor = Tensor::from_slice(list, list.len(), &Device::Cpu)?;
        self.tensor(name, &mut tensor)?;
        *list = values(&tensor)?;
        Ok(())
    }

    /// A small value; one that was not saved reads as `null`.
    ///
    /// # Errors
    /// If JSON cannot hold it; if what was saved is of another type.
    pub fn value<T: Serialize + DeserializeOwned>(&mut self, name: &str, value: &mut T) -> Result<(), StageError> {
        let fail = |source| StageError::Progress { what: name.to_owned(), source };
        if self.restoring {
            let saved = self.values.get(name).unwrap_or(&Value::Null);
            *value = T::deserialize(saved).map_err(fail)?;
        } else {
            self.values.insert(name.to_owned(), serde_json::to_value(value).map_err(fail)?);
        }
        Ok(())
    }

    pub(super) fn save(&self, to: &Checkpoints, number: u64) -> Result<(), StageError> {
        let names: Vec<&String> = self.tensors.keys().collect();
        let sections: Vec<(&str, &Tensors)> = self.tensors.iter().map(|(name, tensors)| (name.as_str(), tensors)).collect();
        Ok(to.save(number, &(names, &self.values), &sections)?)
    }

    pub(super) fn of(checkpoint: Checkpoint<(Vec<String>, BTreeMap<String, Value>)>) -> Self {
        let tensors = checkpoint.state.0.iter().map(|name| (name.clone(), checkpoint.section(name))).collect();
        Self { restoring: true, tensors, values: checkpoint.state.1 }
    }

    /// What was saved, to be restored.
    #[must_use]
    pub fn restoring(self) -> Self {
        Self { restoring: true, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_comes_back_without_what_lies_in_a_group_below_it() {
        let group = |names: &[&str]| {
            let mut tensors = Tensors::default();
            for (at, name) in names.iter().enumerate() {
                tensors.insert(*name, vec![1], vec![at as f32]);
            }
            tensors
        };
        let mut snapshot = Snapshot::default();
        for (name, tensors) in
            [("net", &["weight", "bias"][..]), ("net/optimizer", &["steps", "velocity/weight"]), ("network", &["weight"])]
        {
            snapshot.tensors.insert(name.into(), group(tensors));
        }
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path()).unwrap();
        snapshot.save(&checkpoints, 7).unwrap();
        let again = Snapshot::of(checkpoints.load().unwrap().checkpoint.unwrap());
        assert_eq!(again.tensors, snapshot.tensors);
    }

    #[test]
    fn what_was_saved_overwrites_what_is_there() {
        let (mut list, mut one, mut value) =
            (vec![Tensor::new(&[1_f32, 2.0], &Device::Cpu).unwrap()], Tensor::new(3_f32, &Device::Cpu).unwrap(), Some(5));
        let visit = |snapshot: &mut Snapshot, list: &mut Vec<Tensor>, one: &mut Tensor, value: &mut Option<i32>| {
            snapshot.tensors("list", list, &Device::Cpu)?;
            snapshot.value("value", value)?;
            snapshot.tensor("one", one)
        };
        let mut snapshot = Snapshot::default();
        visit(&mut snapshot, &mut list, &mut one, &mut value).unwrap();
        let mut snapshot = snapshot.restoring();
        let (mut none, mut other, mut nothing) = (Vec::new(), Tensor::new(0_f32, &Device::Cpu).unwrap(), None);
        visit(&mut snapshot, &mut none, &mut other, &mut nothing).unwrap();
        assert_eq!(none[0].to_vec1::<f32>().unwrap(), [1.0, 2.0]);
        assert_eq!((other.to_scalar::<f32>().unwrap(), nothing), (3.0, Some(5)));
        let mut wide = Tensor::zeros(2, candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(snapshot.tensor("one", &mut wide).unwrap_err().to_string().contains("of shape Some([]), not [2]"));
    }
}
