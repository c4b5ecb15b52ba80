//! The choice of executor: the cluster file, and what the command line names.

use std::path::{Path, PathBuf};

use candle_core::Device;

use super::args::ClusterArgs;
use super::common::{Failure, device_of};
use crate::base::fs;
use crate::pipeline::dispatch::rules::{Executor, FILE, Rules};
use crate::pipeline::spec::Spec;
use crate::pipeline::state::Devices;
use crate::registry;
use crate::stage::AnyStage;
use crate::train::device::DeviceName;

/// Where the stages of a pipeline run, and by what rules.
pub(super) struct Where {
    pub(super) executor: Executor,
    pub(super) rules: Rules,
}

impl Where {
    /// As the command line says, else the cluster file, else here.
    pub(super) fn of(args: &ClusterArgs, pipeline: &Path) -> Result<Self, Failure> {
        let rules = match file(args, pipeline)? {
            Some(file) => Rules::load(&file, &registry::catalog())?,
            None => Rules::default(),
        };
        Ok(Self { executor: args.executor.unwrap_or(rules.executor), rules })
    }

    /// The class of device of each stage, for keys.
    pub(super) fn devices(&self, spec: &Spec) -> Result<Devices, Failure> {
        match self.executor {
            Executor::Here | Executor::Local(_) => Ok(device_of(spec)?.1),
            // Nobody here needs a device that a pipeline names for the nodes.
            Executor::Slurm | Executor::Kubernetes if spec.device != "auto" => {
                let class = spec.device.split(':').next().unwrap_or_default();
                Ok(Devices::from(class))
            }
            Executor::Slurm | Executor::Kubernetes => Ok(self.rules.devices(spec, DeviceName::Auto.open()?.class.word())),
        }
    }

    /// The device of this process.
    pub(super) fn device(&self, spec: &Spec) -> Result<Device, Failure> {
        let here = |node: &crate::pipeline::spec::Node| {
            self.rules.needs(node).here == Some(true) && registry::find(&node.kind).is_some_and(AnyStage::on_device)
        };
        if matches!(self.executor, Executor::Slurm | Executor::Kubernetes) && !spec.nodes.iter().any(here) {
            return Ok(Device::Cpu);
        }
        Ok(device_of(spec)?.0)
    }
}

/// A device by its class, for stages of a pipeline that leaves it open.
pub(super) fn device_of_class(spec: &Spec, class: &str) -> Result<Device, Failure> {
    let name = if spec.device == "auto" { class } else { &spec.device };
    Ok(name.parse::<DeviceName>()?.open()?.tensors)
}

/// The cluster file: the one that is named, else the one beside the pipeline, else the person's own.
fn file(args: &ClusterArgs, pipeline: &Path) -> Result<Option<PathBuf>, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(named) = args.cluster.clone().or_else(|| set("KINSET_CLUSTER")) {
        return Ok(Some(named));
    }
    let beside = fs::parent(pipeline).join(FILE);
    let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    let own = config.map(|config| config.join("kinset").join(FILE));
    if fs::metadata(&beside)?.is_some_and(|found| found.is_file()) {
        return Ok(Some(beside));
    }
    // A home that may not be looked into, of a service or a guest, has no such file.
    Ok(own.filter(|file| fs::metadata(file).is_ok_and(|found| found.is_some_and(|found| found.is_file()))))
}
