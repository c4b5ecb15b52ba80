//! The parameters and buffers of a network: which numbers it consists of, and what they are called.
//!
//! One ordered list, in the order of a PyTorch state dict, of two kinds of tensors: *parameters*, which training moves by
//! gradients, and *buffers* (the running statistics of batch norm), which the forward pass measures. They share one order so
//! that weights travel to and from PyTorch, and differ in kind so that no optimizer decays a running variance.
//!
//! Cloning is cheap and shares the numbers; [`Params::duplicate`] makes new ones.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};

use super::error::{Mismatch, ModelError, Result};
use super::init::Init;
use kinset_artifact::encoder::{Tensors, Weights};
use kinset_base::seed::Seed;

/// What moves a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Gradients.
    Parameter,
    /// The forward pass, in [`Mode::Train`](super::Mode::Train).
    Buffer,
}

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    role: Role,
    var: Var,
}

/// Named tensors in state-dict order.
#[derive(Clone, Debug, Default)]
pub struct Params {
    entries: Vec<Entry>,
    places: BTreeMap<String, usize>,
}

impl Params {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, name: impl Into<String>, role: Role, var: Var) -> Result<()> {
        let name = name.into();
        if self.places.contains_key(&name) {
            return Err(ModelError::Twice { name });
        }
        self.places.insert(name.clone(), self.entries.len());
        self.entries.push(Entry { name, role, var });
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<&Var> {
        self.places.get(name).map(|&place| &self.entries[place].var)
    }

    /// Name, role and tensor of all, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Role, &Var)> {
        self.entries.iter().map(|entry| (entry.name.as_str(), entry.role, &entry.var))
    }

    /// What gradients move, in order.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.with_role(Role::Parameter)
    }

    /// What the forward pass moves, in order.
    pub fn buffers(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.with_role(Role::Buffer)
    }

    fn with_role(&self, role: Role) -> impl Iterator<Item = (&str, &Var)> {
        self.iter().filter(move |&(_, found, _)| found == role).map(|(name, _, var)| (name, var))
    }

    /// How many tensors of either kind.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many numbers gradients move.
    pub fn size(&self) -> usize {
        self.parameters().map(|(_, var)| var.elem_count()).sum()
    }

    /// Those whose name passes, in the same order, sharing the numbers.
    pub fn subset(&self, keep: impl Fn(&str) -> bool) -> Self {
        self.renamed(|name| keep(name).then(|| name.to_owned()))
    }

    /// The same numbers under new names; where `rename` says nothing, the tensor stays behind. Of two tensors that would get
    /// one name, the first gets it.
    pub fn renamed(&self, rename: impl Fn(&str) -> Option<String>) -> Self {
        let mut chosen = Self::new();
        for entry in &self.entries {
            if let Some(name) = rename(&entry.name)
                && !chosen.places.contains_key(&name)
            {
                chosen.places.insert(name.clone(), chosen.entries.len());
                chosen.entries.push(Entry { name, role: entry.role, var: entry.var.clone() });
            }
        }
        chosen
    }

    /// Equal numbers in memory of their own.
    pub fn duplicate(&self) -> Result<Self> {
        let entries = self
            .entries
            .iter()
            .map(|entry| {
                let var = Var::from_tensor(&entry.var.as_detached_tensor().copy()?)?;
                Ok(Entry { name: entry.name.clone(), role: entry.role, var })
            })
            .collect::<Result<_>>()?;
        Ok(Self { entries, places: self.places.clone() })
    }

    /// The numbers, off the device.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`]: what diverged in the very last step shows in no loss. If the device fails.
    pub fn to_tensors(&self) -> Result<Tensors> {
        let mut tensors = Tensors::default();
        for (name, _, var) in self.iter() {
            tensors.insert(name, var.dims().to_vec(), values(var)?);
        }
        finite(&tensors)?;
        Ok(tensors)
    }

    /// Overwrites every number, or none: names and shapes must agree both ways (see [`plain`] for foreign files).
    ///
    /// # Errors
    /// [`ModelError::Weights`] with all that is missing, unexpected or of another shape; [`ModelError::NotFinite`].
    pub fn load(&self, tensors: &Tensors) -> Result<()> {
        let mut mismatch = Mismatch::default();
        for (name, _, var) in self.iter() {
            match tensors.get(name) {
                None => mismatch.missing.push(name.to_owned()),
                Some(weights) if weights.shape != var.dims() => {
                    mismatch.misshapen.push((name.to_owned(), var.dims().to_vec(), weights.shape.clone()));
                }
                Some(_) => {}
            }
        }
        let unexpected = tensors.names().filter(|name| !self.places.contains_key(*name));
        mismatch.unexpected.extend(unexpected.map(str::to_owned));
        mismatch.check()?;
        finite(tensors)?;
        for (name, Weights { shape, values }) in tensors.iter() {
            if let Some(var) = self.get(name) {
                var.set(&Tensor::from_slice(values, shape.as_slice(), var.device())?.to_dtype(var.dtype())?)?;
            }
        }
        Ok(())
    }
}

/// The numbers of a tensor as `f32`, row-major, off the device.
pub fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?)
}

/// A state dict as PyTorch saves it, without what only PyTorch needs: the prefix `module.` of data-parallel training and the
/// counters `num_batches_tracked`, which matter only to a batch norm without momentum.
pub fn plain(tensors: &Tensors) -> Tensors {
    let mut kept = Tensors::default();
    for (name, Weights { shape, values }) in tensors.iter() {
        let name = name.strip_prefix("module.").unwrap_or(name);
        if !name.ends_with("num_batches_tracked") {
            kept.insert(name, shape.clone(), values.clone());
        }
    }
    kept
}

fn finite(tensors: &Tensors) -> Result<()> {
    match tensors.iter().find(|(_, weights)| !weights.values.iter().all(|v| v.is_finite())) {
        Some((name, ..)) => Err(ModelError::NotFinite { name: name.to_owned() }),
        None => Ok(()),
    }
}

/// Where a network that is being built takes its numbers from.
enum Source<'a> {
    Seed(Seed),
    Tensors(&'a Tensors),
    Shared { params: &'a Params, recorded: bool },
}

/// Hands out the tensors of a network while it is being built, and keeps their list.
///
/// The same code that describes a network thus makes a new one, restores one and looks at one without recording gradients.
pub(super) struct Builder<'a> {
    source: Source<'a>,
    device: Device,
    params: Params,
    mismatch: Mismatch,
    prefix: String,
}

impl<'a> Builder<'a> {
    pub(super) fn fresh(seed: Seed, device: &Device) -> Self {
        Self::new(Source::Seed(seed), device)
    }

    /// Weights from a file. Memory is taken only for tensors the file really holds.
    pub(super) fn restored(tensors: &'a Tensors, device: &Device) -> Result<Self> {
        finite(tensors)?;
        Ok(Self::new(Source::Tensors(tensors), device))
    }

    /// The weights of another network, shared; not `recorded`, no gradient reaches them.
    pub(super) fn shared(params: &'a Params, recorded: bool) -> Self {
        Self::new(Source::Shared { params, recorded }, &Device::Cpu)
    }

    fn new(source: Source<'a>, device: &Device) -> Self {
        let device = device.clone();
        Self { source, device, params: Params::new(), mismatch: Mismatch::default(), prefix: String::new() }
    }

    /// Runs `build` with `name.` before all names.
    pub(super) fn within<T>(&mut self, name: &str, build: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let outer = self.prefix.len();
        self.prefix.push_str(name);
        self.prefix.push('.');
        let built = build(self);
        self.prefix.truncate(outer);
        built
    }

    /// A tensor that gradients move.
    pub(super) fn parameter(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        let var = self.take(name, Role::Parameter, shape, init)?;
        let recorded = !matches!(self.source, Source::Shared { recorded: false, .. });
        Ok(if recorded { var.as_tensor().clone() } else { var.as_detached_tensor() })
    }

    /// A tensor that the forward pass moves.
    pub(super) fn buffer(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Var> {
        self.take(name, Role::Buffer, shape, init)
    }

    fn take(&mut self, name: &str, role: Role, shape: &[usize], init: Init) -> Result<Var> {
        let name = format!("{}{name}", self.prefix);
        let found = match &self.source {
            Source::Seed(seed) => {
                let values = init.draw(shape, *seed, &name);
                let var = Var::from_vec(values, shape, &self.device)?;
                self.params.push(name, role, var.clone())?;
                return Ok(var);
            }
            Source::Tensors(tensors) => tensors.get(&name).map(|weights| (weights.shape.clone(), Ok(&weights.values))),
            Source::Shared { params, .. } => params.get(&name).map(|var| (var.dims().to_vec(), Err(var.clone()))),
        };
        match found {
            Some((found, source)) if found == shape => {
                let var = match source {
                    Ok(values) => Var::from_slice(values, shape, &self.device)?,
                    Err(var) => var,
                };
                self.params.push(name, role, var.clone())?;
                Ok(var)
            }
            // `finish` reports these; until then a tensor without numbers stands in.
            found => {
                match found {
                    Some((found, _)) => self.mismatch.misshapen.push((name, shape.to_vec(), found)),
                    None => self.mismatch.missing.push(name),
                }
                Ok(Var::zeros(0, DType::F32, &self.device)?)
            }
        }
    }

    /// The list of all that was handed out.
    ///
    /// # Errors
    /// [`ModelError::Weights`] if the source lacked something, or holds something nobody asked for.
    pub(super) fn finish(mut self) -> Result<Params> {
        let asked = |name: &str| {
            self.params.places.contains_key(name) || self.mismatch.misshapen.iter().any(|(asked, ..)| asked == name)
        };
        let names: Vec<&str> = match &self.source {
            Source::Seed(_) => Vec::new(),
            Source::Tensors(tensors) => tensors.names().collect(),
            Source::Shared { params, .. } => params.iter().map(|(name, ..)| name).collect(),
        };
        let unexpected: Vec<String> = names.into_iter().filter(|name| !asked(name)).map(str::to_owned).collect();
        self.mismatch.unexpected = unexpected;
        self.mismatch.check()?;
        Ok(self.params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Params {
        let mut params = Params::new();
        params.push("w", Role::Parameter, Var::new(&[1_f32, 2.0], &Device::Cpu).unwrap()).unwrap();
        params.push("mean", Role::Buffer, Var::new(&[3_f32], &Device::Cpu).unwrap()).unwrap();
        params
    }

    #[test]
    fn order_is_kept_and_kinds_are_told_apart() {
        let params = two();
        assert_eq!(params.iter().map(|(name, ..)| name).collect::<Vec<_>>(), ["w", "mean"]);
        assert_eq!(params.parameters().map(|(name, _)| name).collect::<Vec<_>>(), ["w"]);
        assert_eq!(params.buffers().map(|(name, _)| name).collect::<Vec<_>>(), ["mean"]);
        assert_eq!((params.len(), params.size()), (2, 2));
    }

    #[test]
    fn a_name_is_given_once() {
        let var = Var::new(&[1_f32], &Device::Cpu).unwrap();
        assert!(matches!(two().push("w", Role::Buffer, var), Err(ModelError::Twice { .. })));
    }

    #[test]
    fn loading_is_strict_both_ways_and_all_or_nothing() {
        let params = two();
        let mut tensors = Tensors::default();
        tensors.insert("w", vec![2], vec![7.0, 8.0]);
        tensors.insert("stranger", vec![1], vec![0.0]);
        let Err(ModelError::Weights(mismatch)) = params.load(&tensors) else { panic!("it was loaded") };
        assert_eq!((mismatch.missing, mismatch.unexpected), (vec!["mean".into()], vec!["stranger".into()]));
        assert_eq!(values(params.get("w").unwrap()).unwrap(), [1.0, 2.0]);
    }

    #[test]
    fn loading_overwrites_shared_numbers_but_not_duplicates() {
        let params = two();
        let (shared, apart) = (params.clone(), params.duplicate().unwrap());
        let mut tensors = Tensors::default();
        tensors.insert("w", vec![2], vec![7.0, 8.0]);
        tensors.insert("mean", vec![1], vec![9.0]);
        params.load(&tensors).unwrap();
        assert_eq!(shared.to_tensors().unwrap(), tensors);
        assert_eq!(values(apart.get("w").unwrap()).unwrap(), [1.0, 2.0]);
        assert_eq!(apart.parameters().count(), 1);
    }

    #[test]
    fn weights_that_are_not_finite_neither_come_in_nor_go_out() {
        let mut tensors = Tensors::default();
        tensors.insert("w", vec![2], vec![7.0, f32::NAN]);
        tensors.insert("mean", vec![1], vec![9.0]);
        assert!(matches!(two().load(&tensors), Err(ModelError::NotFinite { name }) if name == "w"));
        let mut diverged = Params::new();
        diverged.push("w", Role::Parameter, Var::new(&[f32::INFINITY], &Device::Cpu).unwrap()).unwrap();
        assert!(matches!(diverged.to_tensors(), Err(ModelError::NotFinite { .. })));
    }

    #[test]
    fn a_state_dict_of_pytorch_loses_its_prefix_and_counters() {
        let mut tensors = Tensors::default();
        tensors.insert("module.bn.weight", vec![1], vec![1.0]);
        tensors.insert("module.bn.num_batches_tracked", vec![], vec![7.0]);
        let names: Vec<String> = plain(&tensors).names().map(str::to_owned).collect();
        assert_eq!(names, ["bn.weight"]);
    }
}
