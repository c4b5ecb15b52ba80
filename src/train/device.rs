//! The device that a run computes on.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::error::{Result, TrainError};

/// A device by name: `auto`, `cpu`, `cuda`, `cuda:1`, `metal`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceName {
    /// The first graphics card this program was built for and finds, else the processor.
    #[default]
    Auto,
    Cpu,
    /// An NVIDIA card, by number.
    Cuda(usize),
    /// An Apple card, by number.
    Metal(usize),
}

/// The part of a device that results depend on, and so the part that goes into keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceClass {
    Cpu,
    Cuda,
    Metal,
}

impl DeviceName {
    /// Opens the device.
    ///
    /// # Errors
    /// [`TrainError::BackEndMissing`] if this program was built without it, [`TrainError::Device`] if it does not answer.
    /// `auto` never fails.
    pub fn open(self) -> Result<Device> {
        let failed = |source| TrainError::Device { device: self.to_string(), source };
        let missing = |feature| TrainError::BackEndMissing { device: self.to_string(), feature };
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(_) if !cfg!(feature = "cuda") => Err(missing("cuda")),
            Self::Cuda(index) => Device::new_cuda(index).map_err(failed),
            Self::Metal(_) if !cfg!(feature = "metal") => Err(missing("metal")),
            Self::Metal(index) => Device::new_metal(index).map_err(failed),
            Self::Auto => {
                let card = [Self::Cuda(0), Self::Metal(0)].into_iter().find_map(|name| name.open().ok());
                Ok(card.unwrap_or(Device::Cpu))
            }
        }
    }
}

impl DeviceClass {
    pub fn of(device: &Device) -> Self {
        match device {
            Device::Cpu => Self::Cpu,
            Device::Cuda(_) => Self::Cuda,
            Device::Metal(_) => Self::Metal,
        }
    }

    /// The word for it in keys.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Metal => "metal",
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Metal(index) => write!(f, "metal:{index}"),
        }
    }
}

impl FromStr for DeviceName {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self> {
        let (kind, index) = text.split_once(':').unwrap_or((text, "0"));
        let index = index.parse::<usize>().ok();
        match (kind, index) {
            ("auto", Some(_)) if text == kind => Ok(Self::Auto),
            ("cpu", Some(_)) if text == kind => Ok(Self::Cpu),
            ("cuda", Some(index)) => Ok(Self::Cuda(index)),
            ("metal", Some(index)) => Ok(Self::Metal(index)),
            _ => Err(TrainError::UnknownDevice(text.to_owned())),
        }
    }
}

impl TryFrom<String> for DeviceName {
    type Error = TrainError;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (text, name) in [
            ("auto", DeviceName::Auto),
            ("cpu", DeviceName::Cpu),
            ("cuda:3", DeviceName::Cuda(3)),
            ("metal:0", DeviceName::Metal(0)),
        ] {
            assert_eq!(text.parse::<DeviceName>().unwrap(), name);
            assert_eq!(name.to_string(), text);
        }
        assert_eq!("cuda".parse::<DeviceName>().unwrap(), DeviceName::Cuda(0));
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cpu:0", "cuda:x"] {
            assert!(wrong.parse::<DeviceName>().is_err(), "{wrong}");
        }
        assert_eq!(serde_json::from_str::<DeviceName>("\"cuda:1\"").unwrap(), DeviceName::Cuda(1));
    }

    #[test]
    fn the_processor_is_always_there() {
        assert_eq!(DeviceClass::of(&DeviceName::Cpu.open().unwrap()).word(), "cpu");
        assert!(DeviceName::Auto.open().is_ok());
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_missing_back_end_names_the_feature_to_build_with() {
        use kinset_base::fault::{Exit, Fault};
        let error = DeviceName::Cuda(0).open().unwrap_err();
        assert_eq!((error.code(), error.exit()), ("train::back-end-missing", Exit::Machine));
        assert!(error.hint().is_some_and(|hint| hint.contains("--features cuda")));
    }
}
