//! `kinset --version --verbose`: the version, the device, the instruction set, the number of threads.

use super::common::{Answer, Failure};
use super::terminal;
use crate::base::fault::Exit;
use crate::kernel::isa::Isa;
use crate::train::device::DeviceName;

/// What this program is, and what it computes with here.
pub(super) struct Facts {
    /// The class of what `device = "auto"` is here.
    pub(super) device: &'static str,
    /// The graphics cards that it was built for.
    pub(super) cards: Vec<&'static str>,
    pub(super) used: Isa,
    pub(super) detected: Isa,
    pub(super) threads: usize,
}

impl Facts {
    pub(super) fn look() -> Result<Self, Failure> {
        let built = ["cuda", "metal"].into_iter().zip([cfg!(feature = "gpu"), cfg!(feature = "metal")]);
        Ok(Self {
            device: DeviceName::Auto.open()?.class.word(),
            cards: built.filter(|(_, built)| *built).map(|(name, _)| name).collect(),
            used: Isa::chosen().map_err(Failure::own)?,
            detected: Isa::detected(),
            threads: rayon::current_num_threads(),
        })
    }

    pub(super) fn device(&self) -> String {
        let cards = if self.cards.is_empty() { "no graphics card".to_owned() } else { self.cards.join(", ") };
        format!("{} (what `device = \"auto\"` is here; built for {cards})", self.device)
    }

    pub(super) fn instructions(&self) -> String {
        format!("{} (detected: {}; KINSET_ISA caps it)", self.used, self.detected)
    }
}

pub(super) fn run() -> Answer {
    let facts = Facts::look()?;
    let (device, instructions) = (facts.device(), facts.instructions());
    let text = format!(
        "kinset {}\ndevice: {device}\ninstruction set: {instructions}\nthreads: {}",
        env!("CARGO_PKG_VERSION"),
        facts.threads
    );
    terminal::print(&text)?;
    Ok(Exit::Done)
}
