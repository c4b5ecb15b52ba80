//! `kinset --version --verbose`: the version, the device, the instruction set, the number of threads.

use super::common::{Answer, Failure};
use super::terminal;
use crate::base::fault::Exit;
use crate::kernel::isa::Isa;
use crate::train::device::{DeviceClass, DeviceName};

pub(super) fn run() -> Answer {
    let used = Isa::chosen().map_err(Failure::own)?;
    let device = DeviceClass::of(&DeviceName::Auto.open()?).word();
    let built = ["cuda", "metal"].into_iter().zip([cfg!(feature = "cuda"), cfg!(feature = "metal")]);
    let cards: Vec<&str> = built.filter(|(_, built)| *built).map(|(name, _)| name).collect();
    let cards = if cards.is_empty() { "no graphics card".to_owned() } else { cards.join(", ") };
    terminal::print(&format!(
        "kinset {}\ndevice: {device} (what `device = \"auto\"` is here; built for {cards})\ninstruction set: {used} (detected: {}; KINSET_ISA caps it)\nthreads: {}",
        env!("CARGO_PKG_VERSION"),
        Isa::detected(),
        rayon::current_num_threads()
    ))?;
    Ok(Exit::Done)
}
