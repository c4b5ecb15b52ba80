//! `kinset --version --verbose`: the version, the instruction set, the number of threads.

use super::common::{Answer, Failure};
use super::terminal;
use crate::base::fault::Exit;
use crate::kernel::isa::Isa;

pub(super) fn run() -> Answer {
    let used = Isa::chosen().map_err(Failure::own)?;
    terminal::print(&format!(
        "kinset {}\ninstruction set: {used} (detected: {}; KINSET_ISA caps it)\nthreads: {}",
        env!("CARGO_PKG_VERSION"),
        Isa::detected(),
        rayon::current_num_threads()
    ))?;
    Ok(Exit::Done)
}
