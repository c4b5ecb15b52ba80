//! The device that a run computes on.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;
#[cfg(feature = "gpu")]
use kinset_base::fault::chain;
#[cfg(feature = "gpu")]
use kinset_gpu::Card;
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

/// What a run computes on.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Where tensors live. With an NVIDIA card it is the processor: bodies of residual networks alone compute on the card, and find it
    /// by themselves ([`kinset_gpu::Card::used`]).
    pub tensors: Device,
    pub class: DeviceClass,
    /// Why `auto` did not take a card that this program was built for.
    pub passed_over: Option<String>,
}

impl Opened {
    fn of(tensors: Device, class: DeviceClass) -> Self {
        Self { tensors, class, passed_over: None }
    }
}

impl DeviceName {
    /// Opens the device. A process computes on one device: networks that are made after a card was opened compute on it.
    ///
    /// # Errors
    /// [`TrainError::BackEndMissing`] if this program was built without it, [`TrainError::Card`] or [`TrainError::Device`] if it does
    /// not answer. `auto` never fails.
    pub fn open(self) -> Result<Opened> {
        let missing = |feature| TrainError::BackEndMissing { device: self.to_string(), feature };
        match self {
            Self::Cpu => Ok(Opened::of(Device::Cpu, DeviceClass::Cpu)),
            #[cfg(feature = "gpu")]
            Self::Cuda(index) => match Card::choose(index) {
                Ok(_) => Ok(Opened::of(Device::Cpu, DeviceClass::Cuda)),
                Err(source) => Err(TrainError::Card { device: self.to_string(), source: Box::new(source) }),
            },
            #[cfg(not(feature = "gpu"))]
            Self::Cuda(_) => Err(missing("gpu")),
            Self::Metal(_) if !cfg!(feature = "metal") => Err(missing("metal")),
            Self::Metal(index) => match Device::new_metal(index) {
                Ok(device) => Ok(Opened::of(device, DeviceClass::Metal)),
                Err(source) => Err(TrainError::Device { device: self.to_string(), source }),
            },
            Self::Auto => Ok(Self::best()),
        }
    }

    /// The first card that is there, else the processor.
    fn best() -> Opened {
        #[cfg(feature = "gpu")]
        let passed_over = match Card::choose(0) {
            Ok(_) => return Opened::of(Device::Cpu, DeviceClass::Cuda),
            Err(error) => Some(chain(&error)),
        };
        #[cfg(not(feature = "gpu"))]
        let passed_over = None;
        match Self::Metal(0).open() {
            Ok(opened) => opened,
            Err(_) => Opened { passed_over, ..Opened::of(Device::Cpu, DeviceClass::Cpu) },
        }
    }
}

impl DeviceClass {
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
        assert_eq!(DeviceName::Cpu.open().unwrap().class.word(), "cpu");
        assert!(DeviceName::Auto.open().is_ok());
    }

    #[cfg(not(feature = "gpu"))]
    #[test]
    fn a_missing_back_end_names_the_feature_to_build_with() {
        use kinset_base::fault::{Exit, Fault};
        let error = DeviceName::Cuda(0).open().unwrap_err();
        assert_eq!((error.code(), error.exit()), ("train::back-end-missing", Exit::Machine));
        assert!(error.hint().is_some_and(|hint| hint.contains("--features gpu")));
    }
}
